"""Build the parts of a composed recipe: each gets its fields, and by name what earlier parts provide."""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sqn_rl.errors import (
    RecipeError,
    SettingError,
    SqnError,
    WiringError,
    did_you_mean,
    explain,
    nearest,
    own_line,
)
from sqn_rl.recipe.auto import bfloat16
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.provenance import Values, flow
from sqn_rl.recipe.schema import SETTINGS, SLOT_NAMES, SLOTS, Run, Slot

TARGET = "_target_"

RUN_SETTINGS = ("steps", "seed", "num_envs", "batch_size", "gamma", "device")
"""The run-level settings that every part may ask for by name."""

ENV_FACTS = (
    "observation_shape",
    "observation_dtype",
    "observation_entries",
    "observation_scaling",
    "n_actions",
    "frame_stack",
)
"""The attributes of the environments that later parts may ask for by name."""

Origin = Callable[[str], str]
"""Maps a dotted key to the place its value came from."""


@dataclass(frozen=True)
class Maker:
    """Makes the part of a slot; if the part refuses a value, the error says where that value was set."""

    slot: str
    func: Callable[..., Any]
    fields: Values
    """The keywords that YAML gives."""
    injected: Values
    """The keywords that other parts and the run give."""
    origin: Origin

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Make the part from what only its user knows; keywords that it does not take are left out.

        Raises:
            RecipeError: the part refuses a value, or fails.
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
            raise error.located(self.origin) from error
        except SqnError:
            raise
        except (TypeError, ValueError) as error:
            suspect = self._suspect(str(error))
            raise RecipeError(f"{error}{own_line(error)}", self.origin(suspect), "", suspect) from error
        except (Exception, SystemExit) as error:  # a user's part may raise anything
            raise RecipeError(explain(error), self.origin(self.slot), "", self.slot) from error

    def _suspect(self, message: str) -> str:
        """The key of the only value that a message quotes, or whose type it names; else the slot."""
        words = message.split()
        lists = {name: value if isinstance(value, list) else [value] for name, value in self.fields.items()}
        quoted = [name for name, values in lists.items() if any(str(value) in words for value in values)]
        others = {name: value for name, value in self.fields.items() if not isinstance(value, int | float)}
        of_type = [name for name, value in others.items() if f"'{type(value).__name__}'" in message]
        suspects = quoted or of_type
        return f"{self.slot}.{suspects[0]}" if len(suspects) == 1 else self.slot


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
        device: where the parts are built; by default the run's device.
        num_envs: how many environments are opened; by default the run's number.
        instead: by slot, what makes its part instead of the class that ``config`` names: a class, a function
            or a ``partial``, whose keywords are its fields.
        title: the title of the run, for its logger.

    Returns:
        By slot, the built part, or its maker. ``env`` has the training environments; ``make_env`` makes more.

    Raises:
        RecipeError: a part cannot be built; says which, why, and where that was set.
    """
    from sqn_rl.training.random_state import RandomState
    from sqn_rl.training.torch_modes import default_float32

    origin_of = partial(_origin_of, origin, frozenset(instead))
    catalogue.import_trusted()
    device = device or run.device
    with default_float32(), RandomState(run.seed, device):  # PyTorch draws initial weights from that
        sources = _sources(config, catalogue, origin, SLOTS[: SLOT_NAMES.index(last) + 1], instead)
        facts = {"recipe": config, "title": title, "seed": run.seed}
        return _build_parts(sources, run, facts, origin_of, device, num_envs or run.num_envs)


INSTEAD = "build()"
"""The origin of parts that are not the recipe's."""


def _origin_of(origin: Origin, instead: Collection[str], key: str) -> str:
    """The origin of a key, where the parts of some slots are not the recipe's."""
    return INSTEAD if key.partition(".")[0] in instead else origin(key)


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
    """What makes each slot's part: what was given ``instead``, or the class that ``config`` names."""
    for slot in slots:
        if func := instead.get(slot.name):
            yield _given_source(slot, func)
        else:
            name = config[slot.name][TARGET]
            fields = {name: value for name, value in config[slot.name].items() if name != TARGET}
            func = catalogue.resolve(slot.name, name, origin(f"{slot.name}.{TARGET}"))
            yield Source(slot, name, func, fields)


def _given_source(slot: Slot, func: Callable[..., Any]) -> Source:
    factory = func if isinstance(func, partial) else partial(func)
    name = getattr(factory.func, "__name__", repr(func))
    if factory.args:  # they stay in the partial
        return Source(slot, name, factory, {})
    return Source(slot, name, factory.func, factory.keywords)


def _build_parts(
    sources: Iterable[Source], run: Run, facts: Values, origin: Origin, device: str, num_envs: int
) -> Values:
    import torch

    from sqn_rl.parts.collect.base import Actors
    from sqn_rl.parts.env.opening import close

    parts: Values = {}
    available = {name: getattr(run, name) for name in RUN_SETTINGS} | {"device": device}
    with ExitStack() as unless_built:
        for source in sources:
            slot = source.slot
            available["seed"] = stream_seed(run.seed, slot.name)
            if slot.name == "logger":  # it describes the run, and draws nothing
                available |= facts
            if slot.name == "encoder":
                choice = bfloat16(run, available["observation_shape"], source.fields.get("hidden"))
                available["precision"] = "bf16" if choice.chosen else "fp32"
            maker = maker_of(source, available, origin)
            with torch.device(device):
                parts[slot.name] = available[slot.provides] = maker if slot.late_keywords else maker()
            if slot.name == "env":
                env = maker(num_envs=num_envs, seed=run.seed, training=True)
                _require_env(env, origin)
                unless_built.callback(close, env)
                parts |= {"env": env, "make_env": maker}
                available |= {name: getattr(env, name) for name in ENV_FACTS}
            if isinstance(part := parts[slot.name], Actors):
                available |= {"num_envs": part.actors * num_envs, "lanes": part.actors}
        unless_built.pop_all()
    return parts


