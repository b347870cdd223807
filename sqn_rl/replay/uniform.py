"""Uniform replay: every stored transition is equally likely."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sqn_rl.data import Batch, Step
from sqn_rl.errors import require
from sqn_rl.replay.ring import Ring


class Returns(Protocol):
    """What makes a batch of the transitions at some places of a ring."""

    def gather(self, ring: Ring, place: Tensor) -> Batch:
        """The transitions at these places, ``[B]``."""


class UniformReplay:
    """The newest ``capacity`` transitions, drawn uniformly with replacement (line 9).

    Args:
        capacity: transitions, over all environments.
        num_envs: N, the environments that step together.
        observation_shape: S.
        observation_dtype: how observations are stored.
        returns: makes a batch of the places drawn.
        seed: of the replay's own generator.
        device: where the transitions lie.

    Raises:
        SettingError: the capacity is not a whole number with room for one step of every environment.
    """

    def __init__(
        self,
        *,
        capacity: int,
        num_envs: int,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        returns: Returns,
        seed: int,
        device: torch.device | str,
    ) -> None:
        require(isinstance(capacity, int), "capacity", capacity, "a whole number of transitions")
        self.capacity, self.returns = capacity, returns
        self.ring = Ring(
            capacity=capacity,
            num_envs=num_envs,
            observation_shape=observation_shape,
            observation_dtype=observation_dtype,
            device=device,
        )
        self.generator = torch.Generator(device=device).manual_seed(seed)

    def __len__(self) -> int:
        """The number of stored transitions."""
        return len(self.ring)

    def cut(self) -> None:
        """Experience starts anew: what comes next does not follow from what came last."""
        self.ring.cut()

    def extend(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step of every environment: ``[N, *S]``, ``[N]``, and their answer (line 6)."""
        self.ring.append(observation, action, step)

    def sample(self, batch_size: int) -> Batch:
        """Draw ``batch_size`` transitions; fewer may be stored, but not none.

        Raises:
            IndexError: nothing is stored.
        """
        if not len(self):
            raise IndexError("nothing is stored yet: there is nothing to draw from")
        rank = torch.randint(len(self), (batch_size,), generator=self.generator, device=self.generator.device)
        return self.returns.gather(self.ring, self.ring.place(rank))
