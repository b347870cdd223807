"""Any Gymnasium environment with a discrete action space."""

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from sqn_rl.envs.games import GamesEnv, Played
from sqn_rl.errors import SettingError, nearest, require
from sqn_rl.scaling import scaling_of

OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuples and Dicts of these"


NAMES = {
    "CartPole": ["left", "right"],
    "Acrobot": ["torque −1", "none", "torque +1"],
    "MountainCar": ["left", "none", "right"],
    "LunarLander": ["none", "left engine", "main engine", "right engine"],
}
"""What the actions of these mean; Gymnasium says it in its documentation only."""


class GymEnv(GamesEnv):
    """N Gymnasium environments of one id, stepped one after the other.

    Plain environments, not Gymnasium's vector ones: those follow every game with a step whose action is
    ignored, or hand out the true final observation in ``info``.

    Observations are flattened to one dimension, as Gymnasium does it: a Discrete becomes one-hot, a Tuple or
    Dict the concatenation of its parts. Bytes (uint8 that counts beyond 1) stay uint8; all else is float32.
    None is scaled here: ``observation_scaling`` says how a network should, by the bounds of the space.

    Args:
        id: Gymnasium's name, with its version: "CartPole-v1".
        kwargs: passed to ``gymnasium.make``: what the environment takes, or ``max_episode_steps``.
        num_envs: N, the number of environments.
        seed: see :class:`~sqn_rl.envs.base.BatchedEnv`.
        training: makes no difference here: rewards and episodes are as Gymnasium gives them.

    Raises:
        SettingError: there is no such id, what it needs is not installed, ``kwargs`` do not fit, its actions
            are not Discrete, or its observations are none of the above.
    """

    def __init__(
        self, *, id: str, kwargs: Mapping[str, Any] = {}, num_envs: int, seed: int, training: bool = True
    ) -> None:
        require(
            ":" not in id, "id", id, "an id without `module:`; have the module imported by --trust instead"
        )
        first = _make(id, kwargs)
        space, actions = first.observation_space, first.action_space
        require(isinstance(actions, spaces.Discrete), "id", id, f"Discrete actions; it has {actions}")
        require(_flattens(space), "id", id, f"observations of {OBSERVATIONS}; it has {space}")
        flat = spaces.flatten_space(space)
        as_bytes = flat.dtype == np.uint8 and flat.high.max() > 1
        super().__init__(
            name=first.spec.id,
            n_actions=int(actions.n),
            observation_shape=flat.shape,
            observation_dtype=torch.uint8 if as_bytes else torch.float32,
            frame_skip=1,
            num_envs=num_envs,
            seed=seed,
        )
        self.max_steps = first.spec.max_episode_steps
        self._games = [first, *(_make(id, kwargs) for _ in range(num_envs - 1))]
        self._kwargs, self._space, self._first_action = kwargs, space, int(actions.start)
        self._is_box = isinstance(space, spaces.Box)
        self.observation_scaling = scaling_of(flat.low, flat.high, self.observation_dtype)

    @property
    def action_names(self) -> list[str]:
        """As the environment calls them, if it has ``get_action_meanings``; or as :data:`NAMES` does."""
        meanings = getattr(self._games[0].unwrapped, "get_action_meanings", None)
        return meanings() if meanings else NAMES.get(self.name.partition("-")[0], super().action_names)

    def show(self) -> None:
        """Make game 0 again so that it draws itself, if it can."""
        if "rgb_array" in self._games[0].metadata.get("render_modes", []):
            self._games[0] = _make(self.name, {**self._kwargs, "render_mode": "rgb_array"})

    def screen(self) -> np.ndarray | None:
        """What game 0 draws, after :meth:`show`.

        Raises:
            SettingError: what it draws with is not installed.
        """
        game = self._games[0]
        try:
            return np.asarray(game.render()) if game.render_mode == "rgb_array" else None
        except gymnasium.error.DependencyNotInstalled as error:
            mend = f"what it draws with: pip install 'sqn_rl[video]' ({error})"
            raise SettingError("id", self.name, mend) from error

    def _flatten(self, observation: Any) -> np.ndarray:
        return observation.ravel() if self._is_box else spaces.flatten(self._space, observation)

    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        return self._flatten(self._games[i].reset(seed=seed)[0])

    def _play_one(self, i: int, action: int) -> Played:
        observation, reward, terminated, truncated, _ = self._games[i].step(action + self._first_action)
        ended = terminated or truncated
        return Played(self._flatten(observation), reward, reward, terminated, truncated, ended)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close every game, and whatever windows they opened."""
        for game in self._games:
            game.close()
        super().close(raise_if_closed=raise_if_closed)


def _make(id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """One environment, or the :class:`SettingError` that says how to mend name, kwargs or installation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions, and old libraries on import
            return gymnasium.make(id, disable_env_checker=True, **kwargs)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        expected = f"what it needs to be installed: pip install 'sqn_rl[envs]' brings Box2D ({error})"
        raise SettingError("id", id, expected) from error
    except gymnasium.error.Error as error:
        expected = f"an id that Gymnasium knows{nearest(id, gymnasium.registry)} ({error})"
        raise SettingError("id", id, expected) from error
    except (TypeError, ValueError, LookupError, AssertionError) as error:
        raise SettingError("kwargs", dict(kwargs), f"what {id} takes ({error!r})") from error


def _flattens(space: spaces.Space) -> bool:
    """Whether ``space`` is one of those that :data:`OBSERVATIONS` names."""
    if isinstance(space, spaces.Tuple | spaces.Dict):
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return all(map(_flattens, parts))
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