def _require_env(env: object, origin: Origin) -> None:
    from sqn_rl.parts.env.base import BatchedEnv

    if not isinstance(env, BatchedEnv):
        message = f"expected a subclass of sqn_rl.BatchedEnv; {type(env).__name__} is none"
        hint = "for a Gymnasium environment write env=gym env.id=MODULE:ID, or in Python GymEnv(make)"
        raise RecipeError(message, origin("env"), hint, "env")


def stream_seed(seed: int, slot: str) -> int:
    """The seed of a slot's own generator: a run's generators must not draw the same numbers."""
    return int(np.random.SeedSequence([seed, *slot.encode()]).generate_state(1)[0])


def maker_of(source: Source, available: Values, origin: Origin) -> Maker:
    """The maker of a slot's part, from its fields and from what the slots before it provide.

    Args:
        source: the part's class, and its fields.
        available: what the part may ask for by name.
        origin: for messages.

    Raises:
        RecipeError: the class does not take a field, or needs something that no slot provides; or a field
            differs from the value that the run or an earlier slot provides under its name.
    """
    slot, func, own = source.slot, source.func, source.fields
    check_fields(slot.name, func, own, origin)
    for name, value in own.items():
        if name in available and not _same(value, available[name]):
            key = f"{slot.name}.{name}"
            hint = f"write {name}={flow(value)}" if name in SETTINGS else "leave it out"
            message, subject = f"every part is given the same `{name}`", f"{key} = {value!r}"
            raise RecipeError(message, origin(key), hint, subject)
    wanted = {parameter.name: parameter for parameter in _parameters(func) if parameter.kind in KEYWORDS}
    given = {*own, *slot.late_keywords}
    injected = {name: available[name] for name in wanted if name in available and name not in given}
    for name, parameter in wanted.items():
        if parameter.default is parameter.empty and name not in {*given, *injected}:
            where, there = origin(f"{slot.name}.{TARGET}"), {*available, *slot.late_keywords}
            message = f"{source.name} needs `{name}`, which no part upstream produces{nearest(name, there)}"
            set_it = f"set {slot.name}.{name}"
            if where == INSTEAD:
                set_it = f"write partial({source.name}, {name}=…)"
            hint = f"{set_it}, or ask for one of: {', '.join(sorted(there))}"
            raise RecipeError(message, where, hint, slot.name)
    return Maker(slot.name, func, own, injected, origin)


def _same(value: Any, given: Any) -> bool:
    """Whether a field, as YAML has it, equals the value that is provided under its name."""
    try:
        return bool(value == (list(given) if isinstance(given, tuple) else given))
    except (ValueError, RuntimeError):  # arrays, or tensors, of which no YAML can be the same
        return False


def check_fields(slot: str, target: Callable[..., Any], fields: Iterable[str], origin: Origin) -> None:
    """Refuse a field that ``target`` does not take.

    Raises:
        RecipeError: names the field, where it was set, and the nearest one.
    """
    taken = settable_fields(slot, target)
    for name in fields:
        if taken is not None and name not in taken:
            hint = did_you_mean(name, taken, taken - _provided(slot)) or "it takes no fields"
            key = f"{slot}.{name}"
            raise RecipeError(f"{target.__name__} has no such setting", origin(key), hint, key)


def _provided(slot: str) -> set[str]:
    """The names that the run and the slots before this one provide, and that need no setting."""
    before = SLOT_NAMES.index(slot)
    facts = (*ENV_FACTS, "lanes", "precision") if before else ()
    return {*RUN_SETTINGS, *facts, *(each.provides for each in SLOTS[:before])}


def settable_fields(slot: str, target: Callable[..., Any]) -> set[str] | None:
    """The fields that ``target`` takes in a slot; None if it takes any."""
    parameters = _parameters(target)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    late = next(each.late_keywords for each in SLOTS if each.name == slot)
    return {parameter.name for parameter in parameters if parameter.kind in KEYWORDS} - {*late}


def scheduled_slots(config: Values, catalogue: Catalogue) -> list[str]:
    """The slots whose parts ask for the budget, ``steps``, over which they change."""
    targets = {slot.name: catalogue.resolve(slot.name, config[slot.name][TARGET]) for slot in SLOTS}
    names = {slot: {each.name for each in _parameters(target)} for slot, target in targets.items()}
    return [slot for slot in names if "steps" in names[slot]]


KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those of a class are taken from ``__init__``, as the metaclass of TorchRL's environments hides them.

    Where it has ``**keywords``, these include the parameters of the next base class, which are optional here,
    as the class may set them itself.
    """
    if not inspect.isclass(target):
        return list(inspect.signature(target).parameters.values())
    makers = [vars(each)["__init__"] for each in target.__mro__[:-1] if "__init__" in vars(each)]
    if not makers and target.__new__ is object.__new__:
        return []
    found: dict[str, inspect.Parameter] = {}
    for place, maker in enumerate(makers):
        *own, last = [*inspect.signature(maker).parameters.values()]
        passes_on = last.kind is last.VAR_KEYWORD
        for each in (own if passes_on else [*own, last])[1:]:
            found.setdefault(
                each.name, each.replace(default=None) if place and each.kind in KEYWORDS else each
            )
        if not passes_on:
            return list(found.values())
    return [*found.values(), inspect.Parameter("keywords", inspect.Parameter.VAR_KEYWORD)]
