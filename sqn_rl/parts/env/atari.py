"""Atari games from pixels."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.parts.arguments import Chance, Count, NotNegativeInt, typed
from sqn_rl.parts.env.ale.atari_games import SEED_EVERY, actions, require_game
from sqn_rl.parts.env.restorable import RestorableEnv
from sqn_rl.types import Step

SIDE = 84
"""Height and width of an observation in pixels, after Mnih et al. 2015."""

CONSOLE_BYTES = 1_500_000
"""Memory of one console in this environment."""

NO_LIMIT = 2**30
"""A frame limit for ale-py that is never reached: 200 days of play."""


class AtariEnv(RestorableEnv):
    """N consoles playing one Atari game; an observation is the last screens, ``[frame_stack, 84, 84]``.

    ale-py's vector environment steps them, in C++ and on several threads. A screen is the pixelwise maximum
    of a step's last two frames, grayscale, resized to 84 × 84. Pixels are uint8 and not scaled to floats, so
    that a replay stores one byte each. The oldest screen of a stack comes first; screens from before the
    episode are zeros. The action set is ALE's minimal one for the game.

    Episodes are truncated here and not by ale-py, which returns an outdated last screen. That is harmless at
    a terminal state, but not at a truncated one, whose value is bootstrapped.

    Args:
        game: ale-py's snake_case name: "ms_pacman".
        sticky_actions: probability that the console repeats the last action instead, each frame, in [0, 1);
            0.25 in Machado et al. 2018.
        frame_skip: frames per environment step, during which the action is held and rewards are summed.
        frame_stack: screens in an observation.
        noop_max: an episode begins with a random number of no-op frames below this; 0: none.
        fire_reset: an episode begins with FIRE for one frame, if the game has that action.
        clip_reward: learn from the reward's sign. ``score`` is always unclipped.
        life_loss: a lost life is *terminated* for learning; the episode continues (``ended`` stays False).
        max_frames: frames after which an episode is *truncated*, rounded up to whole steps; None: no limit.
        threads: number of threads, which affects only the speed; 0: one per environment, up to the number of
            processors.
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
        frame_stack: Count,
        noop_max: NotNegativeInt,
        fire_reset: bool,
        clip_reward: bool,
        life_loss: bool,
        max_frames: Count | None,
        threads: NotNegativeInt,
        num_envs: int,
        seed: int,
        training: bool = True,
    ) -> None:
        require_game(game)
        super().__init__(
            name=game,
            n_actions=len(actions(game)),
            observation_shape=(frame_stack, SIDE, SIDE),
            observation_dtype=torch.uint8,
            frame_skip=frame_skip,
            frame_stack=frame_stack,
            num_envs=num_envs,
            seed=seed,
        )
        self._settings = {
            "game": game,
            "num_envs": num_envs,
            "num_threads": threads,
            "frameskip": frame_skip,
            "stack_num": frame_stack,
            "repeat_action_probability": sticky_actions,
            "noop_max": noop_max,
            "use_fire_reset": fire_reset,
            "max_num_frames_per_episode": NO_LIMIT,
            "img_height": SIDE,
            "img_width": SIDE,
            "grayscale": True,
            "maxpool": True,
            "full_action_space": False,
            "reward_clipping": False,
            "episodic_life": False,
            "life_loss_info": False,
            "autoreset_mode": "SameStep",
        }
        self._in_colour = False
        self._games: Any = None  # created at the first reset: 0.3 s each, which preflight does not wait for
        self._max_frames = max_frames or NO_LIMIT
        self.max_steps = max_frames and -(-max_frames // frame_skip)
        self.played_bytes = num_envs * CONSOLE_BYTES
        self._frames = np.zeros(num_envs, np.int64)
        self._lives = np.zeros(num_envs, np.int32)
        self._clip_reward, self._life_loss = clip_reward and training, life_loss and training

    @property
    def action_names(self) -> list[str]:
        """ALE's names of the actions."""
        return [action.name for action in actions(self.name)]

    def show(self) -> None:
        """Run a second copy of every environment, in colour and at full size, for :meth:`screen`."""
        self._in_colour = True

    def screen(self) -> np.ndarray | None:
        """The screen in colour, ``[210, 160, 3]`` uint8, after :meth:`show`."""
        return self._games.screens[0, -1] if self._in_colour else None

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Reset the environments ``rows``. Returns their first observations, ``[len(rows), *S]``."""
        mask = np.zeros(self.num_envs, np.bool_)
        mask[rows] = True
        return torch.from_numpy(self._restart(mask))[rows]

    def _restart(self, mask: np.ndarray) -> np.ndarray:
        """Reset the environments of a mask, ``[N]`` bool. Returns the observations of all, ``[N, *S]``."""
        if self._games is None:
            from ale_py.vector_env import AtariVectorEnv

            kind = partial(_ColourEnv, AtariVectorEnv) if self._in_colour else AtariVectorEnv
            self._games = kind(**self._settings)
            mask = np.ones_like(mask)  # its first reset must include all
        seeds = [self._take_seed(i) for i in mask.nonzero()[0].tolist()]
        seed = np.array([-1 if seed is None else seed for seed in seeds])  # -1: keep the random state
        observation, info = self._games.reset(seed=seed, options={"reset_mask": mask})
        self._frames[mask] = 0
        self._lives = info["lives"]
        return observation

    def _send(self, actions: list[int]) -> None:
        self._games.send(np.array(actions))

    def _receive(self) -> Step:
        observation, score, over, _, info = self._games.recv()
        lost_life = self._life_loss & (info["lives"] < self._lives)  # where over: lives of the next episode
        self._lives = info["lives"]
        self._frames += self.frame_skip
        late = ~over & (self._frames >= self._max_frames)
        self._frames[over] = 0

        successor = observation
        if over.any():
            successor = observation.copy()
            successor[over] = info["final_obs"][over]  # its other rows are uninitialised memory
        reset = late | (over & [seed is not None for seed in self._seeds])
        if reset.any():
            observation = self._restart(reset)
        terminated = over | lost_life
        now = torch.from_numpy(observation)
        return Step(
            observation=now,
            next_observation=now if successor is observation else torch.from_numpy(successor),
            reward=torch.from_numpy((np.sign(score) if self._clip_reward else score).astype(np.float32)),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(late & ~terminated),  # a terminal state stays terminal at a time limit
            ended=torch.from_numpy(over | late),
            score=torch.from_numpy(score.astype(np.float64)),
        )

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the consoles, and end their threads."""
        self._games = None
        super().close(raise_if_closed=raise_if_closed)


class _ColourEnv:
    """A vector environment with a copy in colour that takes the same actions, for rendering."""

    def __init__(self, kind: Callable[..., Any], **settings: Any) -> None:
        self._games = kind(**settings)
        in_colour = {"img_height": 210, "img_width": 160, "stack_num": 1, "grayscale": False}
        self._colour_games = kind(**settings | in_colour)

    def reset(self, **options: Any) -> Any:
        self.screens = self._colour_games.reset(**options)[0]
        return self._games.reset(**options)

    def send(self, action: np.ndarray) -> None:
        self._colour_games.send(action)
        self._games.send(action)

    def recv(self) -> Any:
        self.screens = self._colour_games.recv()[0]
        return self._games.recv()
