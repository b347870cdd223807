"""State that a part has besides its parameters and buffers: random generators, and the noise it drew last.

They are found, not declared: a part that draws from a ``torch.Generator`` among its attributes is restored
without a word about it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from sqn_rl.parts.noise import Noise


def hidden_state(part: object) -> dict[str, Any]:
    """By the path of the attribute, the state of every generator and every :class:`Noise` in a part."""
    return {
        path: each.get_state() if isinstance(each, torch.Generator) else each.values
        for path, each in _hidden(part)
    }


def load_hidden_state(part: object, state: Mapping[str, Any]) -> None:
    """Have them go on from there.

    Raises:
        KeyError: one is missing.
    """
    for path, each in _hidden(part):
        if isinstance(each, torch.Generator):
            each.set_state(state[path])
        elif state[path] is not None:
            each.set(state[path])


def _hidden(part: object) -> Iterator[tuple[str, torch.Generator | Noise]]:
    modules = part.named_modules() if isinstance(part, nn.Module) else [("", part)]
    for path, module in modules:
        for name, value in getattr(module, "__dict__", {}).items():
            for index, each in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(each, torch.Generator | Noise):
                    yield f"{path}.{name}.{index}", each
