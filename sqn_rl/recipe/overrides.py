"""Overrides: ``slot=part``, ``slot.field=value``, ``setting=value``, ``~slot.field``, and sweeps of them.

Their grammar is Hydra's, and Hydra's parser reads them. No other module imports Hydra. As that takes 0.2 s,
it happens only if there are overrides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import TYPE_CHECKING, Any

from sqn_rl.errors import COMMAND_LINE, RecipeError
from sqn_rl.recipe.catalogue import Catalogue, Choice
from sqn_rl.recipe.provenance import override

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override as Parsed

FORM = "write name=value: steps=2000, head=dueling or optimizer.lr=1e-3"
SWEEP = "give one value here; `sqn-run -m` runs each of several"
PAIRS = {"[": "]", "{": "}", "(": ")"}
QUOTES = "quote a value that has special characters: 'name=\"a (value)\"'"

MAX_JOBS = 10_000
"""The most jobs of one sweep."""


def origin(text: str) -> str:
    """The origin of a value that an override sets."""
    return f"{COMMAND_LINE}{text}"


@dataclass(frozen=True)
class Override:
    """One override."""

    text: str
    """As it was written."""
    key: str
    """A slot, ``task`` or ``recipe``; or the dotted key of a value."""
    package: str
    """The text behind the ``@`` of the key."""
    value: Any
    removes: bool
    """Whether it removes the value: ``~key``."""
    sweeps: bool
    """Whether it gives several values."""

    @property
    def origin(self) -> str:
        """The origin of what it sets."""
        return origin(self.text)


@dataclass(frozen=True)
class Overrides:
    """The overrides of one recipe, by what they do."""

    choices: Mapping[str, Choice]
    """Choices of a recipe, a task and parts: the last of each group."""
    values: Sequence[Override]
    """Overrides of values, in order."""


def parse(texts: Sequence[str]) -> list[Override]:
    """Read overrides in Hydra's grammar.

    Raises:
        RecipeError: one does not follow it.
    """
    return [
        Override(
            str(each.input_line),
            each.key_or_group,
            each.package or "",
            each.value(),
            each.is_delete(),
            each.is_sweep_override(),
        )
        for each in _parse(texts)
    ]


def read_overrides(texts: Sequence[str], catalogue: Catalogue) -> Overrides:
    """Read overrides, and separate choices of parts from values.

    Raises:
        RecipeError: one does not follow the grammar, sweeps, or chooses a part that does not exist.
    """
    groups, choices, values = set(catalogue.groups()), {}, []
    for each in parse(texts):
        group = each.key
        if each.sweeps:
            raise RecipeError("several values are a sweep", each.origin, SWEEP)
        if group not in groups:
            values.append(each)
            continue
        if each.removes or each.package or not isinstance(each.value, str):
            raise RecipeError("expected the name of a part", each.origin, f"write {group}=NAME")
        choices[group] = Choice(group, each.value, each.origin)
        catalogue.require(choices[group])
    return Overrides(choices, values)


def expand(texts: Sequence[str], catalogue: Catalogue) -> list[list[str]]:
    """The jobs of a sweep: every combination of ``a,b``, ``choice(…)``, ``range(…)`` and ``glob(…)``.

    Args:
        texts: overrides, with sweeps among them. The later of two for the same key counts; equal values count
            once.
        catalogue: knows what ``glob`` chooses from.

    Returns:
        The overrides of each job; a single job if nothing sweeps.

    Raises:
        RecipeError: an override cannot be read or has no list of values, or there are more than
            :data:`MAX_JOBS` jobs.
    """
    from hydra.errors import HydraException

    jobs: dict[str, list[str]] = {}
    for parsed in _parse(texts):
        key, where = parsed.get_key_element(), origin(str(parsed.input_line))
        try:
            singles = islice(_single_overrides(parsed, where, catalogue), MAX_JOBS + 1)
            jobs.pop(key, None)  # the later one, in its own place
            jobs[key] = list(dict.fromkeys(singles))
        except (HydraException, ValueError) as error:
            raise RecipeError(f"cannot be expanded: {error}", where) from error
        if not jobs[key]:
            raise RecipeError("the list of values is empty", where)
        if prod(map(len, jobs.values())) > MAX_JOBS:
            raise RecipeError(f"more than {MAX_JOBS:,} jobs", where, "give fewer values")
    return [list(job) for job in product(*jobs.values())]


def _parse(texts: Sequence[str]) -> Iterator["Parsed"]:
    if not texts:
        return
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in texts:
        if text.startswith("="):
            raise RecipeError("cannot be read as an override", origin(text), FORM)
        try:
            yield from parser.parse_overrides([text])
        except (HydraException, ValueError, RecursionError) as error:  # a number of 5,000 digits; [[[[…
            hint = _unclosed(text) or (QUOTES if "=" in text else FORM)
            raise RecipeError("cannot be read as an override", origin(text), hint) from error


def _unclosed(text: str) -> str:
    """A hint on the first bracket or quote of an override that has no partner; empty if all have one."""
    opened: list[str] = []
    for place, character in enumerate(text):
        is_quoted = bool(opened) and opened[-1] in "'\""
        if is_quoted and (character != opened[-1] or text[place - 1] == "\\"):
            continue
        if is_quoted or (opened and PAIRS.get(opened[-1]) == character):
            opened.pop()
        elif character in PAIRS or character in "'\"":
            opened.append(character)
        elif character in PAIRS.values():
            return f"nothing opens the {character} at character {place + 1}"
    return f"close the {opened[-1]}; if the shell split the text, quote it: 'name=[1, 2]'" if opened else ""


def _single_overrides(parsed: "Parsed", where: str, catalogue: Catalogue) -> Iterator[str]:
    """An override of one value for each value that an override gives."""
    from hydra.core.override_parser.types import Glob, Transformer

    key = parsed.get_key_element()
    if not parsed.is_sweep_override():
        yield str(parsed.input_line)
    elif isinstance(pattern := parsed.value(), Glob):
        group = parsed.key_or_group
        names = pattern.filter(catalogue.names(group) if group in catalogue.groups() else [])
        yield from (override(key, name) for name in names)
    elif parsed.is_discrete_sweep():
        for value in parsed.sweep_iterator(Transformer.identity):
            yield override(key, _without_quotes(value))
    else:
        raise RecipeError("an interval is no list of values", where, "use range(start, stop, step)")


def _without_quotes(value: Any) -> Any:
    """A value of Hydra's parser in Python's types: quoted strings, also in lists, become ``str``."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_without_quotes(each) for each in value]
    if isinstance(value, dict):
        return {_without_quotes(name): _without_quotes(each) for name, each in value.items()}
    return value
