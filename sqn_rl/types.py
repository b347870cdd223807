"""Types passed between environment, replay, loss and loop: a step, a batch, a loss's terms, counters, rows.

Legend: N environments, in :class:`Terms` networks; B sampled transitions, A actions, M numbers of a memory;
``*S`` is the shape of one observation.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Backup = Callable[[Tensor], Tensor]
"""Maps action values of the next state, ``[N, B, A]``, to its state value, ``[B]``."""


def dtype_name(dtype: object) -> str:
    """The name of a dtype of PyTorch or NumPy, or of a layout: ``float32``."""
    return str(dtype).removeprefix("torch.")


class Step(NamedTuple):
    """The result of one step of N environments."""

    observation: Tensor
    """``[N, *S]``: the observation for the next action; where ``ended``, the first of a new episode."""
    next_observation: Tensor
    """``[N, *S]``: the true next observation of the transition, never a reset observation."""
    reward: Tensor
    """``[N]`` float32: the reward to learn from (clipped, if the environment is set to clip)."""
    terminated: Tensor
    """``[N]`` bool: the next state is terminal; its value is not bootstrapped."""
    truncated: Tensor
    """``[N]`` bool: cut short by a time limit; the next state's value is bootstrapped."""
    ended: Tensor
    """``[N]`` bool: the episode ended and the environment was reset. Differs from ``terminated | truncated``
    only where a lost life counts as terminated for learning while the episode continues."""
    score: Tensor
    """``[N]`` float64: the unclipped reward, from which episode returns are summed."""
    action_mask: Tensor | None = None
    """``[N, A]`` bool: the actions that were allowed when this step's was chosen; None if all are, always."""
    next_action_mask: Tensor | None = None
    """``[N, A]`` bool: those allowed at ``next_observation``; all where that is terminal."""
    log_mu: Tensor | None = None
    """``[N]`` float32: log μ(a|s), the log-probability of the action taken; None if it was not recorded."""
    memory: Tensor | None = None
    """``[N, M]`` float32: the actor's memory when it acted; None if it has none."""


class Path(NamedTuple):
    """The T steps that begin with each of B transitions, for targets that are computed backwards along them.

    After its end a path repeats its last step; ``trace`` is 0 there.
    """

    next_observation: Tensor
    """``[B, T, *S]``: the true next observation of each step."""
    next_action: Tensor
    """``[B, T]`` int64: the action taken there; where ``trace`` is 0, any."""
    reward: Tensor
    """``[B, T]`` float32: the reward of each step."""
    discount: Tensor
    """``[B, T]`` float32: ``γ (1 − d)`` of each step: 0 where it terminated."""
    trace: Tensor
    """``[B, T]`` float32: λ where the path continues after the step, else 0."""
    next_action_mask: Tensor | None = None
    """``[B, T, A]`` bool: the actions allowed at ``next_observation``; None if all are, always."""
    next_log_mu: Tensor | None = None
    """``[B, T]`` float32: log μ of ``next_action``, for Retrace; None: a tree backup."""

    def split(self, size: int) -> "Iterator[Path]":
        """Split into paths of ``size`` transitions, in order, without copying."""
        return map(Path, *(repeat(None) if column is None else column.split(size) for column in self))

    def columns(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: column for name, column in self._asdict().items() if column is not None}


class Sequences(NamedTuple):
    """Q sequences of T observations, each within an episode, for recurrent networks.

    After its end a sequence repeats its last observation. ``W`` is the size of the networks' state.
    """

    observation: Tensor
    """``[Q, T, *S]``."""
    action: Tensor
    """``[Q, T]`` int64: the action before each observation; -1: it is the first of its episode."""
    reward: Tensor
    """``[Q, T]`` float32: the reward before each, 0 if it is the first."""
    state: Tensor
    """``[Q, W]`` float32: the networks' state before the first observation."""
    burn_in: Tensor
    """``[Q]`` int64: steps that are not learned from; the same number in some sequences, 0 in the others."""


