"""The base of the environments of EnvPool: a pool of N, stepped by its threads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from sqn_rl.errors import AnswerError, require
from sqn_rl.parts.arguments import Count, NotNegativeInt, typed
from sqn_rl.parts.env.actions import KEY, Actions, listed, masks_in, without_mask
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.env.checks import require_finite
from sqn_rl.parts.env.observations import View, entries_of, flatten_columns
from sqn_rl.parts.env.pool.opening import FOREVER, opened, spaces_of, spec_of
from sqn_rl.parts.scaling import scaling_of
from sqn_rl.types import Step

LEGAL = "legal_action_mask"
"""The action mask in EnvPool's ``info``."""


class PooledEnv(BatchedEnv):
    """N environments of one id of EnvPool, stepped by its threads; abstract: a subclass chooses the id.

    EnvPool would reset an environment at the step after its last, and ignore the action of that step. Here
    an environment is reset as soon as its episode ends, so that every step is a transition.

    EnvPool can neither save an environment's state nor seed it anew, so a resumed run begins new episodes.

    Args:
        id: EnvPool's name, with its version.
        chosen: the setting that chose the id, and its value, for messages.
        kwargs: EnvPool's own settings of this environment.
        keys: the parts of a Dict observation that are used, all if there are none.
        frame_stack: see :class:`~sqn_rl.parts.env.base.BatchedEnv`; above 1 the space must be a Box.
        clip_reward: learn from the reward's sign. ``score`` is always unclipped.
        threads: number of threads, which affects only the speed; 0: one per environment, up to the number of
            processors.
        num_envs: N, the number of environments.
        seed: see :class:`~sqn_rl.parts.env.base.BatchedEnv`.
        training: False for evaluation: without ``clip_reward``.

    Raises:
        SettingError: EnvPool or what the environment needs is not installed, there is no such id, its
            actions are not discrete, it has several players, or another argument does not fit.
    """

    package = "envpool"

    @typed
    def __init__(
        self,
        *,
        id: str,
        chosen: tuple[str, object],
        kwargs: Mapping[str, Any],
        keys: Sequence[str],
        frame_stack: Count,
        clip_reward: bool,
        threads: NotNegativeInt,
        num_envs: int,
        seed: int,
        training: bool,
    ) -> None:
        spec = spec_of(id, kwargs, *chosen)
        players = spec.config.max_num_players
        require(players == 1, *chosen, f"an environment of one player; it has {players}")
        outside, action_space = spaces_of(spec)
        require(
            isinstance(action_space, spaces.Discrete), *chosen, f"discrete actions; it has {action_space}"
        )
        self._pool: Any = None  # created at the first reset, which preflight does not wait for
        self._actions = Actions(action_space, id)
        space, masks_inside = without_mask(outside, self._actions.n, id)
        self._space, self._key = _chosen_parts(space, keys)
        self._view = view = View(self._space, frame_stack, id)
        super().__init__(
            name=id,
            n_actions=self._actions.n,
            observation_shape=view.shape,
            observation_dtype=torch.uint8 if view.dtype == np.uint8 else torch.float32,
            frame_skip=1,
            frame_stack=frame_stack,
            num_envs=num_envs,
            seed=seed,
        )
        self._settings = {**kwargs, "num_envs": num_envs, "num_threads": threads}
        limit = spec.config.max_episode_steps
        self.max_steps = limit if 0 < limit < FOREVER else None
        self.first_action, self.image_note = self._actions.first, str(view.layout or "")
        self.observation_scaling = scaling_of(view.low, view.high, self.observation_dtype)
        self.observation_entries, self._masks_inside = entries_of(self._space), masks_inside
        self._masked = masks_inside or f"info:{LEGAL}" in spec.state_array_spec
        self._clip_reward, self._shown = clip_reward and training, False
        self._stacks = np.zeros((num_envs, frame_stack, *view.frame_shape), view.dtype)

    def restart(self, rows: Sequence[int]) -> Tensor:
        """Reset the environments ``rows``. Returns their first observations, ``[len(rows), *S]``.

        EnvPool seeds when it creates environments: all of them at the first reset, and none later.
        """
        if self._pool is None:
            self._open()
        self._seeds = [None] * self.num_envs
        return torch.from_numpy(self._begin(np.array(rows, np.int32)))

    def _open(self) -> None:
        for i, seed in enumerate(self._seeds):
            if seed is None:
                self._draw_seed(i)
        options = {"render_mode": "rgb_array"} if self._shown else {}
        self._pool = opened(self.name, **self._settings, **options, seed=self._seeds)

    def _set_seed(self, seed: int | None) -> None:
        super()._set_seed(seed)
        self._pool = None

    def _begin(self, rows: np.ndarray) -> np.ndarray:
        """Reset these environments, and store their masks. Returns their observations, ``[B, *S]``."""
        answer, info = self._pool.reset(rows)
        if self._masked:
            mask_NA = self._current.action_mask
            mask_NA = torch.ones(self.num_envs, self.n_actions).bool() if mask_NA is None else mask_NA.clone()
            mask_NA[rows] = torch.from_numpy(self._allowed(answer, info, np.zeros(len(rows), np.bool_)))
            self._current.action_mask = mask_NA
        observation = self._observed(answer, rows, begins=True)
        require_finite("observation", observation, lambda place: self._where(rows[place]))
        return observation

    def advance(self, action_N: Tensor) -> Step:
        """Take one step in every environment, and reset those whose episode ended; see the base class."""
        self.send(action_N)
        return self.receive()

    def send(self, action_N: Tensor) -> None:
        """Begin one step in every environment, in EnvPool's threads; see the base class."""
        actions = np.array(listed(action_N, self.num_envs, self.n_actions))  # EnvPool does not check them
        super().send(action_N)
        with self._as_env_error():
            self._pool.send(self._actions.outside(actions))

    def receive(self) -> Step:
        """The result of the step begun by :meth:`send`; see the base class."""
        with self._as_env_error():
            step = self._received()
        self._current.observation = step.observation
        return step

    def _received(self) -> Step:
        answer, score, terminated, truncated, info = self._pool.recv()
        successor = self._observed(answer, np.arange(self.num_envs))
        require_finite("next_observation", successor, self._where)
        require_finite("reward", score, self._where)
        masks: tuple[Tensor | None, ...] = ()
        if self._masked:
            following = torch.from_numpy(self._allowed(answer, info, terminated))
            masks = self._current.action_mask, following
            self._current.action_mask = following
        ended, observation = terminated | truncated, successor
        if ended.any():
            over = ended.nonzero()[0].astype(np.int32)
            observation = successor.copy()
            observation[over] = self._begin(over)
        now = torch.from_numpy(observation)
        reward = np.sign(score) if self._clip_reward else score
        columns = (reward.astype(np.float32), terminated, truncated, ended, score.astype(np.float64))
        then = now if observation is successor else torch.from_numpy(successor)
        return Step(now, then, *map(torch.from_numpy, columns), *masks)

    def _observed(self, answer: Any, rows: np.ndarray, *, begins: bool = False) -> np.ndarray:
        """EnvPool's observations of these environments, the newest of their stacks. ``[B, *S]``."""
        numbers = flatten_columns(self._space, self._part(answer), len(rows))
        frames = np.ascontiguousarray(self._view.frames(numbers), self._view.dtype)
        if self.frame_stack == 1:
            return frames
        earlier = np.zeros_like(self._stacks[rows]) if begins else self._stacks[rows]
        self._stacks[rows] = np.concatenate([earlier[:, 1:], frames[:, None]], axis=1)
        return self._stacks[rows]

    def _part(self, answer: Any) -> Any:
        return answer if self._key is None else answer[self._key]

    def _allowed(self, answer: Any, info: Mapping[str, Any], terminated: np.ndarray) -> np.ndarray:
        """The actions allowed after these answers, ``[B, A]`` bool; all, if a terminal state allows none."""
        mask_BA = np.array(answer[KEY] if self._masks_inside else info[LEGAL], np.bool_)
        mask_BA[terminated & ~mask_BA.any(-1)] = True
        if not mask_BA.any(-1).all():
            raise AnswerError(f"{KEY} allows no action, and the state is not terminal")
        return mask_BA

    # --- from outside ---------------------------------------------------------------------------------------

    def mask_of(self, observation: Any) -> Any:
        """The ``action_mask`` of a Dict observation, or of a list of them; None if there is none."""
        return masks_in(observation) if self._masks_inside else None

    def _rows_of(self, observation: Any) -> tuple[np.ndarray, bool]:
        def part(answer: Any) -> Any:
            return self._part(answer) if isinstance(answer, Mapping) and self._key in answer else answer

        if isinstance(observation, list | tuple):
            return self._view.rows(list(map(part, observation)))
        return self._view.rows(part(observation))

    @property
    def _accepts(self) -> str:
        return self._view.accepts

    # --- rendering ------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Make EnvPool render, where it can."""
        self._shown = True

    def screen(self) -> np.ndarray | None:
        """Environment 0 rendered by EnvPool, after :meth:`show`; where it cannot, its image observation."""
        if self._shown:
            try:
                return self._pool.render(env_ids=0)[0]
            except (RuntimeError, OSError):  # not every family has pictures
                self._shown = False
        return self._picture()

    def _picture(self) -> np.ndarray | None:
        """The newest frame of environment 0, ``[H, W, 3]`` uint8; None if it is no image."""
        if self._view.layout is None:
            return None
        frame = self._current.observation[0].numpy().reshape(-1, *self.observation_shape[-3:])[-1]
        colours = frame if len(frame) == 3 else frame[-1:].repeat(3, 0)
        return np.ascontiguousarray(colours.transpose(1, 2, 0))

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the environments, and end their threads."""
        self._pool = None
        super().close(raise_if_closed=raise_if_closed)


def _chosen_parts(space: spaces.Space, keys: Sequence[str]) -> tuple[spaces.Space, str | None]:
    """The space of the chosen parts of a Dict, and None; of a single part, its own space, and its key."""
    if not keys:
        return space, None
    is_dict = isinstance(space, spaces.Dict)
    require(is_dict, "keys", list(keys), f"none, as observations are {space} and no Dict")
    known = list(space.spaces)
    fits = set(keys) <= set(known) and len(set(keys)) == len(keys)
    require(fits, "keys", list(keys), f"some of {', '.join(known)}")
    if len(keys) == 1:
        return space[keys[0]], keys[0]
    return spaces.Dict({key: space[key] for key in keys}), None
