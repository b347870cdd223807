"""Which files make up a recipe, and in which order they are laid over each other: Hydra's defaults lists."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from hydra import version
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import RECIPE, TASK, Catalogue, did_you_mean
from sqn_rl.recipe.provenance import Document

PRIMARY = "run"
"""What Hydra calls the primary config: nothing but the choice of a recipe."""

FILES = 300
"""The most files that a defaults list may bring, counted as often as they are named."""

SUGGESTING = ("env", TASK)
"""Those whose files may ask for parts in other slots: pixels for an encoder that sees."""


class Layer(NamedTuple):
    """One file of a recipe."""

    package: str
    """The slot that it fills; ``""`` for recipes and tasks, which speak of everything."""
    group: str
    name: str


class Choice(NamedTuple):
    """A part, or the recipe that is inherited from, as a defaults list or an override names it."""

    group: str
    name: str
    origin: str
    overrides: bool = True
    """Whether it says so: in a defaults list with the word ``override``."""


class _CatalogueSource(ConfigSource):
    """Serves a catalogue's defaults lists to Hydra: slots as groups, ``recipes/`` as the group ``recipe``."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(provider="sqn_rl", path=f"{self.scheme()}://")
        self.catalogue = catalogue

    @staticmethod
    def scheme() -> str:
        return "catalogue"

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.partition("/")
        defaults = [{RECIPE: "sqn"}]
        if config_path != PRIMARY:
            document = self.catalogue.read(group, name)
            for choice in choices(document, group, self.catalogue):
                if choice.name not in self.catalogue.names(choice.group):
                    raise self.catalogue.unknown(choice.group, choice.name, choice.origin)
            defaults = document.values.get("defaults", [])
            if group in SUGGESTING:
                defaults = [item for item in defaults if not _overrides(item)]
        header = {"package": "_global_" if group == RECIPE else None}
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create({"defaults": defaults}), header)

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in self.catalogue.groups()

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.partition("/")
        return config_path == PRIMARY or name in self.catalogue.names(group)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return self.catalogue.names(config_path) if results_filter != ObjectType.GROUP else []


def repository(catalogue: Catalogue) -> ConfigRepository:
    """The catalogue as Hydra sees it."""
    version.setbase("1.3")
    found = ConfigRepository(ConfigSearchPathImpl())
    found.sources = [_CatalogueSource(catalogue)]
    return found


def _files(choice: Choice, catalogue: Catalogue) -> Iterator[Choice]:
    """A file, and those that its defaults list names, each as often as Hydra would read it."""
    yield choice
    if choice.name in catalogue.names(choice.group):  # else Hydra asks for it, and is told
        for each in choices(catalogue.read(choice.group, choice.name), choice.group, catalogue):
            yield from _files(each, catalogue)


def layers_of(chosen: Mapping[str, Choice], catalogue: Catalogue) -> list[Layer]:
    """The files that make up a recipe, later ones to be laid over earlier ones.

    Args:
        chosen: the recipe and the parts that were chosen over it, by group.
        catalogue: where they are.

    Raises:
        RecipeError: a file is missing or not YAML, or its defaults list makes no sense.
    """
    lines = [
        f"{f'{TASK}@_global_' if group == TASK else group}={name}" for group, name, *_ in chosen.values()
    ]
    endless = f"inherits from itself, or more than {FILES} files"
    for choice in chosen.values():
        if next(islice(_files(choice, catalogue), FILES, None), None):
            raise RecipeError(endless, f"{choice.group}={choice.name}")
    try:
        found = create_defaults_list(
            repo=repository(catalogue),
            config_name=PRIMARY,
            overrides_list=OverridesParser.create().parse_overrides(lines),
            prepend_hydra=False,
            skip_missing=False,
        )
    except RecursionError as error:
        raise RecipeError(endless, f"{RECIPE}={chosen[RECIPE].name}") from error
    except (HydraException, ValueError) as error:
        recipe = catalogue.read(RECIPE, chosen[RECIPE].name)
        raise RecipeError(" ".join(str(error).split()), recipe.origin("defaults")) from error
    paths = [(default.package or "", *default.config_path.partition("/")) for default in found.defaults]
    return [Layer(package, group, name) for package, group, _, name in paths if group != PRIMARY]


def suggestions(layers: Iterable[Layer], catalogue: Catalogue) -> dict[str, Choice]:
    """The parts that the env and its task ask for by ``override``, in slots that no recipe overrides.

    They count over what a recipe simply lists, and under every ``override`` of a recipe.

    Args:
        layers: the files that make up a recipe, as far as it goes without them.
        catalogue: where they are.

    Returns:
        By slot.

    Raises:
        RecipeError: one asks for an env, a task or a recipe.
    """
    wanted: dict[str, Choice] = {}
    settled = set()
    for _, group, name in layers:
        for choice in choices(catalogue.read(group, name), group, catalogue):
            if choice.overrides and group == RECIPE:
                settled.add(choice.group)
            elif choice.overrides:
                wanted[choice.group] = choice
                if choice.group in (*SUGGESTING, RECIPE):
                    raise RecipeError(f"an {group} cannot override the {choice.group}", choice.origin)
    return {slot: choice for slot, choice in wanted.items() if slot not in settled}


def choices(document: Document, group: str, catalogue: Catalogue) -> Iterator[Choice]:
    """What a file's defaults list chooses, in order.

    Args:
        document: the file.
        group: its own group, in which a bare name is looked for.
        catalogue: knows the groups.

    Raises:
        RecipeError: the list is not one, or an entry names no slot.
    """
    defaults = document.values.get("defaults", [])
    if not isinstance(defaults, list):
        where, mend = document.origin("defaults"), "write `defaults: [sqn, _self_]`"
        raise RecipeError("`defaults` is not a list", where, mend)
    for index, item in enumerate(defaults):
        origin = document.origin(f"defaults.{index}")
        if item == "_self_":
            continue
        if isinstance(item, str):
            path, _, name = item.strip("/").partition("/") if item.startswith("/") else (group, "", item)
        elif isinstance(item, dict) and len(item) == 1:
            ((key, name),) = item.items()
            path = str(key).rpartition(" ")[2].partition("@")[0]
            if not path.startswith("/"):
                mend = f"write `/{path}`, with a slash"
                raise RecipeError(f"`{path}` would be looked for in `{group}`", origin, mend)
        else:
            mend = "write `{override /head: dueling}`"
            raise RecipeError(f"`{item}` is no entry of a defaults list", origin, mend)
        if (slot := path.strip("/")) not in catalogue.groups():
            raise RecipeError(f"there is no slot `{slot}`", origin, did_you_mean(slot, catalogue.groups()))
        yield Choice(slot, str(name), origin, _overrides(item))


def _overrides(item: object) -> bool:
    return isinstance(item, dict) and any(str(key).startswith("override ") for key in item)
