"""The forward and backward pass of an update: as PyTorch runs it, compiled, or recorded on a GPU."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from sqn_rl.protocols import CompilableLoss, Loss
from sqn_rl.training.update.compiling import Compiled, warn_not_compiled
from sqn_rl.training.update.cuda_graph import CudaGraphs
from sqn_rl.types import Batch, Terms


class Result(NamedTuple):
    """The result of :class:`Gradients`."""

    terms: Terms
    """The terms of the loss, detached."""
    gradients: tuple[Tensor | None, ...]
    """The gradient of each parameter; None where none reaches it."""
    numbers: Tensor
    """Each loss, then the norm of all gradients, ``[losses + 1]``: in one tensor, to be read at once."""


class Gradients:
    """The losses of a batch, and the gradients of their sum.

    If compiled, forward and backward are one graph, which takes half the time for small networks. Compiling
    takes some ten seconds, at the first call. On CUDA they are recorded instead, in
    :class:`~sqn_rl.training.update.cuda_graph.CudaGraphs`.

    Args:
        loss: the loss to differentiate.
        parameters: the parameters by which it is differentiated.
        compiled: whether to compile.
        generators: those from which the loss draws.
    """

    def __init__(
        self,
        loss: Loss,
        parameters: Sequence[Tensor],
        *,
        compiled: bool,
        generators: Iterable[torch.Generator] = (),
    ) -> None:
        self._parameters, self._sample_noise = parameters, _no_noise
        self._compute: Callable[[Batch], Terms] = loss.compute
        self._run: Callable[[Batch], Result] = self._differentiate
        if compiled and not isinstance(loss, CompilableLoss):
            warn_not_compiled("the update", f"{type(loss).__name__} has no `redraw` and `terms`")
        elif compiled and parameters[0].is_cuda:
            self._run = CudaGraphs(self._differentiate, "the update", generators)
        elif compiled and isinstance(loss, CompilableLoss):
            self._sample_noise, self._compute = loss.redraw, loss.terms
            self._run = Compiled(self._differentiate, "the update")

    @property
    def compiles(self) -> bool:
        """Whether the next call compiles."""
        return isinstance(self._run, Compiled) and self._run.pending

    @property
    def compiled(self) -> bool:
        """Whether calls run compiled or recorded code."""
        if isinstance(self._run, CudaGraphs):
            return self._run.recorded
        return isinstance(self._run, Compiled) and self._run.compiled

    def __call__(self, batch: Batch) -> Result:
        """The losses of one batch, and their gradients."""
        self._sample_noise(batch)
        return self._run(batch)

    def _differentiate(self, batch: Batch) -> Result:
        terms = self._compute(batch)
        gradients = torch.autograd.grad(
            reduce(add, terms.losses.values()), self._parameters, allow_unused=True
        )
        flat = [gradient.flatten() for gradient in gradients if gradient is not None]
        norm = torch.stack([each.dot(each) for each in flat]).sum().sqrt()
        losses = {name: loss.detach() for name, loss in terms.losses.items()}
        numbers = torch.cat([each.reshape(1) for each in (*losses.values(), norm)])
        return Result(terms._replace(losses=losses), gradients, numbers)


def _no_noise(batch: Batch) -> None:
    """Sample no noise: an uncompiled loss samples its own."""
