"""From a composed recipe to built parts: each gets its fields, and by name what the parts before it gave."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sqn_rl.errors import (
    COMMAND_LINE,
    RecipeError,
    SettingError,
    SqnError,
    WiringError,
    did_you_mean,
    explain,
)
from sqn_rl.recipe import auto as speed
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.provenance import Values, flow
from sqn_rl.recipe.schema import SETTINGS, SLOT_NAMES, SLOTS, Run, Slot

TARGET = "_target_"

RUN_SETTINGS = ("steps", "seed", "num_envs", "batch_size", "gamma", "device")
"""What every part may ask the run for."""

ENV_FACTS = (
    "observation_shape",
    "observation_dtype",
    "observation_entries",
    "observation_scaling",
    "n_actions",
    "frame_stack",
)
"""And the environments, once they are built."""

Origin = Callable[[str], str]
"""Says where the value at a dotted key came from."""


@dataclass(frozen=True)
class Maker:
    """Makes a slot's part, and says of what the part refuses where that was set."""

    slot: str
    func: Callable[..., Any]
    fields: Values
    """The keywords that YAML gives."""
    injected: Values
    """The keywords that other parts and the run give."""
    origin: Origin

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Make it, from what only its user knows; a keyword that it does not take is left out.

        Raises:
            RecipeError: it refuses.
        """
        parameters = {parameter.name: parameter.kind for parameter in _parameters(self.func)}
        if inspect.Parameter.VAR_KEYWORD not in parameters.values():
            keywords = {name: value for name, value in keywords.items() if name in parameters}
        try:
            return self.func(*arguments, **self.fields, **self.injected, **keywords)
        except SettingError as error:
            key = f"{self.slot}.{error.field}" if error.field in self.fields else error.field
            raise error.located(key, self.origin) from error
        except WiringError as error:
            raise located(error, self.origin) from error
        except SqnError:
            raise
        except (TypeError, ValueError) as error:
            suspect = self._suspect(str(error))
            raise RecipeError(str(error), self.origin(suspect), "", suspect) from error
        except (Exception, SystemExit) as error:  # of a user's part anything
            raise RecipeError(explain(error), self.origin(self.slot), "", self.slot) from error

    def _suspect(self, message: str) -> str:
        """The key of the one value that a message quotes or names the type of; else the slot."""
        words = message.split()
        lists = {name: value if isinstance(value, list) else [value] for name, value in self.fields.items()}
        quoted = [name for name, values in lists.items() if any(str(value) in words for value in values)]
        others = {name: value for name, value in self.fields.items() if not isinstance(value, int | float)}
        of_type = [name for name, value in others.items() if f"'{type(value).__name__}'" in message]
        suspects = quoted or of_type
        return f"{self.slot}.{suspects[0]}" if len(suspects) == 1 else self.slot


def located(error: WiringError, origin: Origin) -> RecipeError:
    """The error of a recipe: at the part that was chosen on the command line, else at the one that needs."""
    origins = [origin(slot) for slot in (error.consumer, error.producer) if slot]
    chosen = (each for each in origins if each.startswith(COMMAND_LINE))
    subject, _, message = str(error).partition(": ")
    return RecipeError(message, next(chosen, origins[0]), "", subject)


def build(
    config: Values,
    run: Run,
    catalogue: Catalogue,
    origin: Origin,
    *,
    last: str = SLOTS[-1].name,
    device: str | None = None,
    num_envs: int | None = None,
    instead: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
    title: str = "",
) -> Values:
    """Build every slot's part, in the order of :data:`SLOTS`.

    Args:
        config: fields by slot, resolved.
        run: the run-level settings.
        catalogue: imports the parts' classes.
        origin: for messages.
        last: the last slot to build: a part needs none that comes after its own.
        device: where; by default the run's.
        num_envs: how many environments are opened; by default the run's.
        instead: by slot, what makes its part instead of the class that ``config`` names: a class, a function
            or a ``partial``, whose keywords are its fields.
        title: of the run, for its logger.

    Returns:
        By slot, the built part, or what makes it; ``env`` are the training environments, ``make_env`` makes
        more.

    Raises:
        RecipeError: a part cannot be built; says which, why, and where that was set.
    """
    from sqn_rl.training.numerics import default_float32
    from sqn_rl.training.random_state import RandomState

    def origin_of(key: str) -> str:
        return "build()" if key.partition(".")[0] in instead else origin(key)

    catalogue.import_trusted()
    device = device or run.device
    with default_float32(), RandomState(run.seed, device):  # modules of PyTorch draw weights from that
        sources = _sources(config, catalogue, origin, SLOTS[: SLOT_NAMES.index(last) + 1], instead)
        facts = {"recipe": config, "title": title, "seed": run.seed}
        return _parts(sources, run, facts, origin_of, device, num_envs or run.num_envs)


class Source(NamedTuple):
    """What makes a slot's part."""

    slot: Slot
    name: str
    """For messages."""
    func: Callable[..., Any]
    fields: Values
    """The keywords that YAML gives."""


