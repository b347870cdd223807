"""Atari games seen through the 128 bytes of the console's memory."""

from typing import Any

import numpy as np
import torch

from sqn_rl.envs.atari_games import SEED_EVERY, actions, console, require_game
from sqn_rl.envs.games import GamesEnv, Played


class AtariRamEnv(GamesEnv):
    """N consoles playing one Atari game; an observation is the console's RAM, 128 bytes (uint8).

    They play as ale-py's ``AtariEnv(obs_type="ram")`` does, seed for seed. The bytes come unscaled, so that
    a replay keeps one byte each; the MLP encoder scales uint8 input as the authors do, ``(x − 128)/128``.
    Actions are those that the game distinguishes, ALE's minimal set.

    Args:
        game: ale-py's snake_case name: "ms_pacman".
        sticky_actions: probability that the console repeats the last action instead, each frame, in [0, 1).
        frame_skip: frames per environment step, during which the action is held and rewards are summed.
        clip_reward: learn from the reward's sign. ``score`` is always the game's own.
        life_loss: a lost life is *terminated* for learning, while the game goes on (``ended`` stays False).
        max_frames: frames after which a game is *truncated*; None for no limit.
        num_envs: N.
        seed: see :class:`~sqn_rl.envs.base.BatchedEnv`.
        training: False plays for the score: without ``clip_reward`` and ``life_loss``.

    Raises:
        SettingError: there is no such game, or a number is out of its range.
    """

    seed_every = SEED_EVERY

    def __init__(
        self,
        *,
        game: str,
        sticky_actions: float,
        frame_skip: int,
        clip_reward: bool,
        life_loss: bool,
        max_frames: int | None,
        num_envs: int,
        seed: int,
        training: bool = True,
    ) -> None:
        settings: dict[str, Any] = {"game": game, "sticky_actions": sticky_actions, "max_frames": max_frames}
        require_game(**settings, frame_skip=frame_skip)
        self._settings, self._actions = settings, actions(game)
        super().__init__(
            name=f"{game}-ram",
            n_actions=len(self._actions),
            observation_shape=(128,),
            observation_dtype=torch.uint8,
            frame_skip=frame_skip,
            num_envs=num_envs,
            seed=seed,
        )
        self._consoles: dict[int, Any] = {}
        self._lives = [0] * num_envs
        self._clip_reward, self._life_loss = clip_reward and training, life_loss and training

    @property
    def action_names(self) -> list[str]:
        """As ALE calls them."""
        return [action.name for action in self._actions]

    def screen(self) -> np.ndarray:
        """The console's screen, ``[210, 160, 3]`` uint8."""
        return self._consoles[0].getScreenRGB()

    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        if seed is not None:
            self._consoles[i] = console(**self._settings, seed=seed)
        played = self._consoles[i]
        played.reset_game()
        self._lives[i] = played.lives()
        return played.getRAM()

    def _play_one(self, i: int, action: int) -> Played:
        played, held = self._consoles[i], self._actions[action]
        score = sum(played.act(held) for _ in range(self.frame_skip))
        over, late = played.game_over(with_truncation=False), played.game_truncated()
        lives, before = played.lives(), self._lives[i]
        self._lives[i] = lives
        return Played(
            observation=played.getRAM(),
            reward=(score > 0) - (score < 0) if self._clip_reward else score,
            score=score,
            terminated=over or (self._life_loss and lives < before),
            truncated=late,
            ended=over or late,
        )
