"""Atari games seen through the 128 bytes of the console's memory."""

import numpy as np
import torch
from ale_py import ALEInterface, LoggerMode, roms

from sqn_rl.envs.base import BatchedEnv, Played
from sqn_rl.errors import nearest, require


class AtariRamEnv(BatchedEnv):
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
        limited = max_frames is not None
        require(not limited or _positive(max_frames), "max_frames", max_frames, "a positive integer or null")
        self._game, self._sticky_actions, self._max_frames = game, sticky_actions, max_frames or 0
        first = self._console(seed=0)  # tells the sizes; games begin on consoles of their own seed
        self._actions = first.getMinimalActionSet()
        super().__init__(
            name=f"{game}-ram",
            n_actions=len(self._actions),
            observation_shape=(first.getRAMSize(),),
            observation_dtype=torch.uint8,
            frame_skip=frame_skip,
            num_envs=num_envs,
            seed=seed,
        )
        self._consoles, self._lives = [first] * num_envs, [0] * num_envs
        self._clip_reward, self._life_loss = clip_reward and training, life_loss and training

    def _console(self, seed: int) -> ALEInterface:
        """A console with the game's ROM in it: 0.2 s, most of it ALE's start of the machine."""
        ALEInterface.setLoggerMode(LoggerMode.Error)  # else each prints a banner
        console = ALEInterface()
        console.setFloat("repeat_action_probability", self._sticky_actions)
        console.setInt("max_num_frames_per_episode", self._max_frames)
        _, word = np.random.SeedSequence(seed).generate_state(2)  # the word that AtariEnv takes
        console.setInt("random_seed", int(word.astype(np.int32)))
        console.loadROM(roms.get_rom_path(self._game))
        return console

    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        if seed is not None:
            self._consoles[i] = self._console(seed)
        console = self._consoles[i]
        console.reset_game()
        self._lives[i] = console.lives()
        return console.getRAM()

    def _play_one(self, i: int, action: int) -> Played:
        console, held = self._consoles[i], self._actions[action]
        score = sum(console.act(held) for _ in range(self.frame_skip))
        over, late = console.game_over(with_truncation=False), console.game_truncated()
        lives, before = console.lives(), self._lives[i]
        self._lives[i] = lives
        return Played(
            observation=console.getRAM(),
            reward=(score > 0) - (score < 0) if self._clip_reward else score,
            score=score,
            terminated=over or (self._life_loss and lives < before),
            truncated=late,
            ended=over or late,
        )


def _positive(number: object) -> bool:
    return isinstance(number, int) and number >= 1


def _require_playable(game: str) -> None:
    """Refuse what ALE cannot play: it would end the process."""
    names = roms.get_all_rom_ids()
    require(game in names, "game", game, f"a game of ale-py's, in snake_case{nearest(game, names)}")
    playable = ALEInterface.isSupportedROM(roms.get_rom_path(game)) is not None
    require(playable, "game", game, "a game whose rules ALE knows; of this one ale-py ships only the ROM")
