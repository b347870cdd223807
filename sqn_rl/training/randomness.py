"""The random state of a part: the generators and the noise that it names, besides its weights.

Generators that a part does not name are searched for, and refused, because they would not be restored.
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
"""The attributes of a loss and an actor that hold other parts, and the slots of these."""

KEYS_BEFORE_0_2 = {
    "noise": "_noise.0",
    "noise of q_net": "_noises.0",
    "noise of target_q_net": "_noises.1",
    "noise of policy_net": "_noises.2",
}
"""Keys in checkpoints before 0.2; all others were paths of attributes, ``generator.0``."""


class Randomness:
    """The random state of a part: all that it, and the modules inside it, name in ``randomness``.

    Args:
        slot: the slot of the part.
        part: the part; it names its generators, see :class:`~sqn_rl.protocols.Randomized`.
        stateful: whether checkpoints store the part's own state too, which then may hold generators.

    Raises:
        WiringError: no checkpoint would store a generator or noise in an attribute of the part, or of a
            module inside it, including those in lists, tuples, sets and dicts.
    """

    def __init__(self, slot: str, part: object, *, stateful: bool) -> None:
        inside = list(_inside(part))
        self._parts = [(path, each) for path, each in inside if isinstance(each, Randomized)]
        named = {id(source) for _, _, source in self._sources()}
        for path, each in inside:
            is_unnamed = isinstance(each, (*GENERATORS, Noise)) and id(each) not in named
            if is_unnamed and not (stateful and _in_state(part, each)):
                raise _not_stored(slot, part, path, each)

    def _sources(self) -> Iterator[tuple[str, str, torch.Generator | Noise]]:
        """For each generator and noise: the path of the object that names it, its name, and itself."""
        for path, part in self._parts:
            for name, source in part.randomness.items():
                if isinstance(source, torch.Generator | Noise):
                    yield path, name, source

    @property
    def generators(self) -> list[torch.Generator]:
        """The generators that are named, each once."""
        named = {id(source): source for _, _, source in self._sources()}
        return [source for source in named.values() if isinstance(source, torch.Generator)]

    def state_dict(self) -> dict[str, Any]:
        """The state of every generator, and the values of every noise."""
        return {
            f"{path}.{name}": source.get_state() if isinstance(source, torch.Generator) else source.values
            for path, name, source in self._sources()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state made by :meth:`state_dict`.

        Raises:
            KeyError: a generator or noise is missing.
        """
        for path, name, source in self._sources():
            key, earlier = f"{path}.{name}", f"{path}.{KEYS_BEFORE_0_2.get(name, f'{name}.0')}"
            value = state[key if key in state else earlier]
            if isinstance(source, torch.Generator):
                source.set_state(value)
            elif value is not None:
                source.set(value)


def _not_stored(slot: str, part: object, path: str, generator: object) -> WiringError:
    module, kind = type(generator).__module__.partition(".")[0], type(generator).__qualname__
    hint = "name it in `randomness`, or draw from the generator that is given"
    if not isinstance(generator, torch.Generator | Noise):
        hint = "draw from a torch.Generator, and name that in `randomness`"
    inner = next((NESTED[name] for name in reversed(path.split(".")) if name in NESTED), slot)
    message = f"{type(part).__name__}.{path} is a {kind} of {module}, which no checkpoint keeps"
    return WiringError(inner, f"{slot}: {message}; {hint}: see docs/walkthroughs/own_parts.md")


def _in_state(part: object, generator: object) -> bool:
    """Whether the part's own state has the state of a generator."""
    if not (isinstance(part, Stateful) and isinstance(generator, torch.Generator)):
        return False
    now, state = generator.get_state(), part.state_dict().values()
    return any(
        isinstance(each, Tensor) and each.shape == now.shape and bool((each == now).all()) for each in state
    )


def _inside(part: object) -> Iterator[tuple[str, object]]:
    """The part and everything that its attributes hold, recursively, each once, with its path."""
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
    """The attributes of an object, with the submodules of a module."""
    own = dict(vars(value)) if hasattr(value, "__dict__") else {}  # an object with slots has no __dict__
    return [*own.pop("_modules", {}).items(), *own.items()]


def _items(value: object) -> Iterable[tuple[Any, object]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple | set | frozenset | deque) else ()
