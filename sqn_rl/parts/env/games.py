"""Batches of N separate environment objects, stepped one after the other."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import EnvError, explain
from sqn_rl.parts.env.checks import array, flag, number, require_finite
from sqn_rl.parts.env.played import Played
from sqn_rl.parts.env.restorable import RestorableEnv
from sqn_rl.types import Step

NUMBERS = {float, int, np.float64, np.float32}
"""The types of nearly all rewards; checking any other type takes a microsecond."""


class GamesEnv(RestorableEnv):
    """N environments, each an object of its own; abstract: a subclass resets and steps one of them.

    An environment must be deterministic given its seed and actions; otherwise it cannot be restored.

    Arguments are those of :class:`~sqn_rl.parts.env.base.BatchedEnv`.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._masks: np.ndarray | None = None
        """The actions that each environment allows now, ``[N, A]`` bool; None: it gives no masks."""

    @abstractmethod
    def _restart_one(self, i: int, seed: int | None) -> Any:
        """Reset environment ``i``, with ``seed`` unless that is None; return its first observation."""

    @abstractmethod
    def _play_one(self, i: int, action: int) -> Played:
        """Take ``action`` in environment ``i``, without resetting it."""

    def _row(self, observation: Any) -> np.ndarray:
        """An observation as an array, ``S``.

        Raises:
            AnswerError: its type or shape is wrong.
        """
        return array("observation", observation, self.observation_shape, self._dtype)

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Reset the environments ``rows``. Returns their first observations, ``[len(rows), *S]``."""
        observation = self._empty(len(rows))
        for place, i in enumerate(rows):
            try:
                observation[place] = self._row(self._restart_one(i, self._take_seed(i)))
            except (Exception, SystemExit) as error:
                raise EnvError(self._where(i), f"at its reset: {explain(error)}") from error
        self._current.action_mask = self._allowed()
        require_finite("observation", observation, lambda place: self._where(rows[place]))
        return torch.from_numpy(observation)

    def _send(self, actions: list[int]) -> None:
        self._current.actions = actions

    def _receive(self) -> Step:
        n = self.num_envs
        observation, reward, score = self._empty(n), np.empty(n, np.float32), np.empty(n)
        terminated, truncated, ended = np.empty(n, np.bool_), np.empty(n, np.bool_), np.empty(n, np.bool_)
        over: list[int] = []
        for i, action in enumerate(self._current.actions):
            try:
                row, gain, points, terminal, late, end = self._play_one(i, action)
                observation[i] = self._row(row)
                reward[i] = gain if type(gain) in NUMBERS else number("reward", gain)
                score[i] = points if type(points) in NUMBERS else number("score", points)
                if not type(terminal) is type(late) is type(end) is bool:
                    terminal, late = flag("terminated", terminal), flag("truncated", late)
                    end = flag("ended", end)
            except (Exception, SystemExit) as error:
                raise EnvError(self._where(i), explain(error)) from error
            late = late and not terminal  # a terminal state stays terminal at a time limit
            terminated[i], truncated[i], ended[i] = terminal, late, end
            if end:
                over.append(i)
        require_finite("next_observation", observation, self._where)
        require_finite("reward", reward, self._where)
        now = successor = torch.from_numpy(observation)
        masks: tuple[Tensor | None, ...] = ()
        if self._masks is not None:
            masks = self._current.action_mask, self._allowed()
            self._current.action_mask = masks[1]
        if over:
            now = successor.clone()
            now[over] = self.restart(over)
        rest = map(torch.from_numpy, (reward, terminated, truncated, ended, score))
        return Step(now, successor, *rest, *masks)

    def _allowed(self) -> Tensor | None:
        return None if self._masks is None else torch.tensor(self._masks)

    def _empty(self, rows: int) -> np.ndarray:
        return np.empty((rows, *self.observation_shape), self._dtype)
