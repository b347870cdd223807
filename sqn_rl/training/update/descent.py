"""The steps that follow an update's gradients: as PyTorch runs them, or compiled into one piece."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from sqn_rl.parts.optimizer.adam import Adam, Moments
from sqn_rl.protocols import TargetUpdate, Temperature, TensorsOnly
from sqn_rl.training.update.compiling import Compiled

GradientList = Sequence[Tensor | None]
"""The gradient of each parameter; None where none reaches it."""


class Descent:
    """A step of the optimizer, then of α and of the target networks (lines 14 to 18).

    If compiled, a step of :class:`~sqn_rl.parts.optimizer.adam.Adam` is one loop over the numbers of each
    parameter, together with the steps of the other parts that declare ``tensors_only``; then no ``.grad`` is
    populated. From the first step in which a parameter has no gradient, the optimizer itself steps.

    Args:
        parameters: the learned parameters.
        optimizer: their optimizer, with parameters in this order.
        temperature: α, if there is one.
        target_update: moves the target networks.
        compiled: whether to compile.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        optimizer: Optimizer,
        temperature: Temperature | None,
        target_update: TargetUpdate,
        *,
        compiled: bool,
    ) -> None:
        self._parameters, self._optimizer = parameters, optimizer
        is_on_cpu = all(parameter.device.type == "cpu" for parameter in parameters)
        self._adam = optimizer if compiled and is_on_cpu and isinstance(optimizer, Adam) else None
        follow: list[tuple[object, Callable[[], None]]] = []
        if temperature is not None:
            follow.append((temperature, temperature.refresh))
        follow.append((target_update, target_update.step))
        self._joined = [step for part, step in follow if self._adam and _tensors_only(part)]
        self._after = [step for _, step in follow if step not in self._joined]
        self._moments: list[Moments] = []
        self._compiled = Compiled(self._move, "the optimizer's step", otherwise=self._step)

    @property
    def compiles(self) -> bool:
        """Whether the next call compiles."""
        return self._compiled.pending and self._can_move()

    def __call__(self, gradients: GradientList) -> None:
        """Take one step, given the gradient of each parameter; a parameter with gradient None stays."""
        present = [gradient for gradient in gradients if gradient is not None]
        if len(present) == len(gradients) and self._can_move():
            self._compiled(present, [moments.begin_step() for moments in self._moments])
        else:
            self._step(gradients)
        for step in self._after:
            step()

    def _can_move(self) -> bool:
        if self._adam is None or self._adam.has_hooks:
            return False
        self._moments = self._adam.moments()
        return all(moments.same_counts for moments in self._moments)

    def _step(self, gradients: GradientList, rates: object = None) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        for step in self._joined:
            step()

    def _move(self, gradients: Sequence[Tensor], rates: Sequence[Tensor]) -> None:
        first = 0
        with torch.no_grad():
            for moments, rate in zip(self._moments, rates, strict=True):
                end = first + len(moments.steps)
                moments.move(gradients[first:end], rate)
                first = end
            for step in self._joined:
                step()


def _tensors_only(part: object) -> bool:
    return isinstance(part, TensorsOnly) and part.tensors_only
