"""Two small tasks in which an observation is not enough: Recall, and CartPole without velocities."""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

NAMESPACE = "sqn_rl/"
"""Prefix of the tasks' Gymnasium ids."""


class Recall(gymnasium.Env[np.ndarray, np.int64]):
    """A cue is shown once; ``delay`` steps later its action is worth 1, any other 0, and the episode ends.

    An observation is the cue one-hot, zeros after the first step, and a flag that is 1 at the last. Actions
    before the last do nothing. Without memory the best mean return is 1/``cues``.

    Args:
        delay: steps from the observation with the cue to that with the flag.
        cues: number of cues, which are equally likely; also the number of actions.

    Raises:
        ValueError: there is no delay, or only one cue.
    """

    def __init__(self, *, delay: int, cues: int) -> None:
        if not (isinstance(delay, int) and delay >= 1):
            raise ValueError(f"delay={delay!r}: expected a whole number, at least 1")
        if not (isinstance(cues, int) and cues >= 2):
            raise ValueError(f"cues={cues!r}: expected a whole number, at least 2")
        self.delay, self.cues = delay, cues
        self.observation_space = spaces.Box(0, 1, (cues + 1,), np.float32)
        self.action_space = spaces.Discrete(cues)

    def get_action_meanings(self) -> list[str]:
        """By action, the cue that it repeats."""
        return [f"cue {cue}" for cue in range(self.cues)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a cue and show it."""
        super().reset(seed=seed)
        self._cue, self._steps = int(self.np_random.integers(self.cues)), 0
        return self._show(self._cue), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Count a step; the one after the flag ends the episode."""
        over = self._steps == self.delay
        self._steps += 1
        observation = self._show(self.cues) if self._steps == self.delay else self._show()
        return observation, float(over and action == self._cue), over, False, {}

    def _show(self, *which: int) -> np.ndarray:
        observation = np.zeros(self.cues + 1, np.float32)
        observation[[*which]] = 1
        return observation


class Positions(gymnasium.ObservationWrapper[np.ndarray, Any, np.ndarray]):
    """CartPole without velocities: the cart's position and the pole's angle."""

    def __init__(self, env: CartPoleEnv) -> None:
        super().__init__(env)
        low, high = env.observation_space.low[::2], env.observation_space.high[::2]
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """``[4]`` → ``[2]``."""
        return observation[::2]


def masked_cartpole(**kwargs: Any) -> gymnasium.Env:
    """Gymnasium's CartPole, ``kwargs`` its arguments, as :class:`Positions`."""
    return Positions(CartPoleEnv(**kwargs))


def register() -> None:
    """Make the tasks known to ``gymnasium.make``."""
    gymnasium.register(f"{NAMESPACE}Recall-v0", Recall, kwargs={"delay": 10, "cues": 2})
    gymnasium.register(f"{NAMESPACE}CartPoleMasked-v1", masked_cartpole, max_episode_steps=500)
