"""Environments of N separate games, played one after the other."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sqn_rl.data import Step
from sqn_rl.envs.played import Played
from sqn_rl.envs.restorable import RestorableEnv


class GamesEnv(RestorableEnv):
    """N games, each an object of its own; abstract: a family says how one of them is started and played.

    What a game does may depend on its seed and the actions since only; if it does not, it cannot be restored.

    Takes what :class:`~sqn_rl.envs.base.BatchedEnv` takes.
    """

    @abstractmethod
    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        """Start game ``i`` anew, seeding it unless ``seed`` is None; return its first observation, ``S``."""

    @abstractmethod
    def _play_one(self, i: int, action: int) -> Played:
        """Play ``action`` in game ``i``; never restart it."""

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Start the games ``rows`` anew. Returns their first observations, ``[len(rows), *S]``."""
        observation = self._empty(len(rows))
        for place, i in enumerate(rows):
            observation[place] = self._restart_one(i, self._take_seed(i))
        return torch.from_numpy(observation)

    def _send(self, actions: list[int]) -> None:
        self._to_play = actions

    def _receive(self) -> Step:
        n = self.num_envs
        observation = self._empty(n)
        reward, score = np.empty((2, n), np.float32)
        terminated, truncated, ended = np.empty((3, n), np.bool_)
        over: list[int] = []
        for i, action in enumerate(self._to_play):
            game = self._play_one(i, action)
            observation[i], reward[i], score[i], terminated[i], truncated[i], ended[i] = game
            if game.ended:
                over.append(i)
        truncated &= ~terminated  # a time limit does not give back a future
        now = successor = torch.from_numpy(observation)
        if over:
            now = successor.clone()
            now[over] = self.restart(over)
        rest = map(torch.from_numpy, (reward, terminated, truncated, ended, score))
        return Step(now, successor, *rest)

    def _empty(self, rows: int) -> np.ndarray:
        return torch.empty(rows, *self.observation_shape, dtype=self.observation_dtype).numpy()
