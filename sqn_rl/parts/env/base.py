"""What every environment here is: N games played side by side, for our loop and for TorchRL's.

Our loop calls ``begin`` once and then ``advance``, which starts anew by itself the games that ended. TorchRL
calls ``reset`` and ``step`` and says itself what to start anew. Use the one pair or the other.

Legend: N environments; ``*S`` is the shape of one observation.
"""

import warnings
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

from sqn_rl.errors import EnvError, RestoreError, SqnError, blame, require
from sqn_rl.parts.env.checks import require_columns, require_finite
from sqn_rl.parts.scaling import Scaling
from sqn_rl.types import Step


def close(env: "BatchedEnv") -> None:
    """Close ``env``, which may be closed already; a failure to do so is a warning."""
    try:
        env.close(raise_if_closed=False)
    except (Exception, SystemExit) as error:
        warnings.warn(f"{env.name}, when it was closed: {blame(error)}", stacklevel=2)


@contextmanager
def opened(env: "BatchedEnv") -> Iterator["BatchedEnv"]:
    """:func:`close` ``env`` at the end."""
    try:
        yield env
    finally:
        close(env)


@dataclass(slots=True)
class Now:
    """What changes at every step; to set an attribute of a TorchRL environment would take 2 µs."""

    observation: Tensor
    """What the games show, ``[N, *S]``."""
    sent: Any = None
    """The actions that are played."""
    steps: int = 0
    """How many steps there have been, for error messages."""


