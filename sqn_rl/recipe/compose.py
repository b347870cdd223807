"""Compose a recipe from its name and overrides: every value is resolved, and its origin known.

:func:`compose_recipe` is the pipeline; what it calls stands below it, in the order of its stages.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqn_rl.errors import COMMAND_LINE, RecipeError, SettingError
from sqn_rl.parts import machine
from sqn_rl.recipe.build import TARGET, build, check_fields, settable_fields
from sqn_rl.recipe.catalogue import RECIPE, TASK, YAML, Catalogue, Choice
from sqn_rl.recipe.defaults import Files, choose_files
from sqn_rl.recipe.overrides import Override, origin, read_overrides
from sqn_rl.recipe.provenance import INTERPOLATION, Layers, Values, flow, part_file, read
from sqn_rl.recipe.reading import printable
from sqn_rl.recipe.schema import DEFAULTS, LATER, SETTINGS, SLOT_NAMES, Run, conform, hint_for

OURS = "default of sqn_rl"

INSTANTIATE = {TARGET, "_partial_", "_args_", "_recursive_", "_convert_"}
"""Keys that Hydra's ``instantiate`` interprets in any value; we know only the first, once in each slot."""


@dataclass(frozen=True)
class Recipe:
    """A composed recipe."""

    config: Values
    """The run-level settings, and each slot's ``_target_`` and fields, with nothing left to resolve."""
    run: Run
    """The run-level settings, checked."""
    chosen: Mapping[str, Choice]
    """The part that fills each slot; empty for a recipe that was loaded from a run."""
    layers: Layers
    """The values before they were resolved, and their origins."""
    catalogue: Catalogue
    """Where the parts are."""
    swapped: Sequence[str] = ()
    """The parts that the command line chose, except environment and logger: ``head=dueling``."""
    saved_names: Mapping[str, str] = field(default_factory=dict)
    """By slot, the name of the part of a recipe that was loaded from a run, as its origins give it."""

    @property
    def title(self) -> str:
        """Its name, and the parts that were swapped: ``sqn head=dueling``."""
        return " ".join([self.run.recipe, *self.swapped])

    def origin(self, key: str) -> str:
        """Where a value came from, or for a slot where its part was chosen.

        ``components/task/atari_ram.yaml:7``, ``recipes/sqn_paper.yaml:4``, ``command line: steps=2000`` or
        ``default of sqn_rl``.

        Args:
            key: dotted: ``steps``, ``optimizer.lr``.
        """
        return self.chosen[key].origin if key in self.chosen else self.layers.origin(key)

    def part(self, slot: str) -> str:
        """The name of the part in a slot, or of its class if that was set."""
        if slot in self.chosen and part_file(slot, self.layers.origin(f"{slot}.{TARGET}")):
            return self.chosen[slot].name
        target, name = self.config[slot][TARGET], self.saved_names.get(slot, "")
        is_there = name in self.catalogue.names(slot)
        if is_there and self.catalogue.read(slot, name).content.get(TARGET) == target:
            return name
        return target.rpartition(".")[2]

    def fields(self, slot: str) -> Values:
        """The values that the part in a slot is given from YAML."""
        return {name: value for name, value in self.config[slot].items() if name != TARGET}

    def meaning(self, slot: str, field: str) -> str:
        """The meaning of a field of the part in a slot: the comment behind it in the part's YAML."""
        return self.catalogue.read(slot, self.chosen[slot].name).comment(field)

    def unused_overrides(self) -> list[str]:
        """The settings on the command line that no part reads, such as ``tau`` where no part has one."""
        read = {name for slot in SLOT_NAMES for name in INTERPOLATION.findall(flow(self.layers.values[slot]))}
        others = [name for name in self.layers.values if name not in {*SETTINGS, *SLOT_NAMES, *read}]
        return [name for name in others if self.origin(name).startswith(COMMAND_LINE)]

    def uncompiled(self) -> "Recipe":
        """A copy for acting only: nothing is compiled, and ``precision=auto`` is chosen accordingly.

        Where the device cannot be used, it acts on the CPU, after a warning.
        """
        run = replace(self.run, compile="never")
        if not machine.has_device(run.device):
            message = f"device={run.device} cannot be used here: the policy acts on the CPU"
            warnings.warn(message, stacklevel=2)
            run = replace(run, device="cpu")
        return replace(self, run=run)

    def build(self, **options: Any) -> dict[str, Any]:
        """Build every part; for the options see :func:`sqn_rl.recipe.build.build`."""
        return build(self.config, self.run, self.catalogue, self.origin, title=self.title, **options)

    def parameter_bytes(self) -> int:
        """The size of the Q-networks' parameters; 0 where that cannot be known.

        The networks are built for one environment on PyTorch's device ``meta``, which allocates no memory.
        """
        from sqn_rl.parts.env.opening import close

        options: dict[str, Any] = {"last": "q_net", "device": "meta", "num_envs": 1}
        try:
            parts = build(self.config, self.run, self.catalogue, self.origin, **options)
        except Exception:  # a part that needs real tensors; or a mistake, which the real build reports
            return 0
        close(parts["env"])
        return sum(parameter.nbytes for parameter in parts["q_net"].parameters())

    def to_yaml(self) -> str:
        """Everything, as YAML that :func:`load_recipe` reads, with the origin of each value as a comment."""
        return "".join(f"{line}\n" for line in self._lines(self.config))

    def _lines(self, values: Values, prefix: str = "", indent: str = "") -> Iterator[str]:
        for name, value in values.items():
            key = f"{prefix}{name}"
            origin = "  # " + printable(" ".join(self.origin(key).split()))
            if isinstance(value, dict) and value:
                yield f"{indent}{flow(name)}:{origin if key in self.chosen else ''}"
                yield from self._lines(value, f"{key}.", f"{indent}  ")
            else:
                yield f"{indent}{flow(name)}: {flow(value)}{origin}"


