"""The base of all environments: a batch of N, for our loop and for TorchRL's.

Our loop calls ``begin`` once, and then ``send`` and ``receive`` in turn, which reset ended episodes
themselves; ``advance`` is both. TorchRL calls ``reset`` and ``step``, and decides itself what to reset. Use
one or the other.

Legend: N environments; ``*S`` is the shape of one observation.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from sqn_rl.errors import (
    AnswerError,
    EnvError,
    ObservationError,
    RestoreError,
    SqnError,
    explain,
    require_whole,
)
from sqn_rl.parts.env.checks import array_or_batch, describe, indices, require_columns, require_finite
from sqn_rl.parts.observations import Entry
from sqn_rl.parts.scaling import Scaling
from sqn_rl.types import Step


@dataclass(slots=True)
class Current:
    """The state that changes at every step. It is one object, as setting a TorchRL attribute takes 2 µs."""

    observation: Tensor
    """The current observations, ``[N, *S]``."""
    actions: Any = None
    """The actions sent last."""
    steps: int = 0
    """The number of steps so far, for error messages."""
    action_mask: Tensor | None = None
    """The actions allowed now, ``[N, A]`` bool; None if all are, always."""
    closed: bool = False
    """Whether it was closed; TorchRL's ``is_closed`` is true before the first reset too."""


