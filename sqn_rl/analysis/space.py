"""Search spaces: overrides with distributions, such as ``optimizer.lr=loguniform(1e-4,1e-2)``."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from sqn_rl.analysis.grid import evaluations_of, require_variant_keys
from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import Recipe, compose_recipe
from sqn_rl.recipe.overrides import expand, origin, parse
from sqn_rl.recipe.provenance import override

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

INTERVALS = ("uniform", "loguniform", "int", "logint")
"""Distributions of numbers or whole numbers in [a, b]; those of logarithms are uniform in log space."""

DISTRIBUTIONS = (*INTERVALS, "choice")

LARGEST = 2**53
"""The largest whole number in an interval: floats represent all of them exactly up to here."""

CALL = re.compile(r"([^=]+)=\s*(\w+)\((.*)\)\s*", re.DOTALL)


@dataclass(frozen=True)
class Interval:
    """A number between two others, both included."""

    key: str
    text: str
    """As it was written."""
    low: float
    high: float
    is_whole: bool
    is_log: bool

    def __str__(self) -> str:
        """The distribution as text; equal for equal intervals."""
        name = ("log" if self.is_log else "") + ("int" if self.is_whole else "uniform")
        return shortest(f"{name}({self.low!r},{self.high!r})")

    @property
    def ends(self) -> tuple[float, ...]:
        """The smallest and the largest value."""
        return self.low, self.high

    @property
    def checked(self) -> tuple[float, ...]:
        """The values that are checked before the first run: the ends, and a fraction if there are any."""
        fraction = (self.low + self.high) / 2
        while fraction.is_integer() and self.low < fraction < self.high:
            fraction = (self.low + fraction) / 2
        return self.ends if self.is_whole else (*self.ends, fraction)

    @property
    def size(self) -> float:
        """The number of values."""
        return self.high - self.low + 1 if self.is_whole else math.inf

    def distribution(self) -> "BaseDistribution":
        """The distribution for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.is_log)
        return FloatDistribution(self.low, self.high, log=self.is_log)

    def has(self, value: Any) -> bool:
        """Whether this is one of its values."""
        kinds = int if self.is_whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high

    def override(self, value: Any) -> str:
        """The override that sets a value."""
        return override(self.key, int(value) if self.is_whole else float(value))


def shortest(distribution: str) -> str:
    """An interval's text with numbers in their shortest form; older searches have 17 digits. Others as is."""
    if not distribution.startswith(tuple(f"{name}(" for name in INTERVALS)):
        return distribution
    return re.sub(r"[^(,]+(?=[,)])", lambda found: repr(float(found[0])).removesuffix(".0"), distribution)


@dataclass(frozen=True)
class Values:
    """One of several values, or parts."""

    key: str
    text: str
    """As it was written."""
    ends: tuple[str, ...]
    """The values, as overrides write them."""

    @property
    def checked(self) -> tuple[str, ...]:
        """The values that are checked before the first run: all."""
        return self.ends

    def __str__(self) -> str:
        """The choice as text; equal for equal values."""
        return f"choice({','.join(self.ends)})"

    @property
    def size(self) -> float:
        """The number of values."""
        return len(self.ends)

    def distribution(self) -> "BaseDistribution":
        """The distribution for Optuna."""
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
    """Separate the fixed overrides from those that are tuned.

    Args:
        overrides: as on the command line; the later of two for the same key counts.
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
    require_variant_keys([*(each.text for each in tuned.values()), *seeds], "this cannot be tuned")
    if not tuned:
        where = origin(" ".join(overrides)) if overrides else ""
        raise RecipeError("nothing is tuned", where, "give a distribution: 'lr=loguniform(1e-4,1e-2)'")
    return [*fixed.values()], [*tuned.values()]


def _read(text: str, catalogue: Catalogue) -> str | Tuned:
    """A fixed override, or one that is tuned."""
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
    """Read an interval; refuse one without values, or with values that it cannot have."""
    where, words = origin(text), inner.split(",")
    is_whole, is_log = name.endswith("int"), name.startswith("log")
    example = f"such as {key}={name}({'8,64' if is_whole else '0.001,0.1'})"
    try:
        low, high = map(float, words)
    except ValueError as error:
        raise RecipeError("expected two numbers", where, example) from error
    if not math.isfinite(high - low):
        raise RecipeError("expected finite numbers", where, example)
    if low >= high:
        swapped = f"{name}({words[1].strip()},{words[0].strip()})"
        hint = f"write {key}={swapped if low > high else f'{low:g}'}"
        raise RecipeError("expected a smaller number first", where, hint)
    if is_log and low <= 0:
        hint = f"begin above 0, or write {key}={name.removeprefix('log')}({inner})"
        raise RecipeError("a logarithm needs numbers above 0", where, hint)
    if is_whole and max(-low, high) > LARGEST:
        raise RecipeError("expected numbers up to 2**53", where, example)
    if is_whole and not (low.is_integer() and high.is_integer()):
        fractions = f"{name.replace('int', 'uniform')}({inner})"
        hint = f"write {key}={name}({_whole(low, high, is_log)}), or {fractions} if fractions may be tried"
        raise RecipeError("expected whole numbers", where, hint)
    return Interval(key, text, low, high, is_whole, is_log)


def _whole(low: float, high: float, is_log: bool) -> str:
    """The outermost whole numbers between two others; if there are not two, those around them."""
    first, last = math.ceil(low), math.floor(high)
    if first >= last:
        first, last = max(math.floor(low), 1 if is_log else 0), math.ceil(high)
    return f"{first},{max(last, first + 1)}"


def refuse_fractions(space: Sequence[Tuned], config: Mapping[str, Any]) -> None:
    """Refuse an interval with fractions, if its setting is a whole number.

    Args:
        space: the settings that are tuned.
        config: a resolved recipe, in which they have their smallest values.

    Raises:
        RecipeError: says which distribution to write.
    """
    for each in space:
        if isinstance(each, Interval) and not each.is_whole and _is_whole_in(config, each.key):
            name = f"{'log' if each.is_log else ''}int({_whole(each.low, each.high, each.is_log)})"
            raise RecipeError("expected whole numbers", origin(each.text), f"write {each.key}={name}")


def _is_whole_in(config: Mapping[str, Any], key: str) -> bool:
    """Whether the value at a dotted key is a whole number: a fraction without decimals was converted."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return type(value) is int


def corners(space: Sequence[Tuned], catalogue: Catalogue) -> Iterator[list[str]]:
    """The overrides to check before the first run: all combinations of parts; ends and fractions.

    Settings that are not varied have their first values.
    """
    groups = catalogue.groups()
    parts = [each for each in space if each.key in groups]
    first = {each.key: each.override(each.ends[0]) for each in space}
    for values in product(*(each.ends for each in parts)):
        chosen = {each.key: each.override(value) for each, value in zip(parts, values, strict=True)}
        yield [*(first | chosen).values()]
    for each in space:
        if each not in parts:
            for value in each.checked[1:]:
                yield [*(first | {each.key: each.override(value)}).values()]


def with_evaluations(
    fixed: Sequence[str], space: Sequence[Tuned], catalogue: Catalogue
) -> tuple[list[str], Recipe]:
    """The overrides, with evaluations during training, and the recipe with the first of the tuned values."""
    first = [each.override(each.ends[0]) for each in space]
    base = compose_recipe("sqn", *fixed, *first, catalogue=catalogue)
    overrides = [*fixed, *filter(None, [evaluations_of(base)])]
    return overrides, compose_recipe("sqn", *overrides, *first, catalogue=catalogue)