def names_in(meaning: str) -> list[str]:
    """The names that a field's comment says to choose from: those after ``one of``."""
    return meaning.partition("one of ")[2].split(", ") if "one of " in meaning else []


def compose_recipe(recipe: str = "sqn", *overrides: str, catalogue: Catalogue | None = None) -> Recipe:
    """Compose a recipe: read the overrides, choose files, lay them over each other, resolve, check.

    Args:
        recipe: its name.
        overrides: as on the command line: ``"env=acrobot"``, ``"steps=20000"``, ``"actor.policy=min"``. The
            later of two for the same key counts, and ``"recipe=NAME"`` takes precedence over ``recipe``.
        catalogue: where recipes and parts are; by default ours and those of ``SQN_RL_PATH``.

    Raises:
        RecipeError: something cannot be what its author meant; says where, what, and what to write instead.
    """
    catalogue = catalogue or Catalogue()
    given = read_overrides(overrides, catalogue)
    files = choose_files(Choice(RECIPE, recipe, origin(f"{RECIPE}={recipe}")), given.choices, catalogue)
    layers = lay(files)
    apply(given.values, layers)
    drop_foreign_fields(layers, files, catalogue)
    return check(layers, files, catalogue)


def load_recipe(path: Path, *overrides: str, catalogue: Catalogue | None = None) -> Recipe:
    """Read the recipe of a run from its ``recipe.yaml``.

    Args:
        path: the file.
        overrides: of values; a part cannot be changed.
        catalogue: whose trust decides what may be built.

    Raises:
        RecipeError: something in it cannot be what its author meant.
    """
    document = read(path, str(path))
    catalogue, layers = catalogue or Catalogue(), Layers()
    given = read_overrides(overrides, catalogue)
    if given.choices:
        choice = next(iter(given.choices.values()))
        raise RecipeError(f"the {choice.group} of a saved recipe cannot be changed", choice.origin)
    for name in (RECIPE, *SLOT_NAMES):
        if name not in document.values and name not in LATER:
            raise RecipeError(f"not the whole recipe of a run: it has no `{name}`", str(path))
    layers.put("", {**DEFAULTS, **LATER}, _always(OURS))  # what its version did not have
    layers.put("", document.values, document.origin)
    apply(given.values, layers)
    swapped = swapped_in({slot: document.comment(slot) for slot in SLOT_NAMES})
    names = {slot: part_file(slot, document.comment(f"{slot}.{TARGET}")) for slot in SLOT_NAMES}
    return replace(check(layers, Files(), catalogue), swapped=swapped, saved_names=names)


def lay(files: Files) -> Layers:
    """Lay files over each other, over our own defaults."""
    layers, recipe = Layers(), files.chosen[RECIPE]
    layers.put("", {**DEFAULTS, **LATER}, _always(OURS))
    name = Path(recipe.name).stem if recipe.name.endswith(YAML) else recipe.name
    layers.put(RECIPE, name, _always(recipe.origin))
    for layer in files.layers:
        values = layer.document.content
        replaced = {slot for slot, part in layer.parts.items() if files.chosen[slot].name != part}
        for slot in replaced & values.keys():  # its values are for another part
            if isinstance(values[slot], dict):
                fields = files.content(slot)
                values[slot] = {name: value for name, value in values[slot].items() if name in fields}
        layers.put(layer.package, values, layer.origin)
    return layers


def apply(overrides: Iterable[Override], layers: Layers) -> None:
    """Lay overrides of values over everything, in order; ``~key`` removes one.

    Raises:
        RecipeError: there is nothing to remove.
    """
    for override in overrides:
        if not override.removes:
            layers.put(override.key, override.value, _always(override.origin))
        elif not layers.drop(override.key):
            raise RecipeError("there is nothing to remove", override.origin)
        else:
            layers.removed[override.key] = override.origin


def _always(origin: str) -> Callable[[str], str]:
    return lambda key: origin


