"""Find the NaN and infinite numbers that stopped a run, and save their update to compute it again."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sqn_rl.parts.memory import recalling
from sqn_rl.protocols import CompilableLoss, HasTarget
from sqn_rl.types import Batch


def not_finite(loss: Any, batch: Batch) -> list[str]:
    """List what is NaN or infinite in an update from a batch.

    Args:
        loss: has the weights of that update; noisy layers keep their current noise.
        batch: the batch of that update.

    Returns:
        Lines ``node: quantity: k of n not finite``, in order of computation: the first is the cause.
    """
    with recalling(batch.sequences, loss.q_net, loss.target_q_net):
        return _not_finite_lines(_update_quantities(loss, batch))


def learned_not_finite(loss: Any, optimizer: Optimizer) -> list[str]:
    """List what is NaN or infinite in a loss's weights and their optimizer, in the same format."""
    return _not_finite_lines(_learned_quantities(loss, optimizer))


def _learned_quantities(loss: Any, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The named weights, and the tensors in the optimizer's state."""
    yield from ((f"weights: {name}", weight) for name, weight in loss.state_dict().items())
    names = {id(parameter): name for name, parameter in _parameters(loss)}
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield f"optimizer: {name} of {names.get(id(parameter), 'a parameter')}", value


def _parameters(loss: Any) -> Iterator[tuple[str, Tensor]]:
    """A loss's parameters by name, or by number if it is no module."""
    if isinstance(loss, nn.Module):
        return loss.named_parameters()
    return ((str(number), each) for number, each in enumerate(loss.parameters()))


def _not_finite_lines(quantities: Iterable[tuple[str, Tensor]]) -> list[str]:
    lines = []
    for name, tensor in quantities:
        if number := int((~tensor.detach().isfinite()).sum()):
            lines.append(f"{name}: {number} of {tensor.numel()} not finite")
    return lines


def _update_quantities(loss: Any, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """The named quantities of an update, in the order in which they are computed."""
    yield from ((f"replay: {name} of the batch", column) for name, column in batch.columns().items())
    yield from ((f"weights: {name}", value) for name, value in loss.state_dict().items())
    q_NBA = loss.q_net.values(batch.observation).detach()
    yield "q_net: Q(s, ·)", q_NBA
    yield "loss: target_q_net's Q(s', ·)", loss.target_q_net.values(batch.next_observation)
    if isinstance(loss, HasTarget):
        yield "loss: target", loss.target(batch, q_NBA)
    terms = loss.terms(batch) if isinstance(loss, CompilableLoss) else loss.compute(batch)
    yield from ((f"loss: {name}", value) for name, value in terms.losses.items())
    learned = {name: each for name, each in _parameters(loss) if each.requires_grad}
    total = reduce(add, terms.losses.values())
    gradients = torch.autograd.grad(total, list(learned.values()), allow_unused=True)
    for name, gradient in zip(learned, gradients, strict=True):
        if gradient is not None:
            yield f"optimizer: gradient of {name}", gradient


def bundle(loss: Any, batch: Batch) -> dict[str, Tensor]:
    """A batch and the weights of its update, by name, to save in a file."""
    columns = {f"batch.{name}": column for name, column in batch.columns().items()}
    return columns | {f"weights.{name}": value for name, value in loss.state_dict().items()}


def unbundle(tensors: Mapping[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    """The batch and the weights of a :func:`bundle`.

    Raises:
        TypeError: the tensors are not those of a bundle.
    """
    parts: dict[str, dict[str, Tensor]] = {"batch": {}, "weights": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts.setdefault(kind, {})[rest] = tensor
    return Batch.of(parts["batch"]), parts["weights"]
