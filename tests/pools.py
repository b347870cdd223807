"""The reference for an environment of EnvPool: a raw pool of one, stepped by hand."""

import warnings
from typing import Any

import numpy as np
from gymnasium import spaces


class Alone:
    """A raw pool of one environment, as a plain environment; made anew whenever it is seeded.

    EnvPool begins the next episode at the step after the last, whose action it ignores.
    """

    def __init__(self, id: str, **settings: Any) -> None:
        self.id, self.settings = id, settings
        self.pool, self.ended = None, False
        self._open(0)

    def _open(self, seed: int) -> None:
        import envpool

        self.pool = envpool.make_gymnasium(self.id, num_envs=1, num_threads=1, seed=[seed], **self.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of bounds in double precision
            self.observation_space: spaces.Space = self.pool.observation_space
            self.action_space: spaces.Discrete = self.pool.action_space

    def reset(self, *, seed: int | None = None) -> tuple[Any, dict]:
        if seed is not None:
            self._open(seed)
        if seed is None and self.ended:
            answer, reward, *flags, info = self.pool.step(np.array([self.action_space.start]))
            assert (reward.item(), *map(np.ndarray.item, flags)) == (0.0, False, False)
        else:
            answer, info = self.pool.reset()
        assert info["elapsed_step"] == [0]
        self.ended = False
        return first(answer), first(info)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        assert not self.ended
        answer, reward, terminated, truncated, info = self.pool.step(np.array([action]))
        self.ended = bool(terminated[0] | truncated[0])
        return first(answer), reward.item(), bool(terminated[0]), bool(truncated[0]), first(info)


def first(answer: Any) -> Any:
    """Of a batch of one, that one, in every part."""
    if isinstance(answer, dict):
        return {key: first(part) for key, part in answer.items()}
    return answer[0].copy() if answer.ndim > 1 else answer[0]
