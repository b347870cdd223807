"""What is tuned: overrides with a distribution each, as ``optimizer.lr=loguniform(1e-4,1e-2)``."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from sqn_rl.analysis.grid import require_ideas
from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.overrides import expand, origin, parse
from sqn_rl.recipe.provenance import override

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

INTERVALS = ("uniform", "loguniform", "int", "logint")
"""Distributions from a to b, both included: of numbers and of whole numbers, or of their logarithms."""

DISTRIBUTIONS = (*INTERVALS, "choice")

LARGEST = 2**53
"""The largest whole number of an interval: floats are exact up to here."""

CALL = re.compile(r"([^=]+)=\s*(\w+)\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Interval:
    """A number between two others, both included."""

    key: str
    text: str
    """As it was written."""
    low: float
    high: float
    whole: bool
    log: bool

    def __str__(self) -> str:
        """Equal for equal intervals."""
        name = ("log" if self.log else "") + ("int" if self.whole else "uniform")
        return f"{name}({self.low:.17g},{self.high:.17g})"

    @property
    def ends(self) -> tuple[float, ...]:
        """What is checked before the first run."""
        return self.low, self.high

    @property
    def size(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1 if self.whole else math.inf

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def has(self, value: Any) -> bool:
        """Whether this is one of its values."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high

    def override(self, value: Any) -> str:
        """The override that sets a value."""
        return override(self.key, int(value) if self.whole else float(value))


@dataclass(frozen=True)
class Values:
    """One of several values, or parts."""

    key: str
    text: str
    """As it was written."""
    ends: tuple[str, ...]
    """The values, as overrides write them."""

    def __str__(self) -> str:
        """Equal for equal values."""
        return f"choice({','.join(self.ends)})"

    @property
    def size(self) -> float:
        """How many values there are."""
        return len(self.ends)

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.ends)

    def has(self, value: Any) -> bool:
        """Whether this is one of its values."""
        return isinstance(value, str) and value in self.ends

    def override(self, value: Any) -> str:
        """The override that sets a value."""
        return f"{self.key}={value}"


Tuned = Interval | Values


def space_of(overrides: Sequence[str], catalogue: Catalogue) -> tuple[list[str], list[Tuned]]:
    """The overrides that are fixed, and what is tuned.

    Args:
        overrides: as on the command line; the later of two of one key counts.
        catalogue: where the parts are.

    Raises:
        RecipeError: an override or a distribution is invalid, or nothing is tuned.
    """
    fixed, tuned = dict[str, str](), dict[str, Tuned]()
    for text in overrides:
        key = text.partition("=")[0]
        each = _read(text, catalogue)
        fixed.pop(key, None)
        tuned.pop(key, None)
        if isinstance(each, str):
            fixed[key] = each
        else:
            tuned[key] = each
    seeds = (text for text in fixed.values() if text.startswith("seed="))
    require_ideas([*(each.text for each in tuned.values()), *seeds], "this cannot be tuned")
    if not tuned:
        where = origin(" ".join(overrides)) if overrides else ""
        raise RecipeError("nothing is tuned", where, "give a distribution: 'lr=loguniform(1e-4,1e-2)'")
    return [*fixed.values()], [*tuned.values()]


def _read(text: str, catalogue: Catalogue) -> str | Tuned:
    """A value, or what is tuned."""
    call = CALL.fullmatch(text)
    if call and call[2] in INTERVALS:
        return _interval(text, *call.groups())
    try:
        values = [value.partition("=")[2] for (value,) in expand([text], catalogue)]
    except RecipeError as error:
        if not call or call[2] in DISTRIBUTIONS:
            raise
        hint = did_you_mean(call[2], DISTRIBUTIONS)
        raise RecipeError(f"there is no distribution {call[2]!r}", origin(text), hint) from error
    key, _, value = text.partition("=")
    if len(values) > 1:
        return Values(key, text, tuple(dict.fromkeys(values)))
    (given,) = parse([text])
    return f"{key}={values[0]}" if given.sweeps or (call and value != values[0]) else text


def _interval(text: str, key: str, name: str, inner: str) -> Interval:
    where, words = origin(text), inner.split(",")
    whole, log = name.endswith("int"), name.startswith("log")
    try:
        low, high = map(float, words)
    except ValueError as error:
        raise RecipeError("expected two numbers", where, f"write {key}={name}(a,b)") from error
    if not math.isfinite(high - low):
        raise RecipeError("expected finite numbers", where, f"write {key}={name}(a,b)")
    if low >= high:
        hint = (
            f"write {key}={name}({words[1].strip()},{words[0].strip()})"
            if low > high
            else f"write {key}={low:g}"
        )
        raise RecipeError("expected a smaller number first", where, hint)
    if log and low <= 0:
        hint = f"begin above 0, or write {key}={name.removeprefix('log')}({inner})"
        raise RecipeError("a logarithm needs numbers above 0", where, hint)
    if whole and max(-low, high) > LARGEST:
        raise RecipeError("expected numbers up to 2**53", where, f"write {key}={name}(a,b)")
    if whole and not (low.is_integer() and high.is_integer()):
        fractions = f"{name.replace('int', 'uniform')}({inner})"
        hint = f"write {key}={name}({_whole(low, high, log)}), or {fractions} if fractions may be tried"
        raise RecipeError("expected whole numbers", where, hint)
    return Interval(key, text, low, high, whole, log)


def _whole(low: float, high: float, log: bool) -> str:
    """Two whole numbers between two others, or around them if there are no two between."""
    first, last = math.ceil(low), math.floor(high)
    if first >= last:
        first, last = max(math.floor(low), int(log)), math.ceil(high)
    return f"{first},{max(last, first + 1)}"


def corners(space: Sequence[Tuned], catalogue: Catalogue) -> Iterator[list[str]]:
    """The overrides to check before the first run: every combination of parts, and of the rest each end.

    What is not varied has its first value.
    """
    groups = catalogue.groups()
    parts = [each for each in space if each.key in groups]
    first = {each.key: each.override(each.ends[0]) for each in space}
    for values in product(*(each.ends for each in parts)):
        chosen = {each.key: each.override(value) for each, value in zip(parts, values, strict=True)}
        yield [*(first | chosen).values()]
    for each in space:
        if each not in parts:
            yield from ([*(first | {each.key: each.override(end)}).values()] for end in each.ends[1:])
