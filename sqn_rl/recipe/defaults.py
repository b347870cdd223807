"""Which files make up a recipe, and in which order they are laid over each other: defaults lists.

The language is a part of Hydra's, and means what it means there: ``name`` inherits from a file of the same
group, ``/slot: part`` fills a slot, ``override /slot: part`` replaces the part that fills it so far. A file's
own values are laid over what stands before ``_self_``, which is last if it is not written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.recipe.catalogue import RECIPE, TASK, YAML, Catalogue, Choice
from sqn_rl.recipe.provenance import Document, Values

FILES = 300
"""The most files that a defaults list may bring in; a file counts each time that it is named."""

SUGGESTING = ("env", TASK)
"""The groups whose files may override parts in other slots: pixels, for example, need a CNN encoder."""


class Layer(NamedTuple):
    """One file of a recipe."""

    group: str
    document: Document
    parts: Mapping[str, str]
    """For a recipe's file: by slot, the part that fills it when this file is read."""

    @property
    def package(self) -> str:
        """The slot that it fills; ``""`` for recipes and tasks, which have values for every slot."""
        return "" if self.group in (RECIPE, TASK) else self.group

    def origin(self, key: str) -> str:
        """The origin of its value at a dotted key of the recipe."""
        return self.document.origin(key.removeprefix(f"{self.package}."))


@dataclass(frozen=True)
class Files:
    """The files of a recipe, later ones to be laid over earlier ones, and the choices that led to them."""

    layers: Sequence[Layer] = ()
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    """By slot; also those of the task and the recipe."""

    def of(self, group: str) -> list[Document]:
        """The files of one group: those from which a part inherits, then its own."""
        return [layer.document for layer in self.layers if layer.group == group]

    def content(self, group: str) -> Values:
        """The merged values of the files of one group."""
        return {name: value for document in self.of(group) for name, value in document.content.items()}

    def origin(self, group: str, name: str) -> str:
        """Where the files of one group give ``name`` its value; empty if none does."""
        origins = [document.origin(name) for document in self.of(group) if name in document.content]
        return origins[-1] if origins else ""


class Entry(NamedTuple):
    """An entry of a defaults list; ``_self_`` has no choice."""

    choice: Choice | None
    overrides: bool = False


def choose_files(recipe: Choice, choices: Mapping[str, Choice], catalogue: Catalogue) -> Files:
    """Choose the files that make up a recipe.

    From the highest priority to the lowest: choices from outside, overrides in a recipe, overrides by the env
    or its task, and what a recipe lists.

    Args:
        recipe: the recipe.
        choices: parts, and perhaps another recipe, chosen from outside, by group.
        catalogue: where they are.

    Raises:
        RecipeError: a file is missing or not YAML, or its defaults list makes no sense.
    """
    catalogue.require(recipe)
    recipe = choices.get(RECIPE, recipe)
    reader = _DefaultsReader(catalogue)
    places = list(reader.recipe(recipe))
    reader.require_once()
    reader.chosen |= choices
    slots = [place.group for place in places if isinstance(place, Choice)]
    early = {slot: list(reader.part(reader.chosen[slot])) for slot in SUGGESTING if slot in slots}
    fixed = {*reader.fixed, *choices}
    reader.chosen |= {slot: choice for slot, choice in reader.suggested.items() if slot not in fixed}
    reader.require_used()
    layers: list[Layer] = []
    for place in places:
        if isinstance(place, Layer):
            layers.append(place)
        else:
            layers += early.get(place.group) or reader.part(reader.chosen[place.group])
    return Files(layers, reader.chosen | {RECIPE: recipe})


