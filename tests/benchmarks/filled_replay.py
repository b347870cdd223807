"""A replay that is full before anything is learned."""

from typing import Any

import torch

from sqn_rl import Step, UniformReplay

GAME = 800
"""Steps of a made-up game."""


class FilledReplay(UniformReplay):
    """Uniform replay that begins with random observations, as many as it holds."""

    def cut(self) -> None:
        """Fill it; the run that begins here does not follow from that."""
        fill(self)
        super().cut()


def fill(replay: Any) -> None:
    """Store random observations until it is full and one row was overwritten."""
    ring = replay.ring
    n, dtype, stack = ring.num_envs, ring.observation_dtype, ring.frame_stack
    frame_shape = ring.observation_shape[1:] if stack > 1 else ring.observation_shape
    frames = torch.randint(256, (1000, n, *frame_shape), dtype=torch.uint8).to(dtype)
    if stack > 1:
        frames = frames.unsqueeze(2).expand(-1, -1, stack, *frame_shape)
    action, reward, no = torch.zeros(n, dtype=torch.int64), torch.ones(n), torch.zeros(n) > 0
    for t in range(replay.capacity // n + 1):
        before, following = frames[t % 1000], frames[(t + 1) % 1000]
        over = torch.rand(n) < 1 / GAME
        replay.store(before, action, Step(following, following, reward, over, no, over, reward))
