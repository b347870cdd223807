"""Periodic hard updates of the target networks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.foreach import copy_each
from sqn_rl.parts.noise import Buffers
from sqn_rl.protocols import Loss


class Periodic:
    """``Q̄_i ← Q_i`` after every ``every`` updates, as in DQN (Mnih et al. 2015): parameters and buffers.

    Args:
        loss: the loss with ``q_net`` and ``target_q_net``. Construction copies nothing.
        every: the period, in updates.

    Raises:
        SettingError: the period is not a positive whole number.
    """

    @typed
    def __init__(self, *, loss: Loss, every: Count) -> None:
        self.every = every
        self.updates = 0
        self._target: list[Tensor] = [*loss.target_q_net.parameters()]
        self._online: list[Tensor] = [*loss.q_net.parameters()]
        self._statistics = Buffers(loss.target_q_net, loss.q_net)

    @torch.no_grad()
    def step(self) -> None:
        """Count one update, and copy when it is due."""
        self.updates += 1
        if self.updates % self.every == 0:
            copy_each(self._target, self._online)
            self._statistics.copy()

    def state_dict(self) -> dict[str, int]:
        """The number of updates counted."""
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the number of updates counted."""
        self.updates = state["updates"]
