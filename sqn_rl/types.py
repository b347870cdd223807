"""What passes between the folders: an environment step, a batch, a loss's terms, counters, a state's rows.

Legend: N environments, in :class:`Terms` networks; B sampled transitions, A actions; ``*S`` is the shape of
one observation.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

from torch import Tensor

Backup = Callable[[Tensor], Tensor]
"""From the values of the next state, ``[N, B, A]``, to what it is worth, ``[B]``."""


class Step(NamedTuple):
    """What N environments answer to N actions."""

    observation: Tensor
    """``[N, *S]``: where the next action is taken; of a new episode where ``ended``."""
    next_observation: Tensor
    """``[N, *S]``: the true successor of the action, never a reset observation."""
    reward: Tensor
    """``[N]`` float32: what the agent learns from (clipped, if the environment says so)."""
    terminated: Tensor
    """``[N]`` bool: the successor has no future; its value is not bootstrapped."""
    truncated: Tensor
    """``[N]`` bool: cut short by a time limit; the successor's value is bootstrapped."""
    ended: Tensor
    """``[N]`` bool: the game is over and was reset. Differs from ``terminated | truncated`` only where a
    lost life counts as terminated for learning while the game goes on."""
    score: Tensor
    """``[N]`` float64: the reward as the game gave it, from which full-game returns are summed."""


class Batch(NamedTuple):
    """B transitions from the replay, with what the return estimator made of them."""

    observation: Tensor
    """``[B, *S]``."""
    action: Tensor
    """``[B]`` int64."""
    reward: Tensor
    """``[B]`` float32: ``Σ_{k<m} γ^k r_{t+k}``; with one-step returns the reward itself."""
    next_observation: Tensor
    """``[B, *S]``: the observation after those m steps."""
    terminated: Tensor
    """``[B]`` bool: that observation is terminal."""
    discount: Tensor
    """``[B]`` float32: ``γ^m``, before any masking by ``terminated``."""
    place: Tensor
    """``[B]`` int64: the transitions' places in the replay."""
    weight: Tensor | None = None
    """``[B]`` float32: importance weights of prioritized replay; None where each counts as 1."""

    def split(self, size: int) -> "Iterator[Batch]":
        """Batches of so many transitions each, in order, without copying."""
        columns = (repeat(None) if column is None else column.split(size) for column in self)
        return map(Batch, *columns)


class Terms(NamedTuple):
    """What a loss makes of a batch: what to descend on, and what it was made of, for logs and priorities."""

    losses: Mapping[str, Tensor]
    """Scalars with gradient, by the name that logs show; the update descends on their sum."""
    td_error: Tensor
    """δ_i of every network, ``[N, B]``; with a distributional head of the means."""
    q: Tensor
    """``Q_i(s, ·)``, ``[N, B, A]``, reward units."""
    log_pi: Tensor | None
    """log π(·|s) of the policy, ``[B, A]``; None where there is no temperature, and so no such policy."""


@dataclass
class Counters:
    """What the loop has done so far."""

    env_steps: int = 0
    """Agent decisions, over all environments."""
    frames: int = 0
    """Environment steps × frame skip."""
    updates: int = 0
    """Optimizer steps."""
    episodes: int = 0
    """Full games ended."""
    wall_s: float = 0.0
    """Seconds in the loop, without evaluations and checkpoints."""

    def row(self) -> dict[str, Any]:
        """For a log."""
        return {**vars(self), "wall_s": round(self.wall_s, 3)}


Piece = tuple[int, int, Mapping[str, Tensor]]
"""Consecutive rows: the number of the first, one past that of the last, and what they hold."""

PIECE_BYTES = 2**26
"""The most that one piece takes."""


@dataclass(frozen=True)
class Rows:
    """In a state a long table that grows at its end: who writes it down need not repeat what was there.

    Iterated over, it gives all its pieces, oldest first.
    """

    begin: int
    """The number of the first row that still counts; they are counted from the first ever."""
    end: int
    """One past that of the newest."""
    step: int
    """How many are read at once."""
    read: Callable[[int, int], Mapping[str, Tensor]]
    """What the rows from one number to another hold."""

    def since(self, row: int) -> Iterator[Piece]:
        """The pieces from this row on."""
        for begin in range(max(self.begin, row), self.end, self.step):
            end = min(begin + self.step, self.end)
            yield begin, end, self.read(begin, end)

    def __iter__(self) -> Iterator[Piece]:
        return self.since(self.begin)