class BatchedEnv(EnvBase):
    """N games of one kind, stepped together; abstract: a family of games says how they are played.

    Whoever steps N games in one go implements ``restart`` and ``advance``; where each game is an object of
    its own, :class:`~sqn_rl.parts.env.games.GamesEnv` does. What can be brought back to where it was is a
    :class:`~sqn_rl.parts.env.restorable.RestorableEnv`.

    As a TorchRL environment its batch size is ``[N]``. It reads ``action`` (``[N]`` int64) and writes
    ``observation`` (``[N, *S]``), ``reward`` (``[N, 1]``, what to learn from), ``done``, ``terminated`` and
    ``truncated`` (``[N, 1]``). Where it resets what was only a lost life, the game goes on.

    Args:
        name: what run directories and titles call it.
        n_actions: the size of the action set.
        observation_shape: ``S``.
        observation_dtype: float32, or uint8 for bytes.
        frame_skip: emulator frames per environment step.
        frame_stack: where above 1, an observation is that many frames, ``[frame_stack, *F]``, oldest first:
            one of each of the last steps, and zeros from before the game began.
        num_envs: N, the number of environments.
        seed: of the sequences from which the games draw theirs.

    Raises:
        SettingError: ``num_envs`` is not positive or ``seed`` is negative.
    """

    restorable = False
    """Whether ``state_dict`` and ``load_state_dict`` continue every game where it was."""

    max_steps: int | None = None
    """The time limit of a game, in environment steps; None where it has none, or none that is known."""

    played_bytes = 0
    """Memory that its games take only once they are played, in all processes."""

    observation_scaling: Scaling | None = None
    """How :class:`sqn_rl.MLP` makes inputs of observations; None: bytes as ``(x − 128)/128``, others as x."""

    _has_frame_skip = True  # the games skip frames themselves; else TorchRL would add a skip of its own

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
        require(num_envs >= 1, "num_envs", num_envs, "a positive integer")
        require(seed >= 0, "seed", seed, "a non-negative integer")
        super().__init__(device="cpu", batch_size=(num_envs,))
        self.name, self.num_envs, self.n_actions = name, num_envs, n_actions
        self.frame_skip, self.frame_stack = frame_skip, frame_stack
        self.observation_shape, self.observation_dtype = observation_shape, observation_dtype
        self._now = Now(torch.zeros(num_envs, *observation_shape, dtype=observation_dtype))
        self._set_seed(seed)

        flag = Categorical(2, shape=(num_envs, 1), dtype=torch.bool)
        observation = Unbounded(shape=(num_envs, *observation_shape), dtype=observation_dtype)
        self.observation_spec = Composite(observation=observation, shape=(num_envs,))
        self.action_spec = Categorical(n_actions, shape=(num_envs,), dtype=torch.int64)
        self.reward_spec = Unbounded(shape=(num_envs, 1))
        self.done_spec = Composite(done=flag, terminated=flag, truncated=flag, shape=(num_envs,))

    def begin(self, rows: Sequence[int] | None = None) -> Tensor:
        """Start every game anew, or only ``rows``. Returns what all of them show, ``[N, *S]``."""
        with self._blamed():
            self._start(range(self.num_envs) if rows is None else rows)
        return self._now.observation

    @abstractmethod
    def restart(self, rows: Sequence[int]) -> Tensor:
        """Start the games ``rows`` anew, wherever they are, and leave the others alone.

        A game takes its seed from ``_seeds``, and leaves None there; where None is, it goes on drawing.

        Returns:
            Their first observations, ``[len(rows), *S]``.
        """

    @abstractmethod
    def advance(self, action_N: Tensor) -> Step:
        """Play one action in every game, and start anew those that ended.

        What is returned is never written to again. If no game ended, ``observation`` and ``next_observation``
        are one tensor.

        Args:
            action_N: ``[N]`` int64.
        """

    def send(self, action_N: Tensor) -> None:
        """Have one action played in every game; :meth:`receive` gives the answer, and comes next.

        Where the games are played elsewhere, the caller may do something else meanwhile. Here nothing is
        played before it is asked for.
        """
        self._now.sent = action_N
        self._now.steps += 1

    def receive(self) -> Step:
        """What ``advance`` gives, for the actions that were sent.

        Raises:
            EnvError: the environment raised, or a shape or dtype is not what it should be.
            NumericsError: an observation or a reward is NaN or infinite.
        """
        with self._blamed():
            step = self.advance(self._now.sent)
            require_columns(step, self._now.observation)
            for name in ("next_observation", "observation", "reward"):
                require_finite(name, getattr(step, name).numpy(), self._where)
        return step

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Where every game is, between two steps: tensors, numbers and lists.

        Raises:
            RestoreError: it cannot be said.
        """
        raise RestoreError(f"{self.name}: {type(self).__name__} cannot save where its games are")

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> Tensor:
        """Bring every game to where it was when ``state_dict`` was made, by an environment made like this.

        Returns:
            The observations there, ``[N, *S]``.

        Raises:
            RestoreError: it does not get there. ``begin`` starts new games, as ever.
        """
        raise RestoreError(f"{self.name}: {type(self).__name__} cannot bring its games back")

    # --- what a person sees -------------------------------------------------------------------------------

    @property
    def action_names(self) -> list[str]:
        """What the actions are called: their numbers, where nobody says more."""
        return [str(action) for action in range(self.n_actions)]

    def show(self) -> None:
        """Be ready for :meth:`screen`, which may make steps slower; to be called before the games begin."""

    def screen(self) -> np.ndarray | None:
        """Game 0 as a person sees it now, ``[H, W, 3]`` uint8; None where there is nothing to see."""
        return None

    # --- seeds, and whom to blame --------------------------------------------------------------------------

    def _set_seed(self, seed: int | None) -> None:
        self._entropy = np.random.SeedSequence(seed).entropy
        self._drawn = [0] * self.num_envs
        self._seeds: list[int | None] = [None] * self.num_envs
        self._begun = self._goes_on = torch.zeros(self.num_envs, dtype=torch.bool)

    def _where(self, i: int | None = None) -> str:
        """Which environment and game this is, and which step, for an error message."""
        return f"{self.name}, {'' if i is None else f'game {i}, '}step {self._now.steps}"

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Say of whatever is raised inside that it was the environment."""
        try:
            yield
        except SqnError:
            raise
        except (Exception, SystemExit) as error:
            raise EnvError(self._where(), blame(error)) from error

    def _draw_seed(self, i: int) -> None:
        """Have game ``i`` seeded at its next start, with the next of its own sequence."""
        sequence = np.random.SeedSequence(self._entropy, spawn_key=(i, self._drawn[i]))
        self._seeds[i] = int(sequence.generate_state(1)[0]) % 2**31  # many environments take 31 bits
        self._drawn[i] += 1

    def _start(self, rows: Sequence[int]) -> None:
        """Seed these games and start them anew; what the others show stays."""
        for i in rows:
            if self._seeds[i] is None:
                self._draw_seed(i)
        observation = self._now.observation.clone()
        observation[list(rows)] = self.restart(rows)
        self._now.observation = observation

    # --- TorchRL's side: what ``advance`` has started anew is kept until a reset asks for it ---------------

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        step = self.advance(tensordict["action"])
        self._now.observation = step.observation
        self._begun, self._goes_on = step.ended, step.terminated & ~step.ended
        return self._tensordict(step.next_observation, step.terminated, step.truncated, reward=step.reward)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        which = None if tensordict is None else tensordict.get("_reset", None)
        if which is None:
            which_N, anew_N = torch.ones_like(self._begun), ~self._begun
        else:
            which_N = which.reshape(-1)
            anew_N = which_N & ~self._begun & ~self._goes_on
        if rows := anew_N.nonzero().flatten().tolist():
            self._start(rows)
        self._begun, self._goes_on = self._begun & ~which_N, self._goes_on & ~which_N
        no = torch.zeros_like(self._begun)
        return self._tensordict(self._now.observation, no, no)

    def _tensordict(
        self, observation: Tensor, terminated: Tensor, truncated: Tensor, **more: Tensor
    ) -> TensorDict:
        columns = {"terminated": terminated, "truncated": truncated, "done": terminated | truncated, **more}
        columns = {key: column.unsqueeze(-1) for key, column in columns.items()}
        return TensorDict({"observation": observation, **columns}, self.batch_size, device=self.device)
