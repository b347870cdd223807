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
"""ASCII spellings of signs that an encoding may lack; Greek letters are spelled by their names."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a full disk."""

STREAMS = ("stdin", "stdout", "stderr")


def prepare() -> None:
    """Connect closed streams to ``/dev/null``, and let streams spell characters that their encoding lacks."""
    while (file := os.open(os.devnull, os.O_RDWR)) < len(STREAMS):  # later files need other numbers
        os.set_inheritable(file, True)
    os.close(file)
    for number, name in enumerate(STREAMS):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELL)


def flush() -> None:
    """Flush standard output and error.

    Raises:
        OSError: the pipe is broken, or the disk is full.
    """
    sys.stdout.flush()
    sys.stderr.flush()


def silence_lost() -> bool:
    """Redirect streams that can no longer be written to ``/dev/null``; return whether there were any."""
    lost = [stream for stream in (sys.stdout, sys.stderr) if not _is_writable(stream)]
    for stream in lost:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return bool(lost)


def _is_writable(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    reader = select.poll()
    reader.register(stream.fileno(), select.POLLOUT)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in reader.poll(0))


def _spell(error: UnicodeError) -> tuple[str, int]:
    """A handler for codecs: an ASCII spelling of what cannot be encoded, and where to continue."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelled, error.object[error.start : error.end])), error.end


def _spelled(character: str) -> str:
    if character in SPELLED:
        return SPELLED[character]
    words = unicodedata.name(character, "").split()
    if words[:1] == ["GREEK"]:
        return words[-1].capitalize() if "CAPITAL" in words else words[-1].lower()
    plain = unicodedata.normalize("NFKD", character).replace("⁄", "/").encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()


SPELL = "sqn_rl.spell"
codecs.register_error(SPELL, _spell)
