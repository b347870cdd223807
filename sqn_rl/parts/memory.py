"""The memory within an episode: the state of recurrent networks, the previous action and reward.

Legend: N environments, W numbers of a state, M = W + 2 numbers of a memory.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sqn_rl.types import Sequences


class Memory(NamedTuple):
    """What an actor remembers of earlier steps; where an episode begins, zeros, and -1 for the action."""

    state: Tensor
    """``[N, W]`` float32: the states of all networks, concatenated."""
    action: Tensor
    """``[N]`` int64: the previous action; -1: there is none."""
    reward: Tensor
    """``[N]`` float32: the previous reward."""

    @classmethod
    def empty(cls, rows: int, width: int) -> "Memory":
        """The memory of N episodes that begin."""
        action = torch.full((rows,), -1, dtype=torch.int64)
        zeros = torch.zeros(rows, width + 1, dtype=torch.float32)
        return cls(zeros[:, 1:], action, zeros[:, 0])

    def after(self, state: Tensor, action: Tensor, reward: Tensor, ended: Tensor) -> "Memory":
        """The memory before the next step: this state, action and reward; empty where the episode ended."""
        keeps = ~ended
        return Memory(
            state * keeps.unsqueeze(-1), action.where(keeps, torch.tensor(-1)), reward.where(keeps, 0.0)
        )

    def packed(self) -> Tensor:
        """The memory as a replay stores it, ``[N, M]`` float32, which is exact for actions below 2^24."""
        columns = (self.state, self.action.float().unsqueeze(-1), self.reward.unsqueeze(-1))
        return torch.cat(columns, -1)

    @classmethod
    def unpacked(cls, memory: Tensor) -> "Memory":
        """The reverse of :meth:`packed`."""
        state, action, reward = memory[:, :-2], memory[:, -2], memory[:, -1]
        return cls(state, action.to(torch.int64), reward)


@runtime_checkable
class Recurrent(Protocol):
    """A recurrent Q-network: its predictions depend on the earlier observations of the episode."""

    state_size: int
    """W; 0: it is not recurrent."""

    def recalling(self, sequences: Sequences) -> AbstractContextManager[Any]:
        """A context in which an observation is the index of a step in these sequences."""

    def remembering(self, observation: Tensor, memory: Memory) -> AbstractContextManager[Any]:
        """The same for one step of N episodes; yields its ``steps``, and ``after``, the states after them."""


@runtime_checkable
class StateSized(Protocol):
    """A Q-network, or an actor with one, that may be recurrent."""

    state_size: int


def state_size(part: object) -> int:
    """The size W of a part's state; 0 if it is not recurrent."""
    return part.state_size if isinstance(part, StateSized) else 0


@contextmanager
def recalling(sequences: Sequences | None, *q_nets: object) -> Iterator[None]:
    """A context in which these networks read the sequences of a batch, if it has any."""
    with ExitStack() as stack:
        if sequences is not None:
            for q_net in q_nets:
                if isinstance(q_net, Recurrent):
                    stack.enter_context(q_net.recalling(sequences))
        yield
