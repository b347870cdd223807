"""Any environment of EnvPool with discrete actions."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqn_rl.parts.env import gym
from sqn_rl.parts.env.pool.pooled import PooledEnv

GRID = ["turn left", "turn right", "forward", "pick up", "drop", "toggle", "done"]
NAMES = {**gym.NAMES, "MiniGrid": GRID, "BabyAI": GRID}
"""Action names by the first word of an id, which EnvPool gives in its documentation only."""


class EnvPoolEnv(PooledEnv):
    """N environments of one id of EnvPool, stepped together in C++  (Weng et al. 2022).

    Observations are taken as :class:`~sqn_rl.parts.env.gym.GymEnv` takes them: flattened, or images with
    their channels first. A Dict's parts are concatenated, without ``action_mask``, which is the mask.

    *Terminated* and *truncated* are EnvPool's. An episode that ends at the last step before its time limit is
    *truncated*, even in a terminal state, as EnvPool does not tell these apart.

    Arguments and errors are those of :class:`~sqn_rl.parts.env.pool.pooled.PooledEnv`, without ``chosen``;
    ``kwargs`` and ``training`` have defaults.
    """

    def __init__(
        self,
        *,
        id: str,
        kwargs: Mapping[str, Any] = {},
        keys: Sequence[str],
        frame_stack: int,
        clip_reward: bool,
        threads: int,
        num_envs: int,
        seed: int,
        training: bool = True,
    ) -> None:
        super().__init__(
            id=id,
            chosen=("id", id),
            kwargs=kwargs,
            keys=keys,
            frame_stack=frame_stack,
            clip_reward=clip_reward,
            threads=threads,
            num_envs=num_envs,
            seed=seed,
            training=training,
        )

    @property
    def action_names(self) -> list[str]:
        """The names of the actions in :data:`NAMES`; else their numbers."""
        names = NAMES.get(self.name.partition("-")[0], [])
        return names[: self.n_actions] if len(names) >= self.n_actions else super().action_names
