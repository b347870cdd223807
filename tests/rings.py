"""A ring of two numbers an observation, for tests of what reads it."""

import torch

from sqn_rl.parts.replay.ring import Ring


def make_ring(capacity: int, num_envs: int, stack: int = 1) -> Ring:
    """A ring on the CPU."""
    return Ring(
        capacity=capacity,
        num_envs=num_envs,
        observation_shape=(2,) if stack == 1 else (stack, 2),
        observation_dtype=torch.float32,
        frame_stack=stack,
        device="cpu",
    )
