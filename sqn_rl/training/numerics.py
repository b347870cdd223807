"""What is not finite, and where it came from: to say why a run stopped, and to look at it again."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sqn_rl.parts.memory import recalling
from sqn_rl.protocols import CompilableLoss, Targeting
from sqn_rl.types import Batch


@contextmanager
def default_float32() -> Iterator[None]:
    """Make tensors float32, whatever default dtype the program has set; also a decorator."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as zero; also a decorator: Adam's moments decay there, which is slow."""
    flushed = sys.float_info.min / 2 == 0  # as this thread has it, which torch does not say
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


def not_finite(loss: Any, batch: Batch) -> list[str]:
    """What is NaN or infinite in an update from a batch, in the order in which it is computed.

    Args:
        loss: with the weights of that update; noisy layers keep the noise that they have.
        batch: the batch of that update.

    Returns:
        Lines ``node: quantity: k of n not finite``, in order of computation: the first is the cause.
    """
    with recalling(batch.sequences, loss.q_net, loss.target_q_net):
        return _found(_quantities(loss, batch))


def learned_not_finite(loss: Any, optimizer: Optimizer) -> list[str]:
    """What is NaN or infinite in a loss's weights and their optimizer, in the same format."""
    return _found(_learned(loss, optimizer))


def _learned(loss: Any, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"weights: {name}", weight) for name, weight in loss.state_dict().items())
    names = {id(parameter): name for name, parameter in _parameters(loss)}
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield f"optimizer: {name} of {names.get(id(parameter), 'a parameter')}", value


def _parameters(loss: Any) -> Iterator[tuple[str, Tensor]]:
    """A loss's parameters and their names, or numbers where it has no names."""
    if isinstance(loss, nn.Module):
        return loss.named_parameters()
    return ((str(number), each) for number, each in enumerate(loss.parameters()))


def _found(quantities: Iterable[tuple[str, Tensor]]) -> list[str]:
    found = []
    for name, tensor in quantities:
        if bad := int((~tensor.detach().isfinite()).sum()):
            found.append(f"{name}: {bad} of {tensor.numel()} not finite")
    return found


def _quantities(loss: Any, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"replay: {name} of the batch", column) for name, column in batch.columns().items())
    yield from ((f"weights: {name}", value) for name, value in loss.state_dict().items())
    q_NBA = loss.q_net.values(batch.observation).detach()
    yield "q_net: Q(s, ·)", q_NBA
    yield "loss: target_q_net's Q(s', ·)", loss.target_q_net.values(batch.next_observation)
    if isinstance(loss, Targeting):
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
    """A batch and the weights of its update, by name, for a file."""
    columns = {f"batch.{name}": column for name, column in batch.columns().items()}
    return columns | {f"weights.{name}": value for name, value in loss.state_dict().items()}


def unbundle(tensors: Mapping[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    """The batch and the weights of a :func:`bundle`.

    Raises:
        TypeError: it is none.
    """
    parts: dict[str, dict[str, Tensor]] = {"batch": {}, "weights": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts.setdefault(kind, {})[rest] = tensor
    return Batch.of(parts["batch"]), parts["weights"]
