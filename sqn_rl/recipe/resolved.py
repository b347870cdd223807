"""The parts and values of a recipe or a run, each with its origin, and how two of them differ."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.compose import Recipe, swapped_in
from sqn_rl.recipe.provenance import Values, flow, part_file, read
from sqn_rl.recipe.reading import is_there
from sqn_rl.recipe.schema import LATER, SLOT_NAMES


class Sourced(NamedTuple):
    """A value, or the name of a part, and where it came from."""

    value: Any
    origin: str
    target: str = ""
    """Of a part its class, by which parts are compared: names may differ, and one name may have two."""


@dataclass(frozen=True)
class Resolved:
    """The parts and values of a resolved recipe."""

    name: str
    """What the user calls it."""
    parts: Mapping[str, Sourced]
    """By slot, the part and where it was chosen; if its class was set, the class and where it was set."""
    values: Mapping[str, Sourced]
    """By dotted key: ``steps``, ``optimizer.lr``."""
    classes: Mapping[str, str]
    """By slot, the class of the part, as its YAML names it."""

    @property
    def everything(self) -> dict[str, Sourced]:
        """Parts and values, by the key that one would write on the command line."""
        return {**self.parts, **self.values}

    @property
    def title(self) -> str:
        """The recipe's name, and the parts that the command line chose: ``sqn head=dueling``."""
        swapped = swapped_in({slot: part.origin for slot, part in self.parts.items()})
        return " ".join([str(self.values["recipe"].value), *swapped])

    @property
    def environment(self) -> str:
        """See :func:`environment_name`."""
        values = self.values.items()
        fields = {key.removeprefix("env."): each.value for key, each in values if key.startswith("env.")}
        return environment_name(str(self.parts["env"].value), fields)


def environment_name(part: str, fields: Values) -> str:
    """The name of an environment: its id, or what is played in which part.

    Args:
        part: the environment part: ``cartpole``, ``minatar``.
        fields: its fields.

    Returns:
        For example ``CartPole-v1``, ``breakout-minatar``, or ``academy_run_to_score-football``.
    """
    if played := fields.get("game") or fields.get("scenario"):
        return f"{played}-{part}"
    return str(fields.get("id") or part)


class Difference(NamedTuple):
    """A part or value that two recipes do not share; None on the side that has no such value."""

    key: str
    a: Sourced | None
    b: Sourced | None

    def __str__(self) -> str:
        """For example ``optimizer.lr 0.001 (components/task/classic_control.yaml:8) and none``."""
        sides = (f"{flow(side.value)} ({side.origin})" if side else "none" for side in (self.a, self.b))
        return f"{self.key} {' and '.join(sides)}"


def differences(a: Mapping[str, Sourced], b: Mapping[str, Sourced]) -> list[Difference]:
    """The differences between two sets of parts or values; origins are not compared."""
    pairs = (Difference(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b]))
    return [_by_class(each) for each in pairs if not _are_same(each.a, each.b)]


def _are_same(a: Sourced | None, b: Sourced | None) -> bool:
    if a is None or b is None:
        return False
    return a.target == b.target if a.target else a.value == b.value


def _by_class(found: Difference) -> Difference:
    """The difference as it is shown: of two parts with one name, that of their classes."""
    key, a, b = found
    if a is None or b is None or a.value != b.value:
        return found
    return Difference(f"{key}.{TARGET}", a._replace(value=a.target), b._replace(value=b.target))


def of_recipe(name: str, recipe: Recipe) -> Resolved:
    """The parts and values of a composed recipe."""
    classes = _classes(recipe.config)
    parts = {
        slot: Sourced(recipe.part(slot), _chosen(slot, recipe.origin), classes[slot]) for slot in SLOT_NAMES
    }
    values = {key: Sourced(value, recipe.origin(key)) for key, value in _fields(recipe.config)}
    return Resolved(name, parts, values, classes)


def of_run(directory: Path) -> Resolved:
    """The parts and values of a run, as its ``recipe.yaml`` says.

    Raises:
        RecipeError: ``directory`` has no ``recipe.yaml``, or it is not one of ours.
    """
    path = recipe_of(directory)
    document = read(path, str(path))
    content = {**LATER, **document.values}
    for slot in SLOT_NAMES:
        fields = content.get(slot)
        if not isinstance(fields, dict) or not isinstance(fields.get(TARGET), str):
            raise RecipeError(f"says nothing of the part in the slot `{slot}`", str(path))
    if not isinstance(document.values.get("recipe"), str):
        raise RecipeError("says nothing of the recipe's name", str(path))

    classes = _classes(content)

    def part(slot: str) -> str:
        file = part_file(slot, document.comment(f"{slot}.{TARGET}"))
        return file or classes[slot].rpartition(".")[2]

    parts = {slot: Sourced(part(slot), _chosen(slot, document.comment), classes[slot]) for slot in SLOT_NAMES}
    values = {key: Sourced(value, document.comment(key)) for key, value in _fields(content)}
    return Resolved(str(directory), parts, values, classes)


def _chosen(slot: str, origin: Callable[[str], str]) -> str:
    """Where the part in a slot was chosen, or its class was set."""
    where_class = origin(f"{slot}.{TARGET}")
    is_from_part_file = bool(part_file(slot, where_class))
    return where_class if where_class and not is_from_part_file else origin(slot)


def recipe_of(directory: Path) -> Path:
    """The ``recipe.yaml`` of a run.

    Raises:
        RecipeError: there is none.
        DataError: the directory may not be read.
    """
    path = directory / RECIPE_FILE
    if not is_there(path):
        if not is_there(directory):
            raise RecipeError(f"{directory}: there is no such directory")
        raise RecipeError(f"{directory}: not a run directory: there is no recipe.yaml in it")
    return path


def _classes(values: Values) -> dict[str, str]:
    return {slot: values[slot][TARGET] for slot in SLOT_NAMES}


def _fields(values: Values) -> Iterator[tuple[str, Any]]:
    """Every value by its dotted key, without the classes of the parts."""
    return ((key, value) for key, value in flat(values) if key.rpartition(".")[2] != TARGET)


def flat(values: Values, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its dotted key."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
