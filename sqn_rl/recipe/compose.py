"""From a recipe's name and overrides to a settled recipe: every value known, and where it came from."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqn_rl.errors import COMMAND_LINE, RecipeError, SettingError
from sqn_rl.recipe import overrides as said
from sqn_rl.recipe.build import TARGET, build, check_fields
from sqn_rl.recipe.catalogue import RECIPE, TASK, Catalogue, did_you_mean
from sqn_rl.recipe.defaults import Choice, choices, layers_of, suggestions
from sqn_rl.recipe.provenance import INTERPOLATION, Document, Layers, Values, flow, read
from sqn_rl.recipe.schema import DEFAULTS, SETTINGS, SLOTS, Run, conform

SLOT_NAMES = [slot.name for slot in SLOTS]

INSTANTIATE = {TARGET, "_partial_", "_args_", "_recursive_", "_convert_"}
"""What Hydra's ``instantiate`` takes, wherever it is in a value; we take the first, once in a slot."""


@dataclass(frozen=True)
class Recipe:
    """A composed recipe."""

    config: Values
    """The run-level settings, and each slot's ``_target_`` and fields, with nothing left to resolve."""
    run: Run
    """The run-level settings, checked."""
    chosen: Mapping[str, Choice]
    """By slot, the part that fills it; empty for a recipe that was loaded from a run."""
    layers: Layers
    """What was laid over what."""
    catalogue: Catalogue
    """Where the parts are."""

    def origin(self, key: str) -> str:
        """Where a value came from, or for a slot where its part was chosen.

        ``components/task/atari_ram.yaml:7``, ``recipes/sqn_paper.yaml:4``, ``command line: steps=2000`` or
        ``default of sqn_rl``.

        Args:
            key: dotted: ``steps``, ``optimizer.lr``.
        """
        return self.chosen[key].origin if key in self.chosen else self.layers.origin(key)

    def part(self, slot: str) -> str:
        """The name of the part that fills a slot; of a loaded recipe its class."""
        return self.chosen[slot].name if slot in self.chosen else self.config[slot][TARGET].rpartition(".")[2]

    def fields(self, slot: str) -> Values:
        """The values that the part in a slot is given from YAML."""
        return {name: value for name, value in self.config[slot].items() if name != TARGET}

    def unread(self) -> list[str]:
        """The settings of the command line that no part reads, such as ``tau`` where no part has one."""
        read = {name for slot in SLOT_NAMES for name in INTERPOLATION.findall(flow(self.layers.values[slot]))}
        others = [name for name in self.layers.values if name not in {*SETTINGS, *SLOT_NAMES, *read}]
        return [name for name in others if self.origin(name).startswith(COMMAND_LINE)]

    def build(self, *, last: str = SLOT_NAMES[-1]) -> dict[str, Any]:
        """Build every part, or those up to the slot ``last``; see :func:`sqn_rl.recipe.build.build`."""
        return build(self.config, self.run, self.catalogue, self.origin, last=last)

    def parameter_bytes(self) -> int:
        """What the Q-networks' parameters take, known without taking it; 0 where that cannot be known.

        The networks are built of one environment's facts on PyTorch's device ``meta``, which has no memory.
        """
        from sqn_rl.parts.env.base import close

        run = replace(self.run, num_envs=1)
        try:
            parts = build(self.config, run, self.catalogue, self.origin, last="q_net", device="meta")
        except Exception:  # a part that needs numbers; or a mistake, which building for good reports
            return 0
        close(parts["env"])
        return sum(parameter.nbytes for parameter in parts["q_net"].parameters())

    def to_yaml(self) -> str:
        """Everything, as YAML that :func:`load_recipe` reads, with the origin of each value as a comment."""
        return "".join(f"{line}\n" for line in self._lines(self.config))

    def _lines(self, values: Values, prefix: str = "", indent: str = "") -> Iterator[str]:
        for name, value in values.items():
            key = f"{prefix}{name}"
            origin = "  # " + _printable(self.origin(key))
            if isinstance(value, dict) and value:
                yield f"{indent}{flow(name)}:{origin if key in self.chosen else ''}"
                yield from self._lines(value, f"{key}.", f"{indent}  ")
            else:
                yield f"{indent}{flow(name)}: {flow(value)}{origin}"


def compose_recipe(recipe: str = "sqn", *overrides: str, catalogue: Catalogue | None = None) -> Recipe:
    """Compose a recipe.

    Args:
        recipe: its name.
        overrides: as on the command line: ``"env=acrobot"``, ``"steps=20000"``, ``"actor.policy=min"``. The
            later of two about one thing counts, and ``"recipe=NAME"`` counts over ``recipe``.
        catalogue: where recipes and parts are; by default ours and those of ``SQN_RL_PATH``.

    Raises:
        RecipeError: something cannot be what its author meant; says where, what, and how to mend it.
    """
    catalogue = catalogue or Catalogue()
    parsed = said.parse(overrides)
    first = Choice(RECIPE, recipe, said.origin(f"{RECIPE}={recipe}"))
    if recipe not in catalogue.names(RECIPE):
        raise catalogue.unknown(first.group, first.name, first.origin)
    over = {RECIPE: first} | {choice.group: choice for choice in said.chosen(parsed, catalogue)}
    files = layers_of(over, catalogue)
    if asked := suggestions(files, catalogue):
        over = asked | over
        files = layers_of(over, catalogue)

    layers = Layers()
    layers.put("", DEFAULTS, lambda _: "default of sqn_rl")
    layers.put(RECIPE, over[RECIPE].name, lambda _: over[RECIPE].origin)
    documents: dict[str, Document] = {}
    chosen: dict[str, Choice] = {}
    parts = {group: name for _, group, name in files}
    for package, group, name in files:
        document = documents[group] = catalogue.read(group, name)
        if group == RECIPE:  # of what others choose, ``over`` has what counts
            chosen |= {choice.group: choice for choice in choices(document, group, catalogue)}
        replaced = {slot for slot, choice in chosen.items() if parts.get(slot, choice.name) != choice.name}
        content = _of_parts_there(document.content, replaced if group == RECIPE else (), parts, catalogue)
        layers.put(package, content, partial(_within, document, package))
    said.apply(parsed, layers, catalogue)
    return _settle(layers, documents, chosen | over, catalogue)


