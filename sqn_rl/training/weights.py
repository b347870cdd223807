"""The weights of an agent, and the states of its parts besides them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sqn_rl.errors import CheckpointError
from sqn_rl.protocols import LazilyStateful, Loss, Stateful


def load_weights(loss: Loss, weights: Mapping[str, Tensor]) -> None:
    """Load weights into ``loss``'s modules, in place.

    Raises:
        CheckpointError: names or shapes differ from this agent's. Nothing is changed.
    """
    own = loss.state_dict()
    names = own.keys() | weights.keys()
    different = sorted(name for name in names if _shape(own, name) != _shape(weights, name))
    if different:
        name = different[0]
        raise CheckpointError(
            f"made by another agent: {len(different)} tensors differ, such as {name}: "
            f"{_shape(weights, name)} in the file, {_shape(own, name)} in the recipe"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def state_besides_weights(loss: Loss, part: object) -> dict[str, Any]:
    """The part's ``state_dict``, if it has one, without tensors that the loss has too."""
    weights = {tensor.data_ptr() for tensor in loss.state_dict().values()}
    return {
        name: value
        for name, value in state_of(part).items()
        if not (isinstance(value, Tensor) and value.data_ptr() in weights)
    }


def load_besides_weights(part: Any, state: Mapping[str, Any]) -> None:
    """Load a state made by :func:`state_besides_weights`; the weights of the part stay."""
    if state:
        part.load_state_dict(part.state_dict() | state)


def state_of(part: object) -> dict[str, Any]:
    """The part's own state; empty if it has none."""
    if isinstance(part, LazilyStateful):
        return part.lazy_state_dict()
    return part.state_dict() if isinstance(part, Stateful) else {}
