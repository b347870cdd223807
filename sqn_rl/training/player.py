"""Who plays: an actor, and for each of its environments what it remembers of the episode."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sqn_rl.parts.memory import Memory
from sqn_rl.protocols import Actor
from sqn_rl.types import Step


@runtime_checkable
class Remembering(Protocol):
    """An actor whose networks are recurrent: it has no state itself: it is given one and returns the next."""

    state_size: int
    """W, numbers of a state."""

    def act_from(self, observation: Tensor, memory: Memory, **options: Any) -> tuple[Tensor, Tensor]:
        """Actions, ``[B]`` int64, and the states after them, ``[B, W]``; options are those of ``act``."""


class Player:
    """An actor in N environments. One that remembers nothing acts as it does alone.

    Whoever plays calls :meth:`act`, then :meth:`saw` with what was done and its result; and :meth:`begin` for
    environments whose episodes are reset from outside.

    Args:
        actor: acts; its weights may change between steps.
        num_envs: N.
    """

    def __init__(self, actor: Actor, num_envs: int) -> None:
        self.actor, self._num_envs = actor, num_envs
        self._remembering = actor if isinstance(actor, Remembering) else None
        self.memory: Memory | None = None
        """Before the next step; None: the actor has none."""
        self._state: Tensor | None = None
        self.begin()

    def begin(self, rows: Sequence[int] | None = None) -> None:
        """New episodes begin in these environments; None: in all."""
        if self._remembering is None:
            return
        empty = Memory.empty(self._num_envs, self._remembering.state_size)
        if rows is None or self.memory is None:
            self.memory = empty
            return
        begins = torch.zeros(self._num_envs, dtype=torch.bool)
        begins[[*rows]] = True
        self.memory = self.memory.after(*self.memory, begins)

    def act(self, observation: Tensor, **options: Any) -> Tensor:
        """An action for each environment, ``[N, *S]`` → ``[N]``; options are those of the actor's ``act``."""
        if self._remembering is None or self.memory is None:
            return self.actor.act(observation, **options)
        action, self._state = self._remembering.act_from(observation, self.memory, **options)
        return action

    def saw(self, action: Tensor, step: Step) -> None:
        """The actions were taken, perhaps others than :meth:`act` gave (a warm-up); this is their result."""
        if self.memory is not None and self._state is not None:
            self.memory = self.memory.after(self._state, action, step.reward, step.ended)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, between two steps."""
        return {} if self.memory is None else self.memory._asdict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        if self.memory is not None:
            self.memory = Memory(**state)
