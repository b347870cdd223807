"""Atari games seen through the 128 bytes of the console's memory."""

from functools import partial

import ale_py
import numpy as np
import torch
from ale_py import roms
from ale_py.env import AtariEnv

from sqn_rl.envs.base import BatchedEnv, Played, did_you_mean
from sqn_rl.errors import require


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
        require(_positive(frame_skip), "frame_skip", frame_skip, "a positive integer")
        require(
            max_frames is None or _positive(max_frames),
            "max_frames",
            max_frames,
            "a positive integer or null",
        )
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else each console prints a banner
        make = partial(
            AtariEnv,
            game,
            obs_type="ram",
            frameskip=frame_skip,
            repeat_action_probability=sticky_actions,
            full_action_space=False,
            max_num_frames_per_episode=max_frames,
        )
        first = make()
        super().__init__(
            name=f"{game}-ram",
            n_actions=int(first.action_space.n),
            observation_shape=first.observation_space.shape,
            observation_dtype=torch.uint8,
            frame_skip=frame_skip,
            num_envs=num_envs,
            seed=seed,
        )
        self._games = [first, *(make() for _ in range(num_envs - 1))]
        self._lives = [0] * num_envs
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
            reward=(score > 0) - (score < 0) if self._clip_reward else score,
            score=score,
            terminated=terminated or (self._life_loss and lost_life),
            truncated=truncated,
            ended=terminated or truncated,
        )


def _positive(number: object) -> bool:
    return isinstance(number, int) and number >= 1


def _require_playable(game: str) -> None:
    """Refuse what ALE cannot play: it would end the process."""
    names = roms.get_all_rom_ids()
    require(game in names, "game", game, f"a game of ale-py's, in snake_case{did_you_mean(game, names)}")
    playable = ale_py.ALEInterface.isSupportedROM(roms.get_rom_path(game)) is not None
    require(playable, "game", game, "a game whose rules ALE knows; of this one ale-py ships only the ROM")
