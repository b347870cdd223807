"""The beginnings of the sequences in a ring, and the memory stored there.

Legend: N environments, E of one lane, M numbers of a memory, as :meth:`sqn_rl.parts.memory.Memory.packed`
writes them; a transition's *place* is its index in the ring, and the *number* of a row counts from the first
of its lane.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sqn_rl.types import Step

FIRST, LATER = 1, 2
"""The beginnings of sequences: an episode's first step, where the memory is empty; and later ones."""


class SequenceStarts:
    """The beginnings of sequences, and the recurrent state stored there.

    A sequence begins at an episode's first step, where the memory is empty and not stored, and at every
    ``stride``-th step after it. At most one of these lies in ``stride`` consecutive rows of an environment,
    so such a block of rows has room for one memory.

    Args:
        num_envs: N.
        rows: the number of rows of the ring.
        stride: steps from one beginning to the next, at least 1.
        burn_in: steps of a sequence from which nothing is learned; at an episode's first step there are none.
        state_size: W = M − 2.
        device: device of the tensors.
    """

    eligible: Tensor
    """The places of beginnings from which there is something to learn since the newest row, ``[*]``."""

    def __init__(
        self, *, num_envs: int, rows: int, stride: int, burn_in: int, state_size: int, device: Any
    ) -> None:
        self.num_envs, self.stride, self.burn_in, self.state_size = num_envs, stride, burn_in, state_size
        self._places = rows * num_envs
        self._blocks = rows // stride + 2  # blocks that consecutive ``rows`` rows can touch
        self.age = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """Steps of each environment's episode so far."""
        self.kind = torch.zeros(self._places, dtype=torch.uint8, device=device)
        """By place, whether a sequence begins there: 0, :data:`FIRST` or :data:`LATER`."""
        self.memory = torch.empty(self._blocks * num_envs, state_size + 2, device=device)
        """The memories, by block of ``stride`` rows and environment; pages never written take no memory."""
        self.eligible = self.age[:0]

    @property
    def place_bytes(self) -> int:
        """Bytes of a place, rounded up."""
        return 1 + -(-self.memory[0].nbytes // self.stride)

    def append(self, row: slice, number: int, environments: slice, step: Step) -> None:
        """Record an appended row: its places, its number, its environments ``[E]``, and their results.

        Raises:
            ValueError: the step has no memory of this size.
        """
        if step.memory is None or step.memory.shape[-1] != self.state_size + 2:
            raise ValueError(f"a step without the memory of its actor, [{self.state_size + 2}] numbers each")
        age = self.age[environments]
        place = torch.arange(row.start, row.stop, device=age.device)
        later = self._is_start(age)
        self.kind[row] = (age == 0) * FIRST + later * LATER
        slot = self._slot(place, torch.tensor(number, device=age.device))
        self.memory[slot[later]] = step.memory.to(self.memory)[later]
        before = (place - self.burn_in * self.num_envs) % self._places
        self.eligible = torch.cat([place[age == 0], before[self._is_start(age - self.burn_in)]])
        age += 1
        age[step.ended.to(age.device)] = 0

    def cut(self, environments: Any) -> None:
        """Begin new episodes in these environments."""
        self.age[environments] = 0

    def at(self, place: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """The memory at beginnings, ``[Q, M]``, and the number of burn-in steps there, ``[Q]``.

        Args:
            place: the beginnings, ``[Q]``.
            number: the numbers of their rows, ``[Q]``.
        """
        empty = self.memory.new_zeros(self.state_size + 2)
        empty[-2] = -1  # the action before: none
        first = self.kind[place] == FIRST
        stored = self.memory.index_select(0, self._slot(place, number))
        return torch.where(first.unsqueeze(-1), empty, stored), self.burn_in * ~first

    def _is_start(self, age: Tensor) -> Tensor:
        """Whether a later sequence of an episode begins with the step of this age."""
        return (age > 0) & (age % self.stride == 0)

    def _slot(self, place: Tensor, number: Tensor) -> Tensor:
        """The index in :attr:`memory` for these places, in rows of these numbers."""
        return number // self.stride % self._blocks * self.num_envs + place % self.num_envs

    # --- checkpoints ----------------------------------------------------------------------------------------

    def read(self, place: Tensor, number: Tensor) -> dict[str, Tensor]:
        """The beginnings and memories at the places of whole rows, for :meth:`write`."""
        kind = self.kind[place]
        slot = self._slot(place, number)[kind == LATER]
        return {"start": kind, "memory": self.memory[slot]}

    def write(self, place: Tensor, number: Tensor, columns: Mapping[str, Tensor]) -> None:
        """Write back what :meth:`read` has read."""
        kind = columns["start"].to(self.kind)
        self.kind[place] = kind
        self.memory[self._slot(place, number)[kind == LATER]] = columns["memory"].to(self.memory)
