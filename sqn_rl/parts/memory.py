"""What is remembered within an episode: the state of recurrent networks, the previous action and reward.

Legend: B environments, W numbers of a state.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Memory(NamedTuple):
    """What an actor brings to a step from the steps before it; all zero, and -1, where an episode begins."""

    state: Tensor
    """``[B, W]`` float32: that of all networks, one after the other."""
    action: Tensor
    """``[B]`` int64: the previous action; -1: there is none."""
    reward: Tensor
    """``[B]`` float32: the previous reward."""

    @classmethod
    def empty(cls, rows: int, width: int) -> "Memory":
        """That of B episodes that begin."""
        action = torch.full((rows,), -1, dtype=torch.int64)
        return cls(torch.zeros(rows, width), action, torch.zeros(rows))

    def after(self, state: Tensor, action: Tensor, reward: Tensor, ended: Tensor) -> "Memory":
        """That of the next step: this state, action and reward, and nothing where the episode ended."""
        keeps = ~ended
        return Memory(
            state * keeps.unsqueeze(-1), action.where(keeps, torch.tensor(-1)), reward.where(keeps, 0.0)
        )
