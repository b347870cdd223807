"""Environments that cost nothing, to measure what collecting costs besides. Run with ``--trust``."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sqn_rl import BatchedEnv, Step

SHAPES = {"ram": (128,), "pixels": (4, 84, 84)}


class StillEnv(BatchedEnv):
    """N environments of which nothing ever changes.

    Args:
        kind: ``ram`` or ``pixels``.
        num_envs: N.
        seed: not used.
    """

    def __init__(self, *, kind: str, num_envs: int, seed: int) -> None:
        super().__init__(
            name="Still",
            n_actions=4,
            observation_shape=SHAPES[kind],
            observation_dtype=torch.uint8,
            frame_skip=4,
            frame_stack=4 if kind == "pixels" else 1,
            num_envs=num_envs,
            seed=seed,
        )
        no, zero = torch.zeros(num_envs, dtype=torch.bool), torch.zeros(num_envs)
        still = self._current.observation
        self._answer = Step(still, still, zero, no, no, no, zero.double())

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Reset nothing."""
        for row in rows:
            self._seeds[row] = None
        return self._current.observation[list(rows)]

    def advance(self, action_N: Tensor) -> Step:
        """Step nothing."""
        return self._answer