class Batch(NamedTuple):
    """B transitions from the replay, with the returns computed for them."""

    observation: Tensor
    """``[B, *S]``; with ``sequences``, ``[B]`` int64: ``q T + t`` for step t of sequence q. The same
    holds for ``next_observation``."""
    action: Tensor
    """``[B]`` int64."""
    reward: Tensor
    """``[B]`` float32: ``Σ_{k<m} γ^k r_{t+k}``; with one-step returns the reward itself."""
    next_observation: Tensor
    """``[B, *S]``: the observation after those m steps."""
    terminated: Tensor
    """``[B]`` bool: that observation is terminal."""
    discount: Tensor
    """``[B]`` float32: ``γ^m``, not yet masked by ``terminated``."""
    place: Tensor
    """``[B]`` int64: the transitions' indices in the replay."""
    weight: Tensor | None = None
    """``[B]`` float32: importance weights of prioritized replay; None: all are 1."""
    path: Path | None = None
    """The steps from each transition on, if the returns need them; the columns above are the first step's."""
    action_mask: Tensor | None = None
    """``[B, A]`` bool: the actions allowed at ``observation``; None if all are, always."""
    next_action_mask: Tensor | None = None
    """``[B, A]`` bool: those allowed at ``next_observation``; all where that is terminal."""
    sequences: Sequences | None = None
    """The sequences that have these transitions; ``place`` is then where each one's sequence begins."""

    def split(self, size: int) -> "Iterator[Batch]":
        """Split into batches of ``size`` transitions, in order, without copying; not one with sequences."""
        *columns, _ = self
        return map(Batch, *(repeat(None) if column is None else column.split(size) for column in columns))

    def columns(self) -> dict[str, Tensor]:
        """All tensors by name; those of paths and sequences as ``path.reward`` and ``sequences.reward``."""
        own = {name: column for name, column in self._asdict().items() if isinstance(column, Tensor)}
        path = {} if self.path is None else self.path.columns()
        sequences = {} if self.sequences is None else self.sequences._asdict()
        own |= {f"path.{name}": column for name, column in path.items()}
        return own | {f"sequences.{name}": column for name, column in sequences.items()}

    @classmethod
    def of(cls, columns: Mapping[str, Tensor]) -> "Batch":
        """The batch with these :meth:`columns`.

        Raises:
            TypeError: a column is missing or unknown.
        """
        parts: dict[str, dict[str, Tensor]] = {"": {}, "path": {}, "sequences": {}}
        for key, column in columns.items():
            part, _, name = key.rpartition(".")
            parts.setdefault(part, {})[name] = column
        own, path, sequences = (parts.pop(name) for name in ("", "path", "sequences"))
        if parts:
            raise TypeError(f"unknown columns: {', '.join(parts)}")
        return cls(
            **own,
            path=Path(**path) if path else None,
            sequences=Sequences(**sequences) if sequences else None,
        )


BATCH_KEYS = tuple(f"batch.{name}" for name in Batch._fields[:6])
"""The columns of a batch that a loss reads, as the wiring names them."""

MASK_KEYS = ("batch.action_mask", "batch.next_action_mask")
"""Further columns that a loss reads if there are action masks."""


class Terms(NamedTuple):
    """The losses of a batch, and the values that logs and priorities need."""

    losses: Mapping[str, Tensor]
    """Scalars with gradient, by the name that logs show; the update descends on their sum."""
    td_error: Tensor
    """δ_i of every network, ``[N, B]``; with a distributional head, the error of the means;
    with rescaled values, of h of the values."""
    q: Tensor
    """``Q_i(s, ·)``, ``[N, B, A]``, reward units; excluded actions have the mean of the others."""
    log_pi: Tensor | None
    """log π(·|s) of the policy, ``[B, A]``; None without a temperature."""


@dataclass
class Counters:
    """Counters of the training loop."""

    env_steps: int = 0
    """Actions taken, over all environments."""
    frames: int = 0
    """Environment steps × frame skip."""
    updates: int = 0
    """Optimizer steps."""
    episodes: int = 0
    """Episodes ended."""
    wall_s: float = 0.0
    """Seconds in the loop, without evaluations, checkpoints and compiling."""

    def row(self) -> dict[str, Any]:
        """The counters as a row of a log."""
        return {**vars(self), "wall_s": round(self.wall_s, 3)}