def _sources(
    config: Values,
    catalogue: Catalogue,
    origin: Origin,
    slots: Iterable[Slot],
    instead: Mapping[str, Callable[..., Any]],
) -> Iterator[Source]:
    for slot in slots:
        fields = {name: value for name, value in config[slot.name].items() if name != TARGET}
        name = config[slot.name][TARGET]
        if func := instead.get(slot.name):
            made = func if isinstance(func, partial) else partial(func)
            name = getattr(made.func, "__name__", repr(func))
            if made.args:  # they stay in the partial
                yield Source(slot, name, made, {})
            else:
                yield Source(slot, name, made.func, made.keywords)
        else:
            func = catalogue.resolve(slot.name, name, origin(f"{slot.name}.{TARGET}"))
            yield Source(slot, name, func, fields)


def _parts(
    sources: Iterable[Source], run: Run, facts: Values, origin: Origin, device: str, num_envs: int
) -> Values:
    import torch

    from sqn_rl.parts.collect.base import Actors
    from sqn_rl.parts.env.base import close

    parts: Values = {}
    bag = {name: getattr(run, name) for name in RUN_SETTINGS} | {"device": device}
    with ExitStack() as unless_built:
        for source in sources:
            slot = source.slot
            bag["seed"] = stream_seed(run.seed, slot.name)
            if slot.name == "logger":  # it describes the run, and draws nothing
                bag |= facts
            if slot.name == "encoder":
                choice = speed.bfloat16(run, bag["observation_shape"], source.fields.get("hidden"))
                bag["precision"] = "bf16" if choice.chosen else "fp32"
            maker = maker_of(source, bag, origin)
            with torch.device(device):
                parts[slot.name] = bag[slot.gives] = maker if slot.given else maker()
            if slot.name == "env":
                env = maker(num_envs=num_envs, seed=run.seed, training=True)
                unless_built.callback(close, env)
                parts |= {"env": env, "make_env": maker}
                bag |= {name: getattr(env, name) for name in ENV_FACTS}
            if isinstance(part := parts[slot.name], Actors):
                bag |= {"num_envs": part.actors * num_envs, "lanes": part.actors}
        unless_built.pop_all()
    return parts


def stream_seed(seed: int, slot: str) -> int:
    """The seed of a slot's own generator: a run's generators must not draw the same numbers."""
    return int(np.random.SeedSequence([seed, *slot.encode()]).generate_state(1)[0])


def maker_of(source: Source, bag: Values, origin: Origin) -> Maker:
    """What makes a slot's part, of its fields and of what the slots before it gave.

    Args:
        source: its class, and its fields.
        bag: what it may ask for by name.
        origin: for messages.

    Raises:
        RecipeError: its class does not take a field, or needs what no slot gives; or a field is set to
            something else than what the run or the slots before give by its name.
    """
    slot, func, own = source.slot, source.func, source.fields
    check_fields(slot.name, func, own, origin)
    for name, value in own.items():
        if name in bag and not _same(value, bag[name]):
            key = f"{slot.name}.{name}"
            hint = f"write {name}={flow(value)}" if name in SETTINGS else "leave it out"
            message, subject = f"every part is given the same `{name}`", f"{key} = {value!r}"
            raise RecipeError(message, origin(key), hint, subject)
    wanted = {parameter.name: parameter for parameter in _parameters(func) if parameter.kind in KEYWORDS}
    injected = {name: bag[name] for name in wanted if name in bag and name not in {*own, *slot.given}}
    for name, parameter in wanted.items():
        if parameter.default is parameter.empty and name not in {*own, *injected, *slot.given}:
            message = f"{source.name} needs `{name}`, which no part upstream produces"
            hint = f"set {slot.name}.{name}, or ask for one of: {', '.join(sorted(bag))}"
            raise RecipeError(message, origin(f"{slot.name}.{TARGET}"), hint, slot.name)
    return Maker(slot.name, func, own, injected, origin)


def _same(value: Any, given: Any) -> bool:
    """Whether a field, as YAML has it, is what a part is given by its name."""
    return bool(value == (list(given) if isinstance(given, tuple) else given))


def check_fields(slot: str, target: Callable[..., Any], fields: Iterable[str], origin: Origin) -> None:
    """Refuse a field that ``target`` does not take.

    Raises:
        RecipeError: names the field, where it was set, and the nearest one.
    """
    taken = settable(slot, target)
    for name in fields:
        if taken is not None and name not in taken:
            key, hint = f"{slot}.{name}", did_you_mean(name, taken) or "it takes no fields"
            raise RecipeError(f"{target.__name__} has no such setting", origin(key), hint, key)


def settable(slot: str, target: Callable[..., Any]) -> set[str] | None:
    """The fields that ``target`` takes in a slot; None: whatever it is given."""
    parameters = _parameters(target)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    given = next(each.given for each in SLOTS if each.name == slot)
    return {parameter.name for parameter in parameters if parameter.kind in KEYWORDS} - {*given}


def scheduled(config: Values, catalogue: Catalogue) -> list[str]:
    """The slots whose parts ask for the budget, ``steps``, over which they change."""
    targets = {slot.name: catalogue.resolve(slot.name, config[slot.name][TARGET]) for slot in SLOTS}
    return [
        slot for slot, target in targets.items() if "steps" in {each.name for each in _parameters(target)}
    ]


KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    """Of a class those of its ``__init__``, which the metaclass of TorchRL's environments hides."""
    if inspect.isclass(target):
        if (target.__init__, target.__new__) == (object.__init__, object.__new__):
            return []  # though their signatures say anything
        return list(inspect.signature(target.__init__).parameters.values())[1:]
    return list(inspect.signature(target).parameters.values())
