"""The five games of MinAtar: Atari games on 10 × 10 cells."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sqn_rl.errors import SettingError, require_one_of, to_install
from sqn_rl.parts.arguments import Chance, Count, typed
from sqn_rl.parts.env.games import GamesEnv
from sqn_rl.parts.env.played import Played

SIDE = 10
"""Height and width of an observation in cells."""

CELL = 20
"""Height and width of a cell on the screen, in pixels."""

ACTIONS = {"n": "NOOP", "l": "LEFT", "u": "UP", "r": "RIGHT", "d": "DOWN", "f": "FIRE"}
"""Action names, by MinAtar's letters."""


class MinAtarEnv(GamesEnv):
    """N MinAtar games, stepped one after the other; an observation is ``[C, 10, 10]``  (Young & Tian 2019).

    Each of the C channels, of which a game has 4 to 10, shows where objects of one kind are, as bools. With
    the same seed an episode is identical to the first one of a ``minatar.Environment``, but with channels
    first. Of the package only the games are imported, as the rest imports seaborn, which is slow.

    Args:
        game: MinAtar's snake_case name: "space_invaders".
        sticky_action_prob: probability that a step repeats the last action instead, in [0, 1).
        minimal_actions: only the actions that have an effect in the game; False: all 6, as in the paper.
        difficulty_ramping: an episode becomes harder as it lasts; no effect in Breakout and Freeway.
        clip_reward: learn from the reward's sign. ``score`` is always unclipped.
        max_episode_steps: steps after which an episode is *truncated*; None: no limit, as in MinAtar.
        num_envs: N, the number of environments.
        seed: see :class:`~sqn_rl.parts.env.base.BatchedEnv`.
        training: False for evaluation: without ``clip_reward``.

    Raises:
        SettingError: there is no such game, MinAtar is not installed, or a value is out of its range.
    """

    package = "minatar"

    @typed
    def __init__(
        self,
        *,
        game: str,
        sticky_action_prob: Chance,
        minimal_actions: bool,
        difficulty_ramping: bool,
        clip_reward: bool,
        max_episode_steps: Count | None,
        num_envs: int,
        seed: int,
        training: bool = True,
    ) -> None:
        make = _game_class(_game_file(game))
        first = make(ramping=difficulty_ramping)
        self._actions = first.minimal_action_set() if minimal_actions else list(range(len(first.action_map)))
        super().__init__(
            name=f"{game}-minatar",
            n_actions=len(self._actions),
            observation_shape=(len(first.channels), SIDE, SIDE),
            observation_dtype=torch.bool,
            frame_skip=1,
            num_envs=num_envs,
            seed=seed,
        )
        self.max_steps = max_episode_steps
        self._games = [first, *(make(ramping=difficulty_ramping) for _ in range(num_envs - 1))]
        self._action_names = [ACTIONS[first.action_map[action]] for action in self._actions]
        self._sticky, self._clip_reward = sticky_action_prob, clip_reward and training
        self._limit = max_episode_steps or np.inf
        self._last_actions, self._steps = [0] * num_envs, [0] * num_envs

    @property
    def action_names(self) -> list[str]:
        """The names of the actions, in capitals as ALE's."""
        return self._action_names

    def screen(self) -> np.ndarray:
        """The first game, ``[200, 200, 3]`` uint8: in each cell the colour of its last set channel."""
        state = self._games[0].state()
        topmost = (state * np.arange(1, state.shape[-1] + 1)).max(-1)
        return _colours(state.shape[-1])[topmost].repeat(CELL, 0).repeat(CELL, 1)

    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        game = self._games[i]
        if seed is not None:
            game.random.seed(seed)  # as a new RandomState(seed), which takes 90 µs
        game.reset()
        self._last_actions[i] = self._steps[i] = 0
        return game.state().transpose(2, 0, 1)

    def _play_one(self, i: int, action: int) -> Played:
        game = self._games[i]
        if game.random.random_sample() >= self._sticky:
            self._last_actions[i] = self._actions[action]
        points, over = game.act(self._last_actions[i])
        score, over = float(points), bool(over)  # NumPy's in Space Invaders
        self._steps[i] += 1
        late = self._steps[i] >= self._limit
        reward = (score > 0) - (score < 0) if self._clip_reward else score
        return Played(game.state().transpose(2, 0, 1), reward, score, over, late, over or late)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Drop the games."""
        self._games = []
        super().close(raise_if_closed=raise_if_closed)


def _game_file(game: str) -> Path:
    package = find_spec("minatar")
    if package is None or package.origin is None:
        raise SettingError("game", game, f"MinAtar to be installed: {to_install('minatar')}")
    files = {path.stem: path for path in Path(package.origin).parent.glob("environments/[a-z]*.py")}
    require_one_of(sorted(files), "game", game)
    return files[game]


@cache
def _game_class(file: Path) -> Callable[..., Any]:
    """The class of a game, from its file: an import by name would import the whole package."""
    spec: Any = spec_from_file_location(f"minatar.environments.{file.stem}", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Env


def _colours(channels: int) -> np.ndarray:
    """Black, and a colour for each channel, ``[channels + 1, 3]`` uint8: Green's cubehelix (2011)."""
    x = np.arange(1, channels + 1) / (channels + 1)
    angle, amplitude = 2 * np.pi * (0.5 / 3 - 1.5 * x), x * (1 - x) / 2
    mixes = ((-0.14861, 1.78277), (-0.29227, -0.90649), (1.97294, 0.0))
    rgb = [x + amplitude * (cos * np.cos(angle) + sin * np.sin(angle)) for cos, sin in mixes]
    colours = np.stack(rgb, -1).clip(0, 1) * 255
    return np.concatenate([np.zeros((1, 3)), colours]).round().astype(np.uint8)