class Request(NamedTuple):
    """A request to an actor: collect a chunk with some weights."""

    serial: int
    """The chunk's number; every actor counts from 0."""
    version: int
    """Number of updates made before these weights."""
    env_steps: int
    """Environment steps before the chunk, over all actors, if all are stored in the order of the requests."""
    random: bool
    """Whether actions are uniformly random, as in the warm-up."""
    priorities: bool
    """Whether the chunk has initial priorities."""


class ChunkSummary(NamedTuple):
    """Scores, episode ends and notes of a chunk that may be stored elsewhere: K rows, E environments."""

    serial: int
    version: int
    begins: bool
    """Whether new episodes begin with it, so that it does not continue the chunk before."""
    score: np.ndarray
    """``[K, E]`` float64: the unclipped rewards."""
    ended: np.ndarray
    """``[K, E]`` bool: the episode ended."""
    masked: bool
    """Whether there are action masks."""
    note: str
    """A note for the user; empty if there is none."""


class Chunk(NamedTuple):
    """K rows of an actor's E environments, as arrays; ``*F`` is the shape of one frame."""

    serial: int
    version: int
    begins: bool
    """Whether new episodes begin with it, so that it does not continue the chunk before."""
    observation: np.ndarray
    """``[K + 1, E, *F]``: the observation for each action, and the one after the last."""
    action: np.ndarray
    """``[K, E]`` int64."""
    columns: Mapping[str, np.ndarray]
    """The other columns of :class:`Step`, ``[K, E, ...]``."""
    final: np.ndarray
    """``[L, *F]``: the last observations of the L episodes that ended, by row and environment."""
    priority: np.ndarray | None
    """``[n, K, E]``: the TD errors of the n networks that acted."""
    note: str = ""
    """A note for the user; empty if there is none."""

    @property
    def summary(self) -> ChunkSummary:
        """What the learner needs of it, besides what its replay stores."""
        score, ended, masked = self.columns["score"], self.columns["ended"], "action_mask" in self.columns
        return ChunkSummary(self.serial, self.version, self.begins, score, ended, masked, self.note)

    def steps(self, *, stacked: bool) -> "Iterator[tuple[Tensor, Tensor, Step]]":
        """The arguments with which a replay stores each row; with stacks, stacks of only the newest frame.

        The tensors are copies.
        """
        columns = {name: torch.tensor(column) for name, column in self.columns.items()}
        observation, action = torch.tensor(self.observation), torch.tensor(self.action)
        next_observation = observation[1:].clone()
        next_observation[columns["ended"]] = torch.tensor(self.final)
        if stacked:
            observation, next_observation = observation.unsqueeze(2), next_observation.unsqueeze(2)
        for row in range(len(action)):
            rest = {name: column[row] for name, column in columns.items()}
            step = Step(observation=observation[row + 1], next_observation=next_observation[row], **rest)
            yield observation[row], action[row], step


Piece = tuple[int, int, Mapping[str, Tensor]]
"""Consecutive rows: the number of the first, one past that of the last, and their columns."""

PIECE_BYTES = 2**26
"""Maximum size of one piece, in bytes."""


@dataclass(frozen=True)
class Rows:
    """A long table in a state dict that grows at its end, so that a checkpoint writes only the new rows.

    Iterating gives all its pieces, oldest first. Rows are numbered from the first ever appended.
    """

    begin: int
    """The number of the oldest row that is still needed."""
    end: int
    """One past the number of the newest row."""
    step: int
    """The number of rows in one piece."""
    read: Callable[[int, int], Mapping[str, Tensor]]
    """Reads the columns of the rows ``[begin, end)``."""
    table: int = 0
    """The number of the table, if a state has several."""

    def since(self, row: int) -> Iterator[Piece]:
        """The pieces from ``row`` on."""
        for begin in range(max(self.begin, row), self.end, self.step):
            end = min(begin + self.step, self.end)
            yield begin, end, self.read(begin, end)

    def __iter__(self) -> Iterator[Piece]:
        return self.since(self.begin)
