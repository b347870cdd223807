"""Any Gymnasium environment with discrete actions."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from sqn_rl.errors import AnswerError, SettingError, explain, require
from sqn_rl.parts.env.actions import KEY, Actions, mask_in, masks_in, read_mask, without_mask
from sqn_rl.parts.env.checks import describe
from sqn_rl.parts.env.games import GamesEnv, Played
from sqn_rl.parts.env.memory import tasks
from sqn_rl.parts.env.observations import View, entries_of, flatten
from sqn_rl.parts.env.opening import given, make, missing, wrapped
from sqn_rl.parts.scaling import scaling_of

NAMES = {
    "CartPole": ["left", "right"],
    f"{tasks.NAMESPACE}CartPoleMasked": ["left", "right"],
    "Acrobot": ["torque −1", "none", "torque +1"],
    "MountainCar": ["left", "none", "right"],
    "LunarLander": ["none", "left engine", "main engine", "right engine"],
}
"""Action names, which Gymnasium gives in its documentation only."""

WRAPPERS = str(Path(gymnasium.__file__).with_name("wrappers"))
"""The folder of Gymnasium's wrappers, which unpack what an environment returns."""


tasks.register()


class GymEnv(GamesEnv):
    """N Gymnasium environments of one id, stepped one after the other.

    Gymnasium's vector environments are not used, but the environments in one: they insert a step with an
    ignored action after every episode, or return the true final observation in ``info``.

    Observations are flattened to one dimension as by Gymnasium: a Discrete becomes one-hot, a Tuple or Dict
    the concatenation of its parts. Bytes (uint8 with values above 1) stay uint8; all else becomes float32.
    They are not scaled here; ``observation_scaling`` gives networks the scaling, from the space's bounds.
    Images, of bytes from 0 to 255, are not flattened but have their channels first, see
    :func:`~sqn_rl.parts.env.observations.layout_of`.

    A MultiDiscrete or MultiBinary space becomes one choice among its combinations, at most 1,024. Where
    ``info`` has an ``action_mask``, ``[A]`` of 0 and 1, or a Dict observation has that key, only the actions
    with 1 are chosen. A mask is not part of the observation. The first reset decides whether there are masks.

    Args:
        id: Gymnasium's name, with its version: "CartPole-v1", or "module:Name-v0" where that module has been
            imported, as by ``--trust module``. In Python also a function that makes an environment, such as
            its class; or an environment, or a ``SyncVectorEnv`` of several, which are used as they are, and
            not closed.
        kwargs: passed to ``gymnasium.make`` or the function: the environment's own arguments, or
            ``max_episode_steps``.
        wrappers: Gymnasium's wrappers to put around each, in order, a name of
            :data:`~sqn_rl.parts.env.opening.WRAPPABLE` and its arguments:
            ``[{"TimeLimit": {"max_episode_steps": 200}}]``.
        frame_stack: see :class:`~sqn_rl.parts.env.base.BatchedEnv`; above 1 the space must be a Box, and
            from outside come observations of Gymnasium's ``FrameStackObservation(padding_type="zero")``.
        num_envs: N, the number of environments; by default as many as are given, or one.
        seed: see :class:`~sqn_rl.parts.env.base.BatchedEnv`.
        training: has no effect: rewards and episodes are Gymnasium's.

    Raises:
        SettingError: there is no such id, a package that it needs is not installed, ``kwargs`` or
            ``wrappers`` do not fit, or its actions or its observations are none of the above, or
            ``frame_stack`` is not positive, or above 1 without a Box.
    """

    def __init__(
        self,
        id: str | gymnasium.Env | gymnasium.vector.VectorEnv | Callable[..., gymnasium.Env],
        *,
        kwargs: Mapping[str, Any] = {},
        wrappers: Sequence[Mapping[str, Mapping[str, Any]]] = (),
        frame_stack: int = 1,
        num_envs: int | None = None,
        seed: int = 0,
        training: bool = True,
    ) -> None:
        with ExitStack() as opened:
            envs = [wrapped(each, wrappers) for each in given(id)]
            owns_envs, n_given = not envs, len(envs)
            num_envs = (n_given or 1) if num_envs is None else num_envs
            if owns_envs:
                envs.append(make(id, kwargs, wrappers))
                opened.callback(envs[0].close)
            else:
                require(not kwargs, "kwargs", kwargs, "none, as the environment is made already")
                expected = f"{n_given}, as many as are given; or give a function that makes one of any number"
                require(num_envs == n_given, "num_envs", num_envs, expected)
            first = envs[0]
            actions = Actions(first.action_space, id)
            space, masks_inside = without_mask(first.observation_space, actions.n, id)
            view = View(space, frame_stack, id)
            super().__init__(
                name=first.spec.id if first.spec else type(first.unwrapped).__name__,
                n_actions=actions.n,
                observation_shape=view.shape,
                observation_dtype=torch.uint8 if view.dtype == np.uint8 else torch.float32,
                frame_skip=1,
                frame_stack=frame_stack,
                num_envs=num_envs,
                seed=seed,
            )
            self.max_steps = first.spec.max_episode_steps if first.spec else None
            while len(envs) < num_envs:
                envs.append(_another(envs, num_envs, partial(make, id, kwargs, wrappers), id))
                opened.callback(envs[-1].close)
            opened.pop_all()
        self._envs, self._owns_envs, self._has_id = envs, owns_envs, isinstance(id, str)
        self._kwargs, self.wrappers, self._space, self._actions = kwargs, wrappers, space, actions
        self._masks_inside, self._masks_known = masks_inside, False
        self.first_action = actions.first
        self._action_names = actions.names or _names_of(first, self.name)
        self._box_kind = (space.shape, space.dtype) if isinstance(space, spaces.Box) else None
        self._view, self.image_note = view, str(view.layout or "")
        self._stacks = np.zeros((num_envs, frame_stack, *view.frame_shape), self._dtype)
        self.observation_scaling = scaling_of(view.low, view.high, self.observation_dtype)
        self.observation_entries = entries_of(space)

    @property
    def action_names(self) -> list[str]:
        """The environment's ``get_action_meanings()``, or the names in :data:`NAMES`; else their numbers."""
        names = self._action_names
        return names if names and len(names) == self.n_actions else super().action_names

    def show(self) -> None:
        """Make environment 0 again with rendering, if it can render."""
        if self._has_id and "rgb_array" in (self._envs[0].metadata.get("render_modes") or []):
            self._envs.pop(0).close()  # closed first, as some environments can be open only once
            kwargs = {**self._kwargs, "render_mode": "rgb_array"}
            self._envs.insert(0, make(self.name, kwargs, self.wrappers))

    def screen(self) -> Any:
        """Environment 0 rendered, after :meth:`show`; None if it cannot render.

        Raises:
            EnvError: rendering fails.
            SettingError: the package that it renders with is not installed.
        """
        self._require_open()
        env = self._envs[0]
        if env.render_mode != "rgb_array":
            return None
        with self._as_env_error():
            try:
                return env.render()
            except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
                raise SettingError("id", self.name, missing("its renderer", error)) from error

    def _row(self, observation: np.ndarray) -> np.ndarray:
        return observation

    def _observed(self, i: int, answer: Any, *, begins: bool = False) -> np.ndarray:
        """An answer of environment ``i`` as an observation ``S``, with it as the newest of its stack."""
        fits = type(answer) is np.ndarray and (answer.shape, answer.dtype) == self._box_kind
        frame = answer.ravel() if fits else flatten(self._space, answer)
        if self._view.layout:
            frame = self._view.frames(frame)[0]
        if self.frame_stack == 1:
            return frame
        stack = self._stacks[i]
        stack[:-1] = 0 if begins else stack[1:]
        stack[-1] = frame
        return stack

    def _rows_of(self, observation: Any) -> tuple[np.ndarray, bool]:
        return self._view.rows(observation)

    def mask_of(self, observation: Any) -> Any:
        """The ``action_mask`` of a Dict observation, or of a list of them; None if there is none."""
        return masks_in(observation) if self._masks_inside else None

    def actions_outside(self, action_B: np.ndarray) -> np.ndarray:
        """Actions as the environment takes them. ``[B]`` → ``[B]``, of a product space ``[B, *]``."""
        return self._actions.outside(action_B)

    @property
    def _accepts(self) -> str:
        return self._view.accepts

    @property
    def _outside(self) -> str:
        stack = f'FrameStackObservation(env, {self.frame_stack}, padding_type="zero")'
        around = [
            *(name for each in self.wrappers for name in each),
            *([stack] if self.frame_stack > 1 else []),
        ]
        return f"{self.name} in {', '.join(around)}" if around else self.name

    def _restart_one(self, i: int, seed: int | None) -> Any:
        match self._envs[i].reset(seed=seed):
            case (observation, Mapping() as info):
                self._allow(i, observation, info)
                return self._observed(i, observation, begins=True)
            case answer:
                raise AnswerError(f"reset() returned {describe(answer)}; expected (observation, info)")

    def _play_one(self, i: int, action: int) -> Played:
        try:
            answer = self._envs[i].step(self._actions.outside(action))
            observation, reward, terminated, truncated, info = answer
        except (TypeError, ValueError) as error:
            unpacks = extract_tb(error.__traceback__)[-1].filename.startswith((__file__, WRAPPERS))
            if not (unpacks and "unpack" in str(error)):
                raise
            parts = "(observation, reward, terminated, truncated, info)"
            raise AnswerError(f"step() must return {parts}: {error}") from error
        if self._masks is not None or (type(info) is dict and KEY in info):
            self._allow(i, observation, info, terminated=bool(terminated))
        return Played(
            self._observed(i, observation), reward, reward, terminated, truncated, terminated or truncated
        )

    def _allow(self, i: int, observation: Any, info: Any, terminated: bool = False) -> None:
        """Store the actions that environment ``i`` allows now.

        Raises:
            AnswerError: its mask does not fit, or is not given always.
        """
        mask = mask_in(observation if self._masks_inside else info)
        if not self._masks_known:
            self._masks_known = True
            if mask is not None:
                self._masks = np.ones((self.num_envs, self.n_actions), np.bool_)
        if mask is None and not terminated and (self._masks_inside or self._masks is not None):
            why = "the space of observations has one" if self._masks_inside else "the first reset gave one"
            raise AnswerError(f"no {KEY} is given, but {why}")
        if mask is not None and self._masks is None:
            raise AnswerError(f"an {KEY} is given, but the first reset gave none")
        if self._masks is not None:
            self._masks[i] = mask is None or read_mask(mask, self.n_actions, terminated)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close all environments and their windows."""
        envs, self._envs = self._envs, []
        with ExitStack() as closing:
            closing.callback(super().close, raise_if_closed=raise_if_closed)
            for env in envs if self._owns_envs else ():
                closing.callback(env.close)


def _another(
    envs: Sequence[gymnasium.Env], num_envs: int, make_one: Callable[[], gymnasium.Env], id: Any
) -> gymnasium.Env:
    """One more environment beside these, or a :class:`SettingError`."""
    try:
        env = make_one()
    except SettingError as error:
        why = f"{id} cannot be opened once more: {explain(error.__cause__ or error)}"
        raise SettingError("num_envs", num_envs, f"at most {len(envs)}; {why}") from error
    is_new = all(env is not each for each in envs)
    require(is_new, "id", id, "a function that makes another environment at every call")
    return env


def _names_of(env: gymnasium.Env, name: str) -> list[str] | None:
    """The names that an environment gives its actions, or :data:`NAMES`; None if a wrapper changed them."""
    if env.action_space != env.unwrapped.action_space:
        return None
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    return list(meanings()) if meanings else NAMES.get(name.partition("-")[0])
