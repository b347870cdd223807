"""Play episodes by a trained policy, with the memory that recurrent networks need."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import SettingError, require, require_whole
from sqn_rl.parts.env.checks import as_array, indices
from sqn_rl.protocols import Actor
from sqn_rl.training.player import Player


class PolicyPlayer:
    """Plays episodes by a policy, made by :meth:`sqn_rl.Policy.player`, and holds their memory.

    Call :meth:`act`, then :meth:`record` with the result. A policy without memory acts as :meth:`Policy.act`.

    Args:
        act: as :meth:`sqn_rl.Policy.act`, but its first argument chooses the actions of a batch.
        actor: the actor of the policy.
        num_envs: N, how many episodes are played at a time.
    """

    def __init__(self, act: Callable[..., Any], actor: Actor, num_envs: int) -> None:
        require_whole("num_envs", num_envs, 1)
        self._act, self._player, self._num_envs = act, Player(actor, num_envs), num_envs
        self._action: Tensor | None = None

    def act(self, observation: Any, greedy: bool = True, *, action_mask: Any = None) -> Any:
        """Choose an action in each episode; arguments and result are those of :meth:`sqn_rl.Policy.act`.

        Raises:
            SettingError: there are not ``num_envs`` observations; see also :meth:`sqn_rl.Policy.act`.
        """
        return self._act(self._choose, observation, greedy, action_mask)

    def _choose(self, observation: Tensor, **options: Any) -> Tensor:
        wanted = f"{self._num_envs}, as policy.player(num_envs={self._num_envs}) has it"
        require(len(observation) == self._num_envs, "observations", len(observation), wanted)
        self._action = self._player.act(observation, **options)
        return self._action

    def record(self, reward: Any, ended: Any) -> None:
        """Record the result of the actions: their rewards, and whether each episode ended.

        Args:
            reward: a number, or ``[N]``, as the environment gives it.
            ended: whether the episode terminated or was truncated: a bool, or ``[N]``.

        Raises:
            SettingError: no action was chosen before, or there are not ``num_envs`` results, or
                they are no numbers and no bools.
        """
        if self._action is None:
            raise SettingError("record", reward, "to be called after act")
        self._player.update_memory(
            self._action, self._per_env("reward", reward, np.float32), self._per_env("ended", ended, bool)
        )
        self._action = None

    def _per_env(self, name: str, value: Any, dtype: Any) -> Tensor:
        """The value of each environment, ``[N]``; a single number stands for all."""
        given = as_array(value)
        fits, kind = given.shape in ((), (self._num_envs,)) and given.dtype.kind in "biuf", "a finite number"
        if dtype is bool:
            fits, kind = fits and bool(((given == 0) | (given == 1)).all()), "True or False"
        fits = fits and bool(np.isfinite(given).all())
        require(fits, name, value, f"{kind}, or {self._num_envs} of them, one for each episode")
        return torch.from_numpy(np.broadcast_to(given.astype(dtype), self._num_envs).copy())

    def begin(self, rows: Sequence[int] | None = None) -> None:
        """Begin new episodes that no result announced, in these environments, or in all.

        Raises:
            SettingError: ``rows`` are no indices of environments.
        """
        self._player.begin(indices(rows, self._num_envs))
