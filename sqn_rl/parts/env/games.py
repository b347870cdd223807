"""Environments of N separate games, played one after the other."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import EnvError, blame
from sqn_rl.parts.env.checks import array, flag, number, require_finite
from sqn_rl.parts.env.played import Played
from sqn_rl.parts.env.restorable import RestorableEnv
from sqn_rl.types import Step

NUMBERS = {float, int, np.float64, np.float32}
"""The types of nearly all rewards: to look at any other costs a microsecond."""


class GamesEnv(RestorableEnv):
    """N games, each an object of its own; abstract: a family says how one of them is started and played.

    What a game does may depend on its seed and the actions since only; if it does not, it cannot be restored.

    Takes what :class:`~sqn_rl.parts.env.base.BatchedEnv` takes.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._dtype = self._now.observation.numpy().dtype

    @abstractmethod
    def _restart_one(self, i: int, seed: int | None) -> Any:
        """Start game ``i`` anew, seeding it unless ``seed`` is None; return its first observation."""

    @abstractmethod
    def _play_one(self, i: int, action: int) -> Played:
        """Play ``action`` in game ``i``; never restart it."""

    def _row(self, observation: Any) -> np.ndarray:
        """An observation of a game as an array, ``S``.

        Raises:
            AnswerError: it is none.
        """
        return array("observation", observation, self.observation_shape, self._dtype)

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Start the games ``rows`` anew. Returns their first observations, ``[len(rows), *S]``."""
        observation = self._empty(len(rows))
        for place, i in enumerate(rows):
            try:
                observation[place] = self._row(self._restart_one(i, self._take_seed(i)))
            except (Exception, SystemExit) as error:
                raise EnvError(self._where(i), f"at its start: {blame(error)}") from error
        require_finite("observation", observation, lambda place: self._where(rows[place]))
        return torch.from_numpy(observation)

    def _send(self, actions: list[int]) -> None:
        self._now.sent = actions

    def _receive(self) -> Step:
        n = self.num_envs
        observation, reward, score = self._empty(n), np.empty(n, np.float32), np.empty(n)
        terminated, truncated, ended = np.empty(n, np.bool_), np.empty(n, np.bool_), np.empty(n, np.bool_)
        over: list[int] = []
        for i, action in enumerate(self._now.sent):
            try:
                seen, paid, won, terminal, late, end = self._play_one(i, action)
                observation[i] = self._row(seen)
                reward[i] = paid if type(paid) in NUMBERS else number("reward", paid)
                score[i] = won if type(won) in NUMBERS else number("score", won)
                if not type(terminal) is type(late) is type(end) is bool:
                    terminal, late = flag("terminated", terminal), flag("truncated", late)
                    end = flag("ended", end)
            except (Exception, SystemExit) as error:
                raise EnvError(self._where(i), blame(error)) from error
            late = late and not terminal  # a time limit does not give back a future
            terminated[i], truncated[i], ended[i] = terminal, late, end
            if end:
                over.append(i)
        require_finite("next_observation", observation, self._where)
        require_finite("reward", reward, self._where)
        now = successor = torch.from_numpy(observation)
        if over:
            now = successor.clone()
            now[over] = self.restart(over)
        rest = map(torch.from_numpy, (reward, terminated, truncated, ended, score))
        return Step(now, successor, *rest)

    def _empty(self, rows: int) -> np.ndarray:
        return np.empty((rows, *self.observation_shape), self._dtype)