def drop_foreign_fields(layers: Layers, files: Files, catalogue: Catalogue) -> None:
    """Drop fields of a part's file that its class does not take, where another ``_target_`` was set.

    Fields that a recipe or an override sets stay, and are refused if the class does not take them.
    """
    for slot in SLOT_NAMES:
        fields, target = files.content(slot), layers.get(f"{slot}.{TARGET}")
        if TARGET not in fields or target in (None, fields[TARGET]):
            continue
        try:
            taken = settable_fields(slot, catalogue.resolve(slot, target))
        except RecipeError:
            continue  # building refuses it
        if taken is None:
            continue
        for name in fields.keys() - {TARGET, *taken}:
            origins = [document.origin(name) for document in files.of(slot)]
            if layers.origins.get(f"{slot}.{name}") in origins:
                layers.drop(f"{slot}.{name}")


def check(layers: Layers, files: Files, catalogue: Catalogue) -> Recipe:
    """Resolve every value, and check that each is known, given and of the right kind.

    Raises:
        RecipeError: one is not.
    """
    tunable = {name: value for name, value in files.content(TASK).items() if name not in SETTINGS}
    known = {*SETTINGS, *SLOT_NAMES, *tunable}
    for slot in SLOT_NAMES:
        _require_part(slot, layers, files.chosen)
    if missing := [name for name in SETTINGS if name not in layers.values]:
        hint = f"write `defaults: [/{TASK}@_global_: classic_control, _self_]` in the env's YAML"
        raise RecipeError(f"no task says {', '.join(missing)}", layers.origin(f"env.{TARGET}"), hint)
    for key in layers.values:
        if key not in known:
            hint = hint_for(key, layers.values[key], known)
            raise RecipeError("there is no such setting", layers.origin(key), hint, key)
    values = layers.resolved()
    _require_values(values, layers)
    try:
        values |= _conforming(values, tunable, values, partial(files.origin, TASK))
        run = Run(**{name: values[name] for name in SETTINGS})
        for slot in SLOT_NAMES:
            example = files.content(slot) or values[slot]
            values[slot] |= _conforming(
                values[slot], example, values, partial(files.origin, slot), f"{slot}."
            )
            if further := values[slot].keys() - example.keys():
                target = catalogue.resolve(slot, values[slot][TARGET], layers.origin(f"{slot}.{TARGET}"))
                check_fields(slot, target, sorted(further), layers.origin)
    except SettingError as error:
        raise error.located(error.field, layers.origin) from error
    config = vars(run) | {slot: values[slot] for slot in SLOT_NAMES}
    swapped = swapped_in({slot: choice.origin for slot, choice in files.chosen.items()})
    return Recipe(config, run, files.chosen, layers, catalogue, swapped)


def swapped_in(origins: Mapping[str, str]) -> list[str]:
    """The parts that the command line chose, from the origins of parts by slot."""
    slots = (slot for slot in SLOT_NAMES if slot not in ("env", "logger"))
    found = (origins.get(slot, "") for slot in slots)
    return [origin.removeprefix(COMMAND_LINE) for origin in found if origin.startswith(COMMAND_LINE)]


def _require_part(slot: str, layers: Layers, chosen: Mapping[str, Choice]) -> None:
    if slot not in layers.values:
        hint = f"choose a part in `defaults`: `/{slot}: …`; or inherit from `sqn`, which fills every slot"
        raise RecipeError(f"nothing fills the slot `{slot}`", layers.origin(RECIPE), hint)
    if not isinstance(part := layers.values[slot], dict):
        hint = f"to choose a part, write `{{override /{slot}: {part}}}` in `defaults`"
        raise RecipeError("it is a slot, not a setting", layers.origin(slot), hint, slot)
    if TARGET not in part:
        where = chosen[slot].origin if slot in chosen else layers.origin(slot)
        raise RecipeError(f"the part in the slot `{slot}` has no `{TARGET}`", where)
    if not isinstance(part[TARGET], str):
        key, given = f"{slot}.{TARGET}", f"{part[TARGET]!s:.60}"
        raise RecipeError("expected the name of a class", layers.origin(key), "", f"{key} = {given}")


def _require_values(values: Values, layers: Layers, prefix: str = "") -> None:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name in INSTANTIATE and (name != TARGET or prefix.count(".") != 1):
            why = f"`{name}` means nothing here: a slot has one part, and its values are data"
            raise RecipeError(why, layers.origin(key), "", key)
        if isinstance(value, list):
            _require_values({str(index): each for index, each in enumerate(value)}, layers, f"{key}.")
        elif isinstance(value, dict):
            _require_values(value, layers, f"{key}.")
        elif value == "???":
            raise RecipeError("it has no value", layers.origin(key), f"give it one: {key}=…", key)


def _conforming(
    values: Values, examples: Values, resolved: Values, origin: Callable[[str], str], prefix: str = ""
) -> Values:
    """The values that a part's or task's file also has, converted to the kind that they have there."""
    conforming = {}
    for name, example in examples.items():
        if isinstance(example, str) and (match := INTERPOLATION.fullmatch(example)):
            example = resolved.get(match[1])
        if name in values:
            conforming[name] = conform(f"{prefix}{name}", values[name], example, origin(name))
    return conforming