class BatchedEnv(EnvBase):
    """N environments of one kind, stepped together; abstract.

    A subclass that steps N environments at once implements ``restart`` and ``advance``. If each environment
    is an object of its own, derive from :class:`~sqn_rl.parts.env.games.GamesEnv` instead. Environments whose
    state can be restored derive from :class:`~sqn_rl.parts.env.restorable.RestorableEnv`.

    As a TorchRL environment its batch size is ``[N]``. It reads ``action`` (``[N]`` int64) and writes
    ``observation`` (``[N, *S]``), ``reward`` (``[N, 1]``, to learn from), ``done``, ``terminated`` and
    ``truncated`` (``[N, 1]``). A reset after a lost life continues the episode. Where the environments give
    action masks it writes ``action_mask`` too (``[N, A]`` bool), from the first reset on.

    Args:
        name: the name for run directories and titles.
        n_actions: the size of the action set.
        observation_shape: ``S``.
        observation_dtype: float32, or uint8 for bytes.
        frame_skip: emulator frames per environment step.
        frame_stack: above 1, an observation is the frames of that many last steps, ``[frame_stack, *F]``,
            oldest first, with zeros for frames from before the episode.
        num_envs: N, the number of environments.
        seed: seeds the sequences from which the environments take their seeds.

    Raises:
        SettingError: ``num_envs`` is not a positive, or ``seed`` not a non-negative whole number.
    """

    restorable = False
    """Whether ``state_dict`` and ``load_state_dict`` save and restore every environment's state."""

    max_steps: int | None = None
    """The time limit of an episode, in environment steps; None if there is none, or it is not known."""

    played_bytes = 0
    """Memory that is allocated only at the first reset, in all processes."""

    package = ""
    """The package whose version decides how it plays, besides Gymnasium and ale-py; checkpoints name it."""

    observation_scaling: Scaling | None = None
    """How :class:`sqn_rl.MLP` scales observations; None: bytes as ``(x − 128)/128``, others not at all."""

    observation_entries: Sequence[Entry] = ()
    """The entries of a flattened Dict or Tuple, and which are images; empty for other spaces."""

    image_note = ""
    """The layout of images outside, for the console: ``an image … with last channels``; else empty."""

    first_action = 0
    """The number of action 0 outside: the ``start`` of a Gymnasium environment's Discrete action space."""

    _has_frame_skip = True  # environments skip frames themselves; otherwise TorchRL would add its own skip

    def __init__(
        self,
        *,
        name: str,
        n_actions: int,
        observation_shape: tuple[int, ...],
        observation_dtype: torch.dtype,
        frame_skip: int,
        frame_stack: int = 1,
        num_envs: int,
        seed: int,
    ) -> None:
        require_whole("num_envs", num_envs, 1)
        require_whole("seed", seed, 0)
        super().__init__(device="cpu", batch_size=(num_envs,))
        self.name, self.num_envs, self.n_actions = name, num_envs, n_actions
        self.frame_skip, self.frame_stack = frame_skip, frame_stack
        self.observation_shape, self.observation_dtype = observation_shape, observation_dtype
        self._current = Current(torch.zeros(num_envs, *observation_shape, dtype=observation_dtype))
        self._dtype = self._current.observation.numpy().dtype
        self._set_seed(seed)
        flag = Categorical(2, shape=(num_envs, 1), dtype=torch.bool)
        observation = Unbounded(shape=(num_envs, *observation_shape), dtype=observation_dtype)
        self.observation_spec = Composite(observation=observation, shape=(num_envs,))
        self.action_spec = Categorical(n_actions, shape=(num_envs,), dtype=torch.int64)
        self.reward_spec = Unbounded(shape=(num_envs, 1))
        self.done_spec = Composite(done=flag, terminated=flag, truncated=flag, shape=(num_envs,))

    @property
    def action_mask(self) -> Tensor | None:
        """The actions allowed at the current observations, ``[N, A]`` bool; None if all are, always."""
        return self._current.action_mask

    @property
    def act_options(self) -> dict[str, Any]:
        """Keywords for an actor at the current observations: ``action_mask``, if there is one."""
        return {} if self.action_mask is None else {"action_mask": self.action_mask}

    def begin(self, rows: Sequence[int] | None = None) -> Tensor:
        """Reset all environments, or only ``rows``. Returns the observations of all, ``[N, *S]``."""
        self._start(indices(rows, self.num_envs))
        return self._current.observation

    @abstractmethod
    def restart(self, rows: Sequence[int]) -> Tensor:
        """Reset the environments ``rows``, even in mid-episode, and leave the others alone.

        Environment ``i`` is seeded with ``_seeds[i]``, which then becomes None; if it is None already, the
        environment keeps its random state.

        Returns:
            Their first observations, ``[len(rows), *S]``.
        """

    @abstractmethod
    def advance(self, action_N: Tensor) -> Step:
        """Take one step in every environment, and reset those whose episode ended.

        With action masks, it sets those of the step, and ``_current.action_mask``, as ``restart`` does.
        Returned tensors are never written to again. If no episode ended, ``observation`` and
        ``next_observation`` are the same tensor.

        Args:
            action_N: ``[N]`` int64.
        """

    def send(self, action_N: Tensor) -> None:
        """Begin one step in every environment; :meth:`receive` must be called next and returns its result.

        Environments in other threads or processes step while the caller does something else. This base class
        takes the step in :meth:`receive`.
        """
        self._require_open()
        self._current.actions = action_N
        self._current.steps += 1

    def receive(self) -> Step:
        """The result of the step begun by :meth:`send`, as of :meth:`advance`.

        Raises:
            EnvError: the environment raised, or returned a wrong shape, dtype or flag.
            NumericsError: an observation, a reward or a score is NaN or infinite.
        """
        with self._as_env_error():
            step = self.advance(self._current.actions)
            require_columns(step, self._current.observation)
            for name in ("next_observation", "observation", "reward", "score"):
                require_finite(name, getattr(step, name).numpy(), self._where)
        self._current.observation = step.observation
        return step

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The state of every environment between two steps: tensors, numbers and lists.

        Raises:
            RestoreError: the state cannot be saved.
        """
        raise RestoreError(f"{self.name}: {type(self).__name__} cannot save the state of its environments")

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> Tensor:
        """Restore the state of one with the same settings; returns the observations there, ``[N, *S]``.

        Raises:
            RestoreError: the state cannot be restored. ``begin`` still starts new episodes.
        """
        raise RestoreError(f"{self.name}: {type(self).__name__} cannot restore the state of its environments")

    def mask_of(self, observation: Any) -> Any:
        """The action masks in observations from outside; None if there are none in them."""
        return None

    def actions_outside(self, action_B: np.ndarray) -> np.ndarray:
        """Actions as the environment takes them outside. ``[B]`` int64 → ``[B]``, or ``[B, *]``."""
        return action_B + self.first_action

    def batch_of(self, observation: Any) -> tuple[Tensor, bool]:
        """Convert observations from outside to those of this environment; it may be closed.

        Args:
            observation: one observation ``S`` or a batch ``[B, *S]``, as an array or a list.

        Returns:
            ``[B, *S]``, and whether it was one observation.

        Raises:
            ObservationError: its shape or type is wrong.
            NumericsError: a number is NaN or infinite.
        """
        try:
            rows, single = self._rows_of(observation)
        except AnswerError as error:
            given, why = describe(observation), str(error)
            fix = f"give it the observations of {self._outside}" if why.startswith("observation is") else why
            raise ObservationError(f"{self._accepts}, or a batch of these", given, fix) from error
        with np.errstate(over="ignore"):  # a number too large for the dtype is refused below
            numbers = np.array(rows, self._dtype, order="C")
        require_finite("observation", numbers, lambda row: f"given to act in {self.name}, row {row}")
        return torch.from_numpy(numbers), single

    def _rows_of(self, observation: Any) -> tuple[np.ndarray, bool]:
        """The rows ``[B, *S]``, and whether it was one observation; raises :class:`AnswerError`."""
        return array_or_batch("observation", observation, self.observation_shape, self._dtype)

    @property
    def _accepts(self) -> str:
        """What :meth:`batch_of` accepts, for an error message."""
        return f"{list(self.observation_shape)} {self._dtype}"

    @property
    def _outside(self) -> str:
        """The environment whose observations :meth:`batch_of` accepts, for an error message."""
        return self.name

    @property
    def action_names(self) -> list[str]:
        """The names of the actions; by default their numbers."""
        return [str(action) for action in range(self.n_actions)]

    def show(self) -> None:
        """Enable :meth:`screen`, which may make steps slower; to be called before the first reset."""

    def screen(self) -> np.ndarray | None:
        """Environment 0 rendered now, ``[H, W, 3]`` uint8; None if it cannot be rendered."""
        return None

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the environments; after that it only converts observations and actions."""
        self._current.closed = True
        super().close(raise_if_closed=raise_if_closed)

    def _set_seed(self, seed: int | None) -> None:
        self._entropy = np.random.SeedSequence(seed).entropy
        self._seed_counts = [0] * self.num_envs
        self._seeds: list[int | None] = [None] * self.num_envs
        self._is_new_episode = self._lost_life = torch.zeros(self.num_envs, dtype=torch.bool)

    def _where(self, i: int | None = None) -> str:
        """The environment's name and number, and the step, for an error message."""
        return f"{self.name}, {'' if i is None else f'environment {i}, '}step {self._current.steps}"

    @contextmanager
    def _as_env_error(self) -> Iterator[None]:
        """Turn any other error raised inside into an :class:`EnvError`."""
        try:
            yield
        except SqnError:
            raise
        except (Exception, SystemExit) as error:
            raise EnvError(self._where(), explain(error)) from error

    def _require_open(self) -> None:
        if self._current.closed:
            raise EnvError(self._where(), "it is closed; make a new one")

    def _draw_seed(self, i: int) -> None:
        """Draw the seed of environment ``i``'s next reset from its own sequence."""
        sequence = np.random.SeedSequence(self._entropy, spawn_key=(i, self._seed_counts[i]))
        self._seeds[i] = int(sequence.generate_state(1)[0]) % 2**31  # many environments take 31 bits
        self._seed_counts[i] += 1

    def _start(self, rows: Sequence[int]) -> None:
        """Seed and reset these environments; the others keep their observation."""
        self._require_open()
        for i in rows:
            if self._seeds[i] is None:
                self._draw_seed(i)
        observation = self._current.observation.clone()
        with self._as_env_error():
            observation[list(rows)] = self.restart(rows)
        self._current.observation = observation

    # --- TorchRL's side: ``advance`` resets ended episodes, ``_reset`` returns their first observations ----

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        self.send(tensordict["action"])
        step = self.receive()
        self._is_new_episode, self._lost_life = step.ended, step.terminated & ~step.ended
        flags = step.terminated, step.truncated
        return self._tensordict(step.next_observation, *flags, step.next_action_mask, reward=step.reward)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        which = None if tensordict is None else tensordict.get("_reset", None)
        if which is None:
            which_N, reset_N = torch.ones_like(self._is_new_episode), ~self._is_new_episode
        else:
            which_N = which.reshape(-1)
            reset_N = which_N & ~self._is_new_episode & ~self._lost_life
        if rows := reset_N.nonzero().flatten().tolist():
            self._start(rows)
        self._is_new_episode, self._lost_life = self._is_new_episode & ~which_N, self._lost_life & ~which_N
        no = torch.zeros_like(self._is_new_episode)
        return self._tensordict(self._current.observation, no, no, self._current.action_mask)

    def _tensordict(
        self, observation: Tensor, terminated: Tensor, truncated: Tensor, mask: Tensor | None, **more: Tensor
    ) -> TensorDict:
        columns = {"terminated": terminated, "truncated": truncated, "done": terminated | truncated, **more}
        columns = {"observation": observation} | {name: each.unsqueeze(-1) for name, each in columns.items()}
        if mask is not None:
            columns["action_mask"] = mask
            if self.observation_spec.get("action_mask", None) is None:
                allowed = Categorical(2, mask.shape, dtype=torch.bool)
                self.observation_spec = self.observation_spec.clone().set("action_mask", allowed)
        return TensorDict(columns, self.batch_size, device=self.device)
