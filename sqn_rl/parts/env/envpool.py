"""Any environment of EnvPool with discrete actions."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqn_rl.parts.env.pool.pooled import PooledEnv


class EnvPoolEnv(PooledEnv):
    """N environments of one id of EnvPool, stepped together in C++  (Weng et al. 2022).

    Observations are taken as :class:`~sqn_rl.parts.env.gym.GymEnv` takes them: flattened, or images with
    their channels first. A Dict's parts are concatenated, without ``action_mask``, which is the mask.

    *Terminated* and *truncated* are EnvPool's. An episode that ends at the last step before its time limit is
    *truncated*, even in a terminal state, as EnvPool does not tell these apart.

    Arguments are those of :class:`~sqn_rl.parts.env.pool.pooled.PooledEnv`, with a default for ``training``.
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
