"""State that a part has besides its weights: the random generators, and the noise, that it names.

What a part does not name is looked for, so that it is refused instead of not being restored.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sqn_rl.errors import WiringError
from sqn_rl.parts.noise import Noise
from sqn_rl.protocols import Randomized, Stateful

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, Random)

NESTED = {"encoder": "encoder", "head": "head", "temperature": "temperature", "policy_net": "actor"}
NESTED |= {"q_net": "q_net", "target_q_net": "q_net"}
"""By name the attributes of a loss and an actor that hold parts, and whose."""

KEYS_BEFORE_0_2 = {
    "noise": "_noise.0",
    "noise of q_net": "_noises.0",
    "noise of target_q_net": "_noises.1",
    "noise of policy_net": "_noises.2",
}
"""Keys in checkpoints before 0.2; those of all else were paths of attributes, ``generator.0``."""


class Randomness:
    """What a part draws with: all that it and the modules inside it name by ``randomness``.

    Args:
        slot: of the part.
        part: one with generators names them, see :class:`~sqn_rl.protocols.Randomized`.
        stateful: whether the part's own state is kept too, which then may hold generators.

    Raises:
        WiringError: a generator or a noise would be in no checkpoint; it lies in an attribute of the part, or
            of a module inside it, also in lists, tuples, sets and dicts.
    """

    def __init__(self, slot: str, part: object, *, stateful: bool) -> None:
        inside = list(_inside(part))
        self._parts = [(path, each) for path, each in inside if isinstance(each, Randomized)]
        kept = {id(source) for _, _, source in self._sources()}
        for path, each in inside:
            draws = isinstance(each, (*GENERATORS, Noise)) and id(each) not in kept
            if draws and not (stateful and _in_state(part, each)):
                raise _unkept(slot, part, path, each)

    def _sources(self) -> Iterator[tuple[str, str, torch.Generator | Noise]]:
        """The path of the part inside the part, the name of what it draws with, and that itself."""
        for path, part in self._parts:
            for name, source in part.randomness.items():
                if isinstance(source, torch.Generator | Noise):
                    yield path, name, source

    def state_dict(self) -> dict[str, Any]:
        """The state of every generator, and every noise."""
        return {
            f"{path}.{name}": source.get_state() if isinstance(source, torch.Generator) else source.values
            for path, name, source in self._sources()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from there.

        Raises:
            KeyError: one is missing.
        """
        for path, name, source in self._sources():
            key, earlier = f"{path}.{name}", f"{path}.{KEYS_BEFORE_0_2.get(name, f'{name}.0')}"
            value = state[key if key in state else earlier]
            if isinstance(source, torch.Generator):
                source.set_state(value)
            elif value is not None:
                source.set(value)


def _unkept(slot: str, part: object, path: str, generator: object) -> WiringError:
    module, kind = type(generator).__module__.partition(".")[0], type(generator).__qualname__
    hint = "name it in `randomness`, or draw from the generator that is given"
    if not isinstance(generator, torch.Generator | Noise):
        hint = "draw from a torch.Generator, and name that in `randomness`"
    inner = next((NESTED[name] for name in reversed(path.split(".")) if name in NESTED), slot)
    message = f"{type(part).__name__}.{path} is a {kind} of {module}, which no checkpoint keeps"
    return WiringError(inner, f"{slot}: {message}; {hint}: see docs/walkthroughs/own_parts.md")


def _in_state(part: object, generator: object) -> bool:
    """Whether the state of a generator is in the part's own."""
    if not (isinstance(part, Stateful) and isinstance(generator, torch.Generator)):
        return False
    now, state = generator.get_state(), part.state_dict().values()
    return any(
        isinstance(each, Tensor) and each.shape == now.shape and bool((each == now).all()) for each in state
    )


def _inside(part: object) -> Iterator[tuple[str, object]]:
    """The part, what is in its attributes, and so on, each once, with its path."""
    seen: set[int] = set()
    left: deque[tuple[str, object]] = deque([("", part)])
    while left:
        path, value = left.popleft()
        if id(value) not in seen:
            seen.add(id(value))
            yield path, value
            inside = _attributes(value) if value is part or isinstance(value, nn.Module) else _items(value)
            left.extend((f"{path}.{name}" if path else str(name), each) for name, each in inside)


def _attributes(value: object) -> Iterable[tuple[Any, object]]:
    """The attributes of an object; of a module, its submodules too."""
    own = dict(vars(value)) if hasattr(value, "__dict__") else {}  # one with slots has none
    return [*own.pop("_modules", {}).items(), *own.items()]


def _items(value: object) -> Iterable[tuple[Any, object]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple | set | frozenset | deque) else ()
