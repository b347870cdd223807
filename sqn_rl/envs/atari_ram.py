"""Atari games seen through the 128 bytes of the console's memory."""

import difflib

import ale_py
import numpy as np
import torch
from ale_py import roms
from ale_py.env import AtariEnv

from sqn_rl.envs.base import BatchedEnv, Played
from sqn_rl.errors import SettingError, require


class AtariRamEnv(BatchedEnv):
    """N copies of one Atari game; an observation is the console's RAM, 128 bytes (uint8).

    The bytes come unscaled, so that a replay keeps one byte each; the MLP encoder scales uint8 input as the
    authors do, ``(x − 128)/128``. Actions are those that the game distinguishes, ALE's minimal set.

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
        _require_playable(game)
        require(0 <= sticky_actions < 1, "sticky_actions", sticky_actions, "a probability in [0, 1)")
        require(frame_skip >= 1, "frame_skip", frame_skip, "a positive integer")
        require(max_frames is None or max_frames >= 1, "max_frames", max_frames, "a positive integer, or null")
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # or each console prints a banner
        games = [
            AtariEnv(
                game,
                obs_type="ram",
                frameskip=frame_skip,
                repeat_action_probability=sticky_actions,
                full_action_space=False,
                max_num_frames_per_episode=max_frames,
            )
            for _ in range(num_envs)
        ]
        super().__init__(
            name=f"{game}-ram",
            n_actions=int(games[0].action_space.n),
            observation_shape=games[0].observation_space.shape,
            observation_dtype=torch.uint8,
            frame_skip=frame_skip,
            num_envs=num_envs,
            seed=seed,
        )
        self._games, self._lives = games, [0] * num_envs
        self._clip_reward, self._life_loss = clip_reward and training, life_loss and training

    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        observation, info = self._games[i].reset(seed=seed)
        self._lives[i] = info["lives"]
        return observation

    def _play_one(self, i: int, action: int) -> Played:
        observation, score, terminated, truncated, info = self._games[i].step(action)
        lost_life = info["lives"] < self._lives[i]
        self._lives[i] = info["lives"]
        return Played(
            observation,
            reward=float(np.sign(score)) if self._clip_reward else score,
            score=score,
            terminated=terminated or (self._life_loss and lost_life),
            truncated=truncated,
            ended=terminated or truncated,
        )


def _require_playable(game: str) -> None:
    """Refuse what ALE cannot load, which it would answer by ending the process."""
    names = roms.get_all_rom_ids()
    if game not in names:
        near = difflib.get_close_matches(game, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingError("game", game, f"the snake_case name of a game that ale-py ships{hint}")
    playable = ale_py.ALEInterface.isSupportedROM(roms.get_rom_path(game)) is not None
    require(playable, "game", game, "a game that ALE plays with one player; this one is for two")
