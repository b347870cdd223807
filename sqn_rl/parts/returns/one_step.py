"""One-step returns.

Legend: B transitions.
"""

import torch
from torch import Tensor

from sqn_rl.parts.arguments import Probability, typed
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.types import Batch


class OneStep:
    """``r_t`` and the next observation: m = 1.

    Args:
        gamma: γ, in [0, 1].

    Raises:
        SettingError: γ is out of range.
    """

    @typed
    def __init__(self, *, gamma: Probability) -> None:
        self.gamma, self.independent = gamma, True

    def gather(self, ring: Ring, place: Tensor) -> Batch:
        """The transitions at these places of the ring, ``[B]``."""
        return Batch(
            observation=ring.observe(place),
            action=ring.action.index_select(0, place),
            reward=ring.reward.index_select(0, place),
            next_observation=ring.observe_next(place),
            terminated=ring.terminated.index_select(0, place),
            discount=ring.reward.new_full(place.shape, self.gamma),
            place=place,
            action_mask=ring.allowed(place),
            next_action_mask=ring.allowed_next(place),
        )

    def steps(self, ring: Ring, place: Tensor) -> Tensor:
        """The m = 1 of each transition, ``[B]`` → ``[B]`` int64."""
        return torch.ones_like(place)
