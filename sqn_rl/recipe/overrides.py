"""What the command line says: ``slot=part``, ``slot.field=value``, ``setting=value``; and sweeps of them."""

from collections.abc import Iterator, Sequence
from functools import partial

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from sqn_rl.errors import COMMAND_LINE, RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.defaults import Choice, repository
from sqn_rl.recipe.provenance import Layers

WRITE = "write name=value: steps=2000, head=dueling or optimizer.lr=1e-3"
QUOTE = "quote a value that has special characters: 'name=\"a (value)\"'"


def origin(override: str) -> str:
    """Where a value came from that an override set."""
    return f"{COMMAND_LINE}{override}"


def parse(overrides: Sequence[str]) -> list[Override]:
    """Read overrides in Hydra's grammar.

    Raises:
        RecipeError: one is not in it.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed += parser.parse_overrides([text])
        except (HydraException, ValueError, RecursionError) as error:  # a number of 5,000 digits; [[[[…
            raise RecipeError(
                "cannot be read as an override", origin(text), QUOTE if "=" in text else WRITE
            ) from error
    return parsed


def expand(overrides: Sequence[str], catalogue: Catalogue) -> list[list[str]]:
    """The jobs of a sweep: every combination of ``a,b``, ``choice(…)``, ``range(…)`` and ``glob(…)``.

    Args:
        overrides: with sweeps in them.
        catalogue: knows what ``glob`` chooses from.

    Returns:
        The overrides of each job; a single job if nothing sweeps.

    Raises:
        RecipeError: an override cannot be read, or has no list of values.
    """
    parsed = parse(overrides)
    for override in parsed:
        override.config_loader = repository(catalogue)
        if override.is_sweep_override() and not override.is_discrete_sweep():
            where = origin(str(override.input_line))
            raise RecipeError("an interval is no list of values", where, "use range(start, stop, step)")
    try:
        return BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except (HydraException, ValueError) as error:
        raise RecipeError(f"cannot be expanded: {error}", origin(" ".join(overrides))) from error


def chosen(overrides: Sequence[Override], catalogue: Catalogue) -> Iterator[Choice]:
    """Those overrides that choose a recipe or a part, in order.

    Raises:
        RecipeError: there is no such recipe or part, or it is not chosen as ``slot=part``.
    """
    for override in overrides:
        group, name, text = override.key_or_group, override.value(), str(override.input_line)
        if override.is_sweep_override():
            raise RecipeError("several values are a sweep", origin(text), "add -m")
        if group not in catalogue.groups():
            continue
        if override.is_delete() or override.package or not isinstance(name, str):
            raise RecipeError("expected the name of a part", origin(text), f"write {group}=NAME")
        if name not in catalogue.names(group):
            raise catalogue.unknown(group, name, origin(text))
        yield Choice(group, name, origin(text))


def apply(overrides: Sequence[Override], layers: Layers, catalogue: Catalogue) -> None:
    """Lay those overrides that set a value over ``layers``; ``~key`` removes one.

    Raises:
        RecipeError: there is nothing to remove.
    """
    for override in overrides:
        key, where = override.key_or_group, origin(str(override.input_line))
        if key in catalogue.groups():
            continue
        if not override.is_delete():
            layers.put(key, override.value(), partial(_always, where))
        elif not layers.drop(key):
            raise RecipeError("there is nothing to remove", where)


def _always(origin: str, key: str) -> str:
    return origin
