"""The package's errors: one class for each kind of fix."""

import difflib
import json
import os
import re
import shlex
import sysconfig
import traceback
from collections.abc import Callable, Collection, Iterable
from importlib import metadata
from itertools import islice
from numbers import Integral
from pathlib import Path
from types import FrameType
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

_PACKAGE = str(Path(__file__).parent)
_ENVS = Path(_PACKAGE, "parts", "env")
_STANDARD_LIBRARY = tuple({f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")})


class SqnError(Exception):
    """Base of every error that this package raises on purpose."""


class SettingError(SqnError, ValueError):
    """A setting has a value that cannot work.

    Args:
        field: the argument's name, as the part's class and its YAML spell it.
        value: what it was set to.
        expected: what is accepted, as a noun phrase: "a number in (0, 1]".
    """

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field} = {shown(value)}: expected {expected}")
        self.field, self.value, self.expected = field, value, expected

    def located(self, key: str, origin: Callable[[str], str]) -> "RecipeError":
        """The error of a recipe with the setting at ``key``; ``origin`` gives the place where it was set."""
        return RecipeError(f"expected {self.expected}", origin(key), "", f"{key} = {shown(self.value)}")


class WiringError(SqnError, ValueError):
    """Two parts do not fit each other.

    Args:
        consumer: the slot that needs something, or its field that requests it: ``returns.soft``.
        message: what it needs, and what is produced instead.
        producer: the slot that should produce it; reported if it alone was chosen on the command line.
    """

    def __init__(self, consumer: str, message: str, producer: str = "") -> None:
        super().__init__(message)
        self.consumer, self.producer = consumer, producer

    def located(self, origin: Callable[[str], str]) -> "RecipeError":
        """The error of a recipe, at the part that the command line chose, or else at the consumer.

        Args:
            origin: the place where the part in a slot was chosen, or a field was set.
        """
        origins = [origin(slot) for slot in (self.consumer, self.producer) if slot]
        chosen = (each for each in origins if each.startswith(COMMAND_LINE))
        subject, _, message = str(self).partition(": ")
        return RecipeError(message, next(chosen, origins[0]), "", subject)


def not_a_module(slot: str, part: object) -> WiringError:
    """The error for a part that must be a torch module and is not."""
    problem = f"{slot}: {type(part).__name__} is no nn.Module"
    return WiringError(slot, f"{problem}; expected one, as its parameters would be neither learned nor saved")


class ObservationError(SqnError, ValueError):
    """A network received observations for which it was not built.

    Args:
        expected: dtype and shape: "uint8 [B, 128]".
        given: dtype and shape that were received, or the type of another object.
        fix: how to fix it.
    """

    def __init__(self, expected: str, given: str, fix: str) -> None:
        super().__init__(f"observation: expected {expected}, given {given}\n  {fix}")
        self.expected, self.given, self.fix = expected, given, fix


class EnvError(SqnError):
    """An environment raised, its process died, or it returned an invalid value.

    Args:
        where: the environment's name and number, and the step.
        message: what went wrong.
    """

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where, self.message = where, message


class AnswerError(ValueError):
    """An environment returned a value of the wrong type, shape or range; becomes an :class:`EnvError`."""


class RestoreError(SqnError):
    """An environment's state cannot be restored; new episodes can be started."""


class NumericsError(SqnError, ArithmeticError):
    """A number that must be finite is NaN or infinite."""

    batch: Any = None
    """The batch of the update in which it appeared; None if it was not an update."""


class CheckpointError(SqnError):
    """A checkpoint, or a file of its run, is missing, damaged, or of another agent."""


class DamagedError(CheckpointError):
    """A file is proven damaged: it is missing, or its size or its contents have changed."""


class StorageError(SqnError):
    """A file cannot be written: the disk is full or does not respond, or another process owns the folder."""


class ReplayError(SqnError):
    """Transitions that were stored are lost, with the process or the machine that had them."""


MOST_SHOWN = 200
"""The most characters of a value in an error's message; a longer one is shown by its type."""


def shown(value: object) -> str:
    """A value in an error's message: in one line, and none that fills a page, as a network's would."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN and "\n" not in text else f"<{type(value).__name__}>"


MOST_EXPLAINED = 500
"""The most characters of an error's message in an explanation; the rest is left out."""


def explain(error: BaseException) -> str:
    """An error's type and message, with the line of the user's own code that raised it, if any.

    A message of several lines becomes one.
    """
    kind = [] if isinstance(error, AnswerError) else [f"{type(error).__name__}:"]
    message = " | ".join(filter(None, map(str.strip, str(error).splitlines())))
    if len(message) > MOST_EXPLAINED:
        message = f"{message[:MOST_EXPLAINED]} …"
    return " ".join([*kind, *([message] if message else [])]) + own_line(error)


def own_line(error: BaseException) -> str:
    """The line of the user's own code that raised an error, in parentheses; empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f" ({frame.filename}:{frame.lineno})" for frame in frames if is_own(frame.filename)]
    return own[-1] if own else ""


def first_line(error: BaseException) -> str:
    """An error's type, and the first line of its message."""
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return ": ".join([type(error).__name__, *islice(lines, 1)])


def running_function(frame: FrameType | None) -> str:
    """The user's function that is running, or else the function that one of our environments called."""
    stack = traceback.extract_stack(frame)
    ours = [place for place, each in enumerate(stack) if each.filename.startswith(_PACKAGE)]
    called = stack[ours[-1] + 1 :] if ours else []
    own = [each for each in called if is_own(each.filename)]
    env = called if called and Path(stack[ours[-1]].filename).is_relative_to(_ENVS) else []
    return next((f"{each.name} ({each.filename}:{each.lineno})" for each in [*own[-1:], *env]), "")


def is_own(filename: str) -> bool:
    """Whether a file is the user's own: not of this package, of a dependency, or of Python."""
    dependency = any(part in filename for part in ("site-packages", "<", _PACKAGE))
    return not dependency and not filename.startswith(_STANDARD_LIBRARY)


def require_one_of(names: Collection[str], field: str, value: object) -> None:
    """Raise :class:`SettingError` for ``field`` unless ``value`` is in ``names``; it suggests the nearest."""
    require(value in names, field, value, f"one of {', '.join(names)}{nearest(value, names)}")


def nearest(name: object, names: Iterable[str]) -> str:
    """A suggestion to end an error message with: the nearest of ``names``; empty if none."""
    near = _similar(str(name), names)
    return f"; did you mean {near[0]!r}?" if near else ""


def to_install(extra: str) -> str:
    """The command that adds ``extra`` to this package, from the folder that it was installed from."""
    try:
        source = json.loads(metadata.distribution("sqn_rl").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        source = {}
    url = urlsplit(source.get("url", ""))
    folder = unquote(url.path) if url.scheme == "file" else "sqn_rl"
    editable = "-e " if source.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}'{folder}[{extra}]'"


def to_type(*words: object) -> str:
    """A command to type, in backquotes: its words as a shell takes them."""
    return f"`{shlex.join(map(str, words))}`"


def for_atari_id(id: str) -> str:
    """What to write instead of an id of Atari's environments, such as ``ALE/Pong-v5``; empty for others."""
    match = re.fullmatch(r"(ALE/)?(\w+?)(NoFrameskip)?-v\d+", id)
    if match is None or not (match[1] or match[3]):
        return ""
    return f"write env=atari env.game={in_snake_case(match[2])}"


def in_snake_case(name: str) -> str:
    """``space_invaders`` for ``SpaceInvaders``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def did_you_mean(name: str, names: Collection[str], listed: Collection[str] | None = None) -> str:
    """A hint: the nearest of ``names`` and others about as near; if none, all of them, or of ``listed``."""
    if near := _similar(name, names):
        return f"did you mean {' or '.join(f'`{each}`' for each in near)}?"
    listed = names if listed is None else listed
    return f"there are: {', '.join(sorted(listed))}" if listed else ""


def _similar(name: str, names: Iterable[str]) -> list[str]:
    """At most three of ``names``, the nearest first, ignoring case."""
    by_lower = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3)
    ratios = [difflib.SequenceMatcher(None, other, name.lower()).ratio() for other in near]
    return [by_lower[other] for other, ratio in zip(near, ratios, strict=True) if ratio > ratios[0] - 0.1]


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Raise :class:`SettingError` for ``field`` unless ``condition`` holds."""
    if not condition:
        raise SettingError(field, value, expected)


def is_whole(value: object) -> TypeGuard[Integral]:
    """Whether a value is a whole number, of Python or NumPy, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def require_whole(field: str, value: object, least: int, of: str = "", *, or_null: bool = False) -> None:
    """Raise :class:`SettingError` unless ``value`` is a whole number from ``least`` on, or may be None."""
    fits = is_whole(value) and int(value) >= least
    unit, alternative = f" of {of}" if of else "", ", or null" if or_null else ""
    expected = f"a whole number{unit}, at least {least}{alternative}"
    require(fits or (or_null and value is None), field, value, expected)


def is_bool(value: object) -> bool:
    """Whether a value is a bool, of Python or NumPy."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # without importing NumPy


def require_bool(field: str, value: object) -> None:
    """Raise :class:`SettingError` unless ``value`` is a bool: a text is always true."""
    require(is_bool(value), field, value, "True or False")


def as_path(field: str, value: Any) -> Path:
    """``value`` as a path, or :class:`SettingError` for what is none, such as None or an empty text."""
    require(not (isinstance(value, str) and not value), field, value, "a path")
    try:
        return Path(value)
    except TypeError as error:
        raise SettingError(field, value, "a path") from error


COMMAND_LINE = "command line: "
"""Prefix of the origin of a setting that an override set."""


def _key(text: str) -> str:
    """The key at the beginning of an override or of an error's subject."""
    return re.split("[ =]", text.lstrip("+~"))[0]


class RecipeError(SqnError):
    """A recipe, a part's YAML or an override is invalid.

    Args:
        message: what is wrong.
        origin: where: ``recipes/x.yaml:12`` or ``command line: stpes=3``.
        hint: how to fix it.
        subject: what the message is about, ``gamma = 1.5`` or ``head``; omitted where the origin has it.
    """

    def __init__(self, message: str, origin: str = "", hint: str = "", subject: str = "") -> None:
        if subject and _key(subject) != _key(origin.removeprefix(COMMAND_LINE)):
            message = f"{subject}: {message}"
        where, second_line = f"{origin}: " if origin else "", f"\n  {hint}" if hint else ""
        super().__init__(f"{where}{message}{second_line}")
        self.message, self.origin, self.hint = message, origin, hint