class _DefaultsReader:
    """Reads the defaults lists of a recipe, depth first."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue, self.count = catalogue, 0
        self.listed: dict[str, list[str]] = {}
        """By slot, the place that fills it; then others, or those that inherit from a recipe that does."""
        self.chosen: dict[str, Choice] = {}
        """By slot, what fills it so far."""
        self.fixed: set[str] = set()
        """The slots that a recipe overrides."""
        self.suggested: dict[str, Choice] = {}
        """By slot, the part by which the env or its task overrides it."""

    def recipe(self, recipe: Choice, via: str = "") -> Iterator[Layer | Choice]:
        """A recipe's layers, and between them the parts that are listed, one for each slot.

        Args:
            recipe: the recipe.
            via: where the composed recipe inherits from it; empty if it is the composed recipe itself.
        """
        document, entries = self._read(recipe)
        places: list[Layer | Choice | None] = []
        for choice, overrides in entries:
            if choice is None:
                places.append(None)
            elif choice.group == RECIPE:
                places += self.recipe(choice, via or choice.origin)
            elif overrides:
                if choice.group not in (*self.listed, TASK):
                    raise _unused(choice)
                self.chosen[choice.group] = choice
                self.fixed.add(choice.group)
            else:
                self._list(choice, via or choice.origin)
                places.append(choice)
        parts = {slot: choice.name for slot, choice in self.chosen.items()}
        return (Layer(RECIPE, document, parts) if place is None else place for place in places)

    def part(self, part: Choice) -> Iterator[Layer]:
        """The layers of a part or task, and of the task that an env brings."""
        document, entries = self._read(part)
        for choice, overrides in entries:
            if choice is None:
                yield Layer(part.group, document, {})
            elif choice.group == part.group:
                yield from self.part(choice)
            elif overrides:
                self.suggested[choice.group] = choice
            else:
                self._list(choice, choice.origin)
                self.require_once()
                yield from self.part(self.chosen[choice.group])

    def _list(self, choice: Choice, where: str) -> None:
        first = choice.origin if choice.group not in self.listed else where
        self.listed.setdefault(choice.group, []).append(first)
        self.chosen.setdefault(choice.group, choice)

    def _read(self, choice: Choice) -> tuple[Document, list[Entry]]:
        document = self.catalogue.read(choice.group, choice.name)
        entries = entries_of(document, choice.group, self.catalogue)
        self.count += len(entries)
        if self.count > FILES:
            raise RecipeError(f"inherits from itself, or more than {FILES} files", choice.origin)
        return document, entries

    def require_once(self) -> None:
        """Refuse two parts that are listed for one slot."""
        for slot, (first, *others) in self.listed.items():
            if others:
                hint = f"inherit from one recipe, and write `override /{_key(slot)}: …`"
                raise RecipeError(f"Multiple values for {slot}; {first} fills it already", others[0], hint)

    def require_used(self) -> None:
        """Refuse a choice for a slot that nothing fills."""
        for slot, choice in self.chosen.items():
            if slot not in (*self.listed, RECIPE):
                raise _unused(choice)


def _unused(choice: Choice) -> RecipeError:
    message = f"Could not override '{choice.group}': nothing listed before fills it"
    return RecipeError(message, choice.origin, f"write `/{_key(choice.group)}: {choice.name}` in `defaults`")


def entries_of(document: Document, group: str, catalogue: Catalogue) -> list[Entry]:
    """The entries of a file's defaults list, in order, with ``_self_`` among them.

    Args:
        document: the file.
        group: the file's own group, in which a bare name is looked up.
        catalogue: knows the groups, and what they contain.

    Raises:
        RecipeError: the list is not one, or an entry makes no sense.
    """
    defaults = document.values.get("defaults", [])
    if not isinstance(defaults, list):
        where, hint = document.origin("defaults"), "write `defaults: [sqn, _self_]`"
        raise RecipeError("`defaults` is not a list", where, hint)
    entries: list[Entry] = []
    for index, item in enumerate(defaults):
        origin = document.origin(f"defaults.{index}")
        entry = Entry(None) if item == "_self_" else _entry(item, group, origin, catalogue)
        if entry.choice is None and entry in entries:
            raise RecipeError("`_self_` is there twice", origin)
        if entry.choice and not entry.overrides and any(each.overrides for each in entries):
            raise RecipeError(f"`{item}` comes after an override", origin, "write overrides last")
        entries.append(entry)
    return entries if Entry(None) in entries else [*entries, Entry(None)]


class _Words(NamedTuple):
    """An entry as it is written: ``keywords path@package: name``."""

    keywords: list[str]
    path: str
    package: str
    name: object


def _words(item: object, group: str, origin: str) -> _Words:
    """Split an entry of the defaults list of a file in ``group``; a bare name is one of that group."""
    if isinstance(item, str):
        if not item.startswith("/") or item.endswith(YAML):
            return _Words([], group, "", item)
        path, _, name = item.strip("/").partition("/")
        return _Words([], path, "", name)
    if not isinstance(item, dict) or len(item) != 1:
        hint = "write `{override /head: dueling}`"
        raise RecipeError(f"`{item}` is no entry of a defaults list", origin, hint)
    ((key, value),) = item.items()
    *keywords, path = str(key).split() or [""]
    path, _, package = path.partition("@")
    if not path.startswith("/"):
        hint = f"write `/{path}`, with a slash"
        raise RecipeError(f"`{path}` would be looked for in `{group}`", origin, hint)
    return _Words(keywords, path, package, value)


def _entry(item: object, group: str, origin: str, catalogue: Catalogue) -> Entry:
    keywords, path, package, name = _words(item, group, origin)
    if (slot := path.strip("/")) not in catalogue.groups():
        raise RecipeError(f"there is no slot `{slot}`", origin, did_you_mean(slot, catalogue.groups()))
    choice, overrides = Choice(slot, str(name), origin), keywords == ["override"]
    catalogue.require(choice)
    if isinstance(item, str) and slot == group:
        return Entry(choice)
    if slot == group and not overrides:
        raise RecipeError(f"`{item}` does not inherit", origin, f"write `{name}`")
    if not _may_choose(group, slot, overrides):
        verb, article = "override" if overrides else "choose", "an" if group[0] in "aeiou" else "a"
        raise RecipeError(f"{article} {group} cannot {verb} the {slot}", origin)
    plain = f"{slot}@{package}" if package else slot
    if isinstance(item, str) or keywords not in ([], ["override"]) or plain != _key(slot):
        hint = f"write `{'override ' if overrides else ''}/{_key(slot)}: {name}`"
        raise RecipeError(f"`{item}` is no way to fill a slot", origin, hint)
    return Entry(choice, overrides)


def _may_choose(group: str, slot: str, overrides: bool) -> bool:
    """Whether a file of ``group`` may have ``/slot: …`` or ``override /slot: …`` in its list."""
    if group == RECIPE:
        return slot != RECIPE
    if overrides:
        return group in SUGGESTING and slot not in (*SUGGESTING, RECIPE)
    return (group, slot) == ("env", TASK)


def _key(slot: str) -> str:
    """A slot as a defaults list names it; a task has values for every slot."""
    return f"{TASK}@_global_" if slot == TASK else slot
