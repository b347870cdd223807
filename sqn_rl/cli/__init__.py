"""The console scripts, and what they share: options, exit codes and error messages."""

import gc
import importlib
import os
import re
import sys
import traceback
import warnings
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import NoReturn, TextIO

from sqn_rl.cli.terminal import streams
from sqn_rl.errors import EnvError, NumericsError, RecipeError, SqnError, StorageError
from sqn_rl.parts.lazy_dynamo import without_dynamo
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.reading import printable

PACKAGE = Path(__file__).resolve().parents[1]

LONGEST = 1000
"""The most characters in a line of a message; a longer line is shortened in the middle."""


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    FAILED = 1
    BAD_RECIPE = 2
    STOPPED = 3
    NUMERICS = 4
    UNREAD = 141
    """The exit code of a shell for a program that a broken pipe ended."""


class Parser(ArgumentParser):
    """Reads the arguments of a command."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(command, description=description, formatter_class=RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Print the error, shortened and printable; explain how to write a setting given with dashes."""
        hint, unknown = "", re.search(r"unrecognized arguments:.* --([\w.-]+)", message)
        if unknown and unknown[1] == "cfg":
            hint = "\n  sqn-run --dry-run prints the resolved recipe"
        elif unknown:
            from sqn_rl.recipe.schema import FOREIGN_NAMES

            name = unknown[1].replace("-", "_")
            hint = FOREIGN_NAMES.get(name, f"{name}={{}}").replace("{}", "VALUE")
            hint = f"\n  settings are written without dashes: {hint}"
        super().error(printable(_shortened(message)) + hint)


def options(command: str, description: str) -> Parser:
    """A parser with the options of the commands that build parts."""
    parser = Parser(command, description)
    parser.add_argument(
        "--config-dir",
        action="append",
        default=[],
        metavar="DIR",
        help="a further folder with recipes/ and components/ (also SQN_RL_PATH)",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module whose classes YAML may name (also SQN_RL_TRUST)",
    )
    return parser


def add_checkpoint(parser: Parser) -> None:
    """Add the option of commands that read the weights of a run."""
    parser.add_argument(
        "--checkpoint",
        default="last",
        metavar="last|best|STEPS",
        type=lambda text: int(text) if text.isdecimal() else text,
        help="whose weights: the newest; with checkpoint_best=true the best evaluation's; or of these steps",
    )


def require_at_least(least: int, option: str, value: int | None) -> None:
    """Refuse the number of an option that is below ``least``; None: it was not given.

    Raises:
        RecipeError: it is.
    """
    if value is not None and value < least:
        raise RecipeError(f"{option} {value}: expected a whole number, at least {least}")


def catalogue_of(arguments: Namespace) -> Catalogue:
    """The catalogue that the common options describe.

    Raises:
        RecipeError: a ``--config-dir`` is no tree.
    """
    return Catalogue(arguments.config_dir, arguments.trust)


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Wrap ``main``: print errors in a line or two and return their exit code, instead of a traceback.

    A broken pipe, for example to ``head``, ends the command quietly.
    """

    def reported(argv: Sequence[str] | None) -> int:
        try:
            return main(argv)
        except SqnError as error:
            return report(error)
        except KeyboardInterrupt:
            print_lines("interrupted", file=sys.stderr)
            return Exit.FAILED

    @wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        gc.set_threshold(50_000)  # at the default, 700, imports run the collector a thousand times: 0.5 s
        streams.prepare()
        try:
            try:
                with _plain_warnings(), _no_silent_exit():
                    return reported(argv)
            finally:  # also at a SystemExit, such as that of --help
                streams.flush()
        except OSError as error:
            lost = streams.silence_lost()
            if lost and isinstance(error, BrokenPipeError):
                return Exit.UNREAD
            if not lost and error.errno not in streams.FULL:
                return report(error)
            print_lines(f"the output cannot be written: {error.strerror}", file=sys.stderr)
            return Exit.FAILED

    return guarded


def import_torchrl() -> None:
    """Import TorchRL, but keep it from importing ``torch._dynamo``, and Ray if that is installed."""
    if "torchrl" in sys.modules or "ray" in sys.modules:
        return
    sys.modules["ray"] = None  # type: ignore[assignment]  # makes Python treat it as missing
    try:
        with without_dynamo():
            importlib.import_module("torchrl.data")
    finally:
        del sys.modules["ray"]


@contextmanager
def _no_silent_exit() -> Iterator[None]:
    """Report a call of ``os._exit`` by an environment or a library, and let the process fail.

    Such a call ends the process at once, perhaps with exit code 0, as if the command had succeeded.
    """
    end, command_process = os._exit, os.getpid()

    def reported(status: int) -> NoReturn:
        if os.getpid() == command_process:  # a child that was forked may end as it likes
            who = "as an environment or a library asked"
            print_lines(f"the process was ended by os._exit({status}), {who}", file=sys.stderr)
            status = status or Exit.FAILED
        end(status)

    os._exit = reported
    try:
        yield
    finally:
        os._exit = end


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print our own warnings as a line for the user, without their place in the code."""
    shown = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if Path(filename).is_relative_to(PACKAGE):
            return f"warning: {printable(str(message))}\n"
        return shown(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = shown


def print_lines(*lines: str, file: TextIO | None = None) -> None:
    """Print and flush lines; everything that a command prints passes through here or its ``Screen``."""
    print(*map(printable, lines), sep="\n", file=file, flush=True)


def print_notes(notes: Iterable[str]) -> None:
    """Print notes to stderr, apart from the result."""
    for note in notes:
        print_lines(f"note: {note}", file=sys.stderr)


def report(error: Exception) -> Exit:
    """Print an error, with a traceback unless it is one of ours; return the exit code."""
    if isinstance(error, OSError) and error.filename is not None:  # the user can fix it
        error = StorageError(f"{error.filename}: {error.strerror}")
    if not isinstance(error, SqnError):
        print_lines(*"".join(traceback.format_exception(error)).rstrip().split("\n"), file=sys.stderr)
        return Exit.FAILED
    print_lines(*map(_shortened, str(error).split("\n")), file=sys.stderr)
    if isinstance(error, StorageError | EnvError):
        return Exit.FAILED
    return Exit.NUMERICS if isinstance(error, NumericsError) else Exit.BAD_RECIPE


def _shortened(line: str) -> str:
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[:half]} … {line[-half:]}"
