"""Polyak averaging of the target networks."""

import torch
from torch import Tensor

from sqn_rl.parts.arguments import Fraction, typed
from sqn_rl.parts.foreach import lerp_each
from sqn_rl.parts.noise import Buffers
from sqn_rl.protocols import Loss


class Polyak:
    """``Q̄_i ← ρ Q̄_i + (1 − ρ) Q_i`` after every update, with ρ = 1 − τ  (line 18).

    Only parameters are averaged. Buffers, such as running statistics, are averages already: they are copied.

    Args:
        loss: the loss with ``q_net`` and ``target_q_net``. Construction copies nothing.
        tau: τ, in (0, 1].

    Raises:
        SettingError: τ is out of range.
    """

    tensors_only = True  # it may be compiled with the optimizer's step

    @typed
    def __init__(self, *, loss: Loss, tau: Fraction) -> None:
        self.tau = tau
        self._target: list[Tensor] = [*loss.target_q_net.parameters()]
        self._online: list[Tensor] = [*loss.q_net.parameters()]
        self._statistics = Buffers(loss.target_q_net, loss.q_net)

    @torch.no_grad()
    def step(self) -> None:
        """Update the target networks once."""
        lerp_each(self._target, self._online, self.tau)
        self._statistics.copy()
