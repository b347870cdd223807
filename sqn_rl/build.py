"""From a composed recipe to built parts: each gets its YAML fields, and by name what the parts before it gave."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from sqn_rl.catalogue import Catalogue, did_you_mean
from sqn_rl.config import SLOTS, Run, Slot
from sqn_rl.errors import RecipeError, SettingError, WiringError

TARGET = "_target_"

Origin = Callable[[str], str]
"""Says where the value at a dotted key came from."""

RUN_SETTINGS = ("steps", "seed", "num_envs", "batch_size", "gamma", "device")
"""What every part may ask the run for."""


def build(config: Mapping[str, Any], run: Run, catalogue: Catalogue, origin: Origin) -> dict[str, Any]:
    """Build every slot's part, in the order of :data:`SLOTS`.

    Args:
        config: fields by slot, resolved.
        run: the run-level settings.
        catalogue: imports the parts' classes.
        origin: for messages.

    Returns:
        By slot, the built part, or what makes it; under ``env`` the training environments and under ``make_env`` what
        makes more of them.

    Raises:
        RecipeError: a part cannot be built; says which, why, and where that was set.
    """
    import torch

    torch.manual_seed(run.seed)
    parts: dict[str, Any] = {}
    bag = {name: getattr(run, name) for name in RUN_SETTINGS}
    for slot in SLOTS:
        with torch.device(run.device):
            part = make(slot, config[slot.name], bag, catalogue, origin)
        parts[slot.name] = bag[slot.gives] = part
        if slot.name == "env":
            env = call(slot, part, origin, num_envs=run.num_envs, seed=run.seed, training=True)
            parts["make_env"], parts["env"] = part, env
            bag |= {name: getattr(env, name) for name in ("observation_shape", "observation_dtype", "n_actions")}
    return parts


def make(slot: Slot, fields: Mapping[str, Any], bag: Mapping[str, Any], catalogue: Catalogue, origin: Origin) -> Any:
    """Build one part, or the partial that waits for what its user gives.

    Args:
        slot: which.
        fields: its YAML, with ``_target_``.
        bag: what it may ask for by name.
        catalogue: imports its class.
        origin: for messages.

    Raises:
        RecipeError: the class is not allowed, does not take a field, or needs what nobody gives; or it refuses a value.
    """
    target = catalogue.resolve(fields[TARGET], origin(f"{slot.name}.{TARGET}"))
    own = {name: value for name, value in fields.items() if name != TARGET}
    check_fields(slot.name, target, own, origin)
    wanted = _keywords(target)
    injected = {name: bag[name] for name in wanted if name in bag and name not in own and name not in slot.given}
    for name, parameter in wanted.items():
        if parameter.default is parameter.empty and name not in {*own, *injected, *slot.given}:
            raise RecipeError(
                f"{slot.name}: {fields[TARGET]} needs `{name}`, which no part upstream produces",
                origin(slot.name),
                f"set {slot.name}.{name}, or ask for one of: {', '.join(sorted(bag))}",
            )
    if slot.given:
        return partial(target, **own, **injected)
    return call(slot, target, origin, **own, **injected)


def call(slot: Slot, target: Callable[..., Any], origin: Origin, **keywords: Any) -> Any:
    """Call ``target``, and say of what it refuses where that was set.

    Raises:
        RecipeError: it refuses.
    """
    try:
        return target(**keywords)
    except SettingError as error:
        key = error.field if error.field in RUN_SETTINGS else f"{slot.name}.{error.field}"
        raise RecipeError(f"{key} = {error.value!r}: expected {error.expected}", origin(key)) from error
    except WiringError as error:
        raise RecipeError(str(error), origin(error.consumer)) from error
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{slot.name}: {error}", origin(slot.name)) from error


def check_fields(slot: str, target: Callable[..., Any], fields: Iterable[str], origin: Origin) -> None:
    """Refuse a field that ``target`` does not take.

    Raises:
        RecipeError: names the field, where it was set, and the nearest one.
    """
    parameters = inspect.signature(target).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    given = next(each.given for each in SLOTS if each.name == slot)
    settable = _keywords(target).keys() - given
    for name in fields:
        if name not in settable:
            key, mend = f"{slot}.{name}", did_you_mean(name, settable) or "it takes no fields"
            raise RecipeError(f"{key}: {target.__name__} takes no `{name}`", origin(key), mend)


def _keywords(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(target).parameters
    return {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
