"""Standard streams that can print every character, and survive a broken pipe."""

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from typing import TextIO

SPELLED = {"±": "+-", "−": "-", "–": "-", "—": "-", "×": "x", "·": "*", "→": "->", "’": "'"}
"""Signs that an encoding may lack; Greek letters are spelled by their names."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a full disk."""

STREAMS = ("stdin", "stdout", "stderr")


def prepare() -> None:
    """Have a closed stream read and write nothing, and one with few characters spell the others."""
    while (file := os.open(os.devnull, os.O_RDWR)) < len(STREAMS):  # else the next file would take its number
        os.set_inheritable(file, True)
    os.close(file)
    for number, name in enumerate(STREAMS):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELL)


def flush() -> None:
    """Write what is not written yet.

    Raises:
        OSError: the pipe is broken, or the disk is full.
    """
    sys.stdout.flush()
    sys.stderr.flush()


def silence_lost() -> bool:
    """Send to nowhere what can no longer be written; returns whether there was such a stream."""
    lost = [stream for stream in (sys.stdout, sys.stderr) if not _takes(stream)]
    for stream in lost:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return bool(lost)


def _takes(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    reader = select.poll()
    reader.register(stream.fileno(), select.POLLOUT)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in reader.poll(0))


def _spell(error: UnicodeError) -> tuple[str, int]:
    """What codecs ask for: a replacement in ASCII for what cannot be encoded, and where to continue."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelled, error.object[error.start : error.end])), error.end


def _spelled(character: str) -> str:
    words = unicodedata.name(character, "").split()
    if character in SPELLED:
        return SPELLED[character]
    if words[:1] == ["GREEK"]:
        return words[-1].capitalize() if "CAPITAL" in words else words[-1].lower()
    plain = unicodedata.normalize("NFKD", character).replace("⁄", "/").encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


SPELL = "sqn_rl.spell"
codecs.register_error(SPELL, _spell)
