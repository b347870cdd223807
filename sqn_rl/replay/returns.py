"""Returns: what a replayed transition says its action was worth."""

import torch
from torch import Tensor

from sqn_rl.data import Batch
from sqn_rl.errors import require
from sqn_rl.replay.ring import Ring


class OneStep:
    """``r_t`` and the next observation: m = 1.

    Args:
        gamma: γ, in [0, 1].

    Raises:
        SettingError: γ is out of range.
    """

    def __init__(self, *, gamma: float) -> None:
        require(0 <= gamma <= 1, "gamma", gamma, "a number in [0, 1]")
        self.gamma = gamma

    def gather(self, ring: Ring, place: Tensor) -> Batch:
        """The transitions at these places of the ring, ``[B]``."""
        return Batch(
            observation=ring.observation[place],
            action=ring.action[place],
            reward=ring.reward[place],
            next_observation=ring.next_observation(place),
            terminated=ring.terminated[place],
            discount=torch.full(place.shape, self.gamma, device=place.device),
            place=place,
        )
