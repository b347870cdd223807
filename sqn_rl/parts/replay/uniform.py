"""Uniform replay: every stored transition is equally likely to be sampled."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.replay.base import RingReplay
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.storage import NOTHING_STORED, Returns, RingSampler


class UniformReplay(RingReplay):
    """The newest ``capacity`` transitions, sampled uniformly with replacement (line 9).

    Args:
        capacity: transitions, over all environments.
        num_envs: N, the environments that step together.
        observation_shape: S, of one observation.
        observation_dtype: dtype in which observations are stored.
        frame_stack: k; above 1 an observation is k frames, each of which is stored once.
        returns: computes a batch from the sampled places.
        seed: seed of the replay's own generator.
        device: device of the transitions.
        lanes: groups of environments, one for each actor, that step together; each has its own rows.

    Raises:
        SettingError: the capacity is not a whole number with room for one step of every environment.
    """

    @typed
    def __init__(
        self,
        *,
        capacity: Count,
        num_envs: Count,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        frame_stack: Count,
        returns: Returns,
        seed: int,
        device: torch.device | str,
        lanes: Count = 1,
    ) -> None:
        ring = Ring(
            capacity=capacity,
            num_envs=num_envs,
            observation_shape=observation_shape,
            observation_dtype=observation_dtype,
            frame_stack=frame_stack,
            device=device,
            lanes=lanes,
        )
        generator = torch.Generator(device=device).manual_seed(seed)
        super().__init__(
            capacity=capacity, ring=ring, returns=returns, sampler=_UniformSampler(), generator=generator
        )


class _UniformSampler(RingSampler):
    independent = True

    def draw(self, ring: Ring, batch_size: int) -> tuple[Tensor, None]:
        if not len(ring):
            raise IndexError(NOTHING_STORED)
        generator = self.generator
        rank = torch.randint(len(ring), (batch_size,), generator=generator, device=generator.device)
        return ring.place(rank), None