def load_recipe(path: Path, *overrides: str, catalogue: Catalogue | None = None) -> Recipe:
    """Read the recipe of a run from its ``recipe.yaml``.

    Args:
        path: the file.
        overrides: of values; the parts are settled.
        catalogue: whose trust decides what may be built.

    Raises:
        RecipeError: something in it cannot be what its author meant.
    """
    document = read(path, str(path))
    catalogue, layers = catalogue or Catalogue(), Layers()
    parsed = said.parse(overrides)
    for choice in said.chosen(parsed, catalogue):
        raise RecipeError(f"the {choice.group} of a saved recipe is settled", choice.origin)
    layers.put("", DEFAULTS, lambda _: "default of sqn_rl")  # of settings that its version did not have
    layers.put("", document.values, document.origin)
    said.apply(parsed, layers, catalogue)
    return _settle(layers, {}, {}, catalogue)


def _printable(text: str) -> str:
    """On one line, and of characters that may stand in a comment."""
    characters = (each if each.isprintable() else ascii(each).strip("'") for each in " ".join(text.split()))
    return "".join(characters)


def _settle(
    layers: Layers, documents: Mapping[str, Document], chosen: Mapping[str, Choice], catalogue: Catalogue
) -> Recipe:
    """Check that everything is known, given and of the right kind, and resolve it."""
    task = documents[TASK].content if TASK in documents else {}
    tunable = {name: value for name, value in task.items() if name not in SETTINGS}
    known = {*SETTINGS, *SLOT_NAMES, *tunable}
    for slot in SLOT_NAMES:
        _require_part(slot, layers, chosen)
    if missing := [name for name in SETTINGS if name not in layers.values]:
        mend = f"write `defaults: [/{TASK}@_global_: classic_control, _self_]` in the env's YAML"
        raise RecipeError(f"no task says {', '.join(missing)}", layers.origin(f"env.{TARGET}"), mend)
    for key in layers.values:
        if key not in known:
            raise RecipeError("there is no such setting", layers.origin(key), did_you_mean(key, known), key)
    values = layers.resolved()
    _require_values(values, layers)
    try:
        values |= _conforming(values, tunable, values)
        run = Run(**{name: values[name] for name in SETTINGS})
        for slot in SLOT_NAMES:
            example = documents[slot].content if slot in documents else values[slot]
            values[slot] |= _conforming(values[slot], example, values, f"{slot}.")
            if further := values[slot].keys() - example.keys():
                target = catalogue.resolve(slot, values[slot][TARGET], layers.origin(f"{slot}.{TARGET}"))
                check_fields(slot, target, sorted(further), layers.origin)
    except SettingError as error:
        raise error.located(error.field, layers.origin) from error
    config = vars(run) | {slot: values[slot] for slot in SLOT_NAMES}
    return Recipe(config, run, chosen, layers, catalogue)


def _of_parts_there(
    content: Values, replaced: Collection[str], parts: Mapping[str, str], catalogue: Catalogue
) -> Values:
    """What a recipe says, without fields that only a part had which another has replaced since."""

    def kept(slot: str, values: Any) -> Any:
        if slot not in replaced or not isinstance(values, dict):
            return values
        own = catalogue.read(slot, parts[slot]).content
        return {name: value for name, value in values.items() if name in own}

    return {slot: kept(slot, values) for slot, values in content.items()}


def _within(document: Document, package: str, key: str) -> str:
    return document.origin(key.removeprefix(f"{package}."))


def _require_part(slot: str, layers: Layers, chosen: Mapping[str, Choice]) -> None:
    if slot not in layers.values:
        mend = f"choose a part in `defaults`: `/{slot}: …`; or inherit from `sqn`, which fills every slot"
        raise RecipeError(f"nothing fills the slot `{slot}`", layers.origin(RECIPE), mend)
    if not isinstance(part := layers.values[slot], dict):
        mend = f"to choose a part, write `{{override /{slot}: {part}}}` in `defaults`"
        raise RecipeError("it is a slot, not a setting", layers.origin(slot), mend, slot)
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
            _require_values({f"{i}": each for i, each in enumerate(value)}, layers, f"{key}.")
        elif isinstance(value, dict):
            _require_values(value, layers, f"{key}.")
        elif value == "???":
            raise RecipeError("it has no value", layers.origin(key), f"give it one: {key}=…", key)


def _conforming(values: Values, examples: Values, resolved: Values, prefix: str = "") -> Values:
    """Those of ``values`` that a part's or task's file has too, of the kind that they have there."""
    conforming = {}
    for name, example in examples.items():
        if isinstance(example, str) and (match := INTERPOLATION.fullmatch(example)):
            example = resolved.get(match[1])
        if name in values:
            conforming[name] = conform(f"{prefix}{name}", values[name], example)
    return conforming
