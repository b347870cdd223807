"""Atari games from the console's 128 bytes of RAM."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.parts import machine
from sqn_rl.parts.arguments import Chance, Count, NotNegativeInt, typed
from sqn_rl.parts.env.ale.atari_games import SEED_EVERY, actions, require_game
from sqn_rl.parts.env.ale.ram_worker import RamGame
from sqn_rl.parts.env.ale.ram_workers import RamWorkers
from sqn_rl.parts.env.games import GamesEnv
from sqn_rl.parts.env.played import Played
from sqn_rl.types import Step

WORKER_BYTES = 48_000_000
"""Memory of one worker process."""


class AtariRamEnv(GamesEnv):
    """N consoles playing one Atari game; an observation is the console's RAM, 128 bytes (uint8).

    With the same seed, episodes are identical to those of ale-py's ``AtariEnv(obs_type="ram")``. The bytes
    are not scaled, so that a replay stores one byte each; the MLP encoder scales uint8 input as the authors
    do, ``(x − 128)/128``. The action set is ALE's minimal one for the game.

    Args:
        game: ale-py's snake_case name: "ms_pacman".
        sticky_actions: probability that the console repeats the last action instead, each frame, in [0, 1).
        frame_skip: frames per environment step, during which the action is held and rewards are summed.
        clip_reward: learn from the reward's sign. ``score`` is always unclipped.
        life_loss: a lost life is *terminated* for learning; the episode continues (``ended`` stays False).
        max_frames: frames after which an episode is *truncated*; None: no limit.
        workers: number of worker processes, which affects only the speed; 0: step in this process; None: one
            per processor if there are several environments, else 0.
        num_envs: N, the number of environments.
        seed: see :class:`~sqn_rl.parts.env.base.BatchedEnv`.
        training: False for evaluation: without ``clip_reward`` and ``life_loss``.

    Raises:
        SettingError: there is no such game, or a value is out of its range.
    """

    seed_every = SEED_EVERY

    @typed
    def __init__(
        self,
        *,
        game: str,
        sticky_actions: Chance,
        frame_skip: Count,
        clip_reward: bool,
        life_loss: bool,
        max_frames: Count | None,
        workers: NotNegativeInt | None,
        num_envs: int,
        seed: int,
        training: bool = True,
    ) -> None:
        require_game(game)
        self._settings: dict[str, Any] = {
            "game": game,
            "sticky_actions": sticky_actions,
            "frame_skip": frame_skip,
            "max_frames": max_frames,
            "clip_reward": clip_reward and training,
            "life_loss": life_loss and training,
        }
        super().__init__(
            name=f"{game}-ram",
            n_actions=len(actions(game)),
            observation_shape=(128,),
            observation_dtype=torch.uint8,
            frame_skip=frame_skip,
            num_envs=num_envs,
            seed=seed,
        )
        self.max_steps = max_frames and -(-max_frames // frame_skip)
        usual = machine.processors() if num_envs > 1 else 0
        self._n_workers = min(num_envs, usual if workers is None else workers)
        self.played_bytes = self._n_workers * WORKER_BYTES
        self._workers: RamWorkers | None = None  # workers or games are created at the first reset,
        self._games: list[RamGame] = []  # for which preflight does not wait

    @property
    def action_names(self) -> list[str]:
        """ALE's names of the actions."""
        return [action.name for action in actions(self._settings["game"])]

    def show(self) -> None:
        """Step in this process, so that :meth:`screen` can read the console's screen."""
        self._n_workers = 0

    def screen(self) -> np.ndarray | None:
        """The first console's screen, ``[210, 160, 3]`` uint8; None if it is in another process."""
        return self._games[0].console.getScreenRGB() if self._games else None

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Reset the environments ``rows``. Returns their first observations, ``[len(rows), *S]``."""
        if not self._n_workers:
            return super().restart(rows)
        if self._workers is None:
            self._workers = RamWorkers(self._settings, num_envs=self.num_envs, workers=self._n_workers)
        return torch.from_numpy(self._workers.restart(rows, [self._take_seed(i) for i in rows]))

    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        if not self._games:
            self._games = [RamGame(**self._settings) for _ in range(self.num_envs)]
        return self._games[i].restart(seed)

    def _play_one(self, i: int, action: int) -> Played:
        return self._games[i].play(action)

    def _send(self, actions: list[int]) -> None:
        if self._workers is None:
            super()._send(actions)
        else:
            self._workers.send(actions, self._seeds)

    def _receive(self) -> Step:
        if self._workers is None:
            return super()._receive()
        answers = self._workers.receive()
        over = [i for i, ended in enumerate(answers["ended"].tolist()) if ended]
        for i in over:
            self._take_seed(i)
        now = torch.from_numpy(answers["observation"].copy())
        return Step(
            observation=now,
            next_observation=torch.from_numpy(answers["next_observation"].copy()) if over else now,
            reward=torch.from_numpy(answers["reward"].copy()),
            terminated=torch.from_numpy(answers["terminated"].copy()),
            truncated=torch.from_numpy(
                answers["truncated"] & ~answers["terminated"]
            ),  # terminal stays terminal
            ended=torch.from_numpy(answers["ended"].copy()),
            score=torch.from_numpy(answers["score"].copy()),
        )

    def close(self, *, raise_if_closed: bool = True) -> None:
        """End the worker processes."""
        if self._workers is not None:
            self._workers.close()
        super().close(raise_if_closed=raise_if_closed)
