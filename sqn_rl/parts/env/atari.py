"""Atari games seen through their screen."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import require
from sqn_rl.parts.env.atari_games import SEED_EVERY, actions, require_game, whole
from sqn_rl.parts.env.restorable import RestorableEnv
from sqn_rl.types import Step

SIDE = 84
"""Of the screen, in pixels, after Mnih et al. 2015."""

CONSOLE_BYTES = 1_500_000
"""Of memory that a console takes here."""

NEVER = 2**30
"""Frames after which ale-py itself would cut a game short: 200 days of play."""


class AtariEnv(RestorableEnv):
    """N consoles playing one Atari game; an observation is the last screens, ``[frame_stack, 84, 84]``.

    Stepped by ale-py's vector environment, in C++ and on several threads. A screen is the brighter of a
    step's last two frames, gray, and scaled to 84 × 84 pixels, uint8 and unscaled, so that a replay keeps one
    byte each. The oldest of a stack comes first; those from before the game began are zeros. Actions are
    those that the game distinguishes, ALE's minimal set.

    The games are cut short here and not by ale-py, whose last screen of a game is an old one: of no account
    where the game is over, but not where its value is bootstrapped.

    Args:
        game: ale-py's snake_case name: "ms_pacman".
        sticky_actions: probability that the console repeats the last action instead, each frame, in [0, 1);
            0.25 in Machado et al. 2018.
        frame_skip: frames per environment step, during which the action is held and rewards are summed.
        frame_stack: screens in an observation.
        noop_max: a game begins with fewer frames than this without an action, a random number; 0: with none.
        fire_reset: a game begins with FIRE for one frame, where there is such an action.
        clip_reward: learn from the reward's sign. ``score`` is always the game's own.
        life_loss: a lost life is *terminated* for learning, while the game goes on (``ended`` stays False).
        max_frames: frames after which a game is *truncated*, counted in whole steps; None for no limit.
        threads: that step the games, which changes nothing but the speed; 0: one for each game, up to the
            number of processors.
        num_envs: N, the number of environments.
        seed: see :class:`~sqn_rl.parts.env.base.BatchedEnv`.
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
        frame_stack: int,
        noop_max: int,
        fire_reset: bool,
        clip_reward: bool,
        life_loss: bool,
        max_frames: int | None,
        threads: int,
        num_envs: int,
        seed: int,
        training: bool = True,
    ) -> None:
        require_game(game=game, sticky_actions=sticky_actions, frame_skip=frame_skip, max_frames=max_frames)
        require(whole(frame_stack, 1), "frame_stack", frame_stack, "a positive integer")
        require(whole(noop_max, 0), "noop_max", noop_max, "a non-negative integer")
        require(whole(threads, 0), "threads", threads, "a non-negative integer")
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
            "max_num_frames_per_episode": NEVER,
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
        self._shown = False
        self._games: Any = None  # made when first played: 0.3 s a game, which preflight need not wait for
        self._max_frames = max_frames or NEVER
        self.max_steps = max_frames and -(-max_frames // frame_skip)
        self.played_bytes = num_envs * CONSOLE_BYTES
        self._frames = np.zeros(num_envs, np.int64)
        self._lives = np.zeros(num_envs, np.int32)
        self._clip_reward, self._life_loss = clip_reward and training, life_loss and training

    @property
    def action_names(self) -> list[str]:
        """As ALE calls them."""
        return [action.name for action in actions(self.name)]

    def show(self) -> None:
        """Play every game a second time, in colour and at full size."""
        self._shown = True

    def screen(self) -> np.ndarray | None:
        """The screen in colour, ``[210, 160, 3]`` uint8, after :meth:`show`."""
        return self._games.screens[0, -1] if self._shown else None

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Start the games ``rows`` anew. Returns their first observations, ``[len(rows), *S]``."""
        anew = np.zeros(self.num_envs, np.bool_)
        anew[rows] = True
        return torch.from_numpy(self._restart(anew))[rows]

    def _restart(self, anew: np.ndarray) -> np.ndarray:
        """Start some games anew, ``[N]`` bool. Returns what all of them show now, ``[N, *S]``."""
        if self._games is None:
            from ale_py.vector_env import AtariVectorEnv

            kind = partial(_InColour, AtariVectorEnv) if self._shown else AtariVectorEnv
            self._games = kind(**self._settings)
            anew = np.ones_like(anew)  # as its first reset must
        seeds = [self._take_seed(i) for i in anew.nonzero()[0].tolist()]
        seed = np.array([-1 if seed is None else seed for seed in seeds])  # -1: go on drawing
        observation, info = self._games.reset(seed=seed, options={"reset_mask": anew})
        self._frames[anew] = 0
        self._lives = info["lives"]
        return observation

    def _send(self, actions: list[int]) -> None:
        action = np.array(actions)
        if not ((action >= 0) & (action < self.n_actions)).all():  # ale-py would wait for ever
            raise IndexError(f"actions {actions}: expected each in [0, {self.n_actions})")
        self._games.send(action)

    def _receive(self) -> Step:
        observation, score, over, _, info = self._games.recv()
        lost_life = self._life_loss & (info["lives"] < self._lives)  # of a game that is over, the next one's
        self._lives = info["lives"]
        self._frames += self.frame_skip
        late = ~over & (self._frames >= self._max_frames)
        self._frames[over] = 0

        successor = observation
        if over.any():
            successor = observation.copy()
            successor[over] = info["final_obs"][over]  # its other rows are uninitialised memory
        anew = late | (over & [seed is not None for seed in self._seeds])
        if anew.any():
            observation = self._restart(anew)
        terminated = over | lost_life
        now = torch.from_numpy(observation)
        return Step(
            observation=now,
            next_observation=now if successor is observation else torch.from_numpy(successor),
            reward=torch.from_numpy((np.sign(score) if self._clip_reward else score).astype(np.float32)),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(late & ~terminated),  # a time limit does not give back a future
            ended=torch.from_numpy(over | late),
            score=torch.from_numpy(score.astype(np.float64)),
        )

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the games, and end their threads."""
        self._games = None
        super().close(raise_if_closed=raise_if_closed)


class _InColour:
    """A vector environment, and beside it one that plays the same games, for their looks."""

    def __init__(self, kind: Callable[..., Any], **settings: Any) -> None:
        self._games = kind(**settings)
        looks = {"img_height": 210, "img_width": 160, "stack_num": 1, "grayscale": False}
        self._seen = kind(**settings | looks)

    def reset(self, **how: Any) -> Any:
        self.screens = self._seen.reset(**how)[0]
        return self._games.reset(**how)

    def send(self, action: np.ndarray) -> None:
        self._seen.send(action)
        self._games.send(action)

    def recv(self) -> Any:
        self.screens = self._seen.recv()[0]
        return self._games.recv()
