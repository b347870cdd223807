"""Let an actor play in environments, and hold the memory that recurrent networks have of each episode."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import WiringError
from sqn_rl.parts.memory import Memory
from sqn_rl.protocols import Actor, OffPolicy, Recording
from sqn_rl.types import Step


@runtime_checkable
class RecurrentActor(Protocol):
    """An actor with recurrent networks; the caller holds their state."""

    state_size: int
    """W, the size of the state; 0: the networks are not recurrent."""

    def act_from(self, observation: Tensor, memory: Memory, **options: Any) -> tuple[Tensor, Tensor]:
        """Actions, ``[N]`` int64, and the states after them, ``[N, W]``; options are those of ``act``."""

    def mean_scores_from(self, observation: Tensor, memory: Memory) -> Tensor:
        """The scores of the actions, with the mean weights, ``[N, *S]`` → ``[N, A]``."""


class HasActions(Protocol):
    """Environments with A actions."""

    n_actions: int
    """A."""
    num_envs: int
    """N."""

    @property
    def action_mask(self) -> Tensor | None:
        """The actions allowed now, ``[N, A]`` bool; None if all are, always."""


def n_actions_if_recorded(env: HasActions, returns: object) -> int | None:
    """A :class:`Player`'s ``n_actions``: None unless the returns read log μ."""
    return env.n_actions if isinstance(returns, OffPolicy) and returns.reads_log_mu else None


def random_actions(env: HasActions, generator: torch.Generator) -> Tensor:
    """Uniformly random actions among those allowed, ``[N]`` int64."""
    if (mask_NA := env.action_mask) is not None:
        return F.draw(F.masked(torch.zeros(mask_NA.shape), mask_NA), generator)
    return torch.randint(env.n_actions, (env.num_envs,), generator=generator)


class Player:
    """Acts in N environments and holds the memory of recurrent networks, if there are any.

    Call :meth:`act`, then :meth:`record` with the actions taken and their result; and :meth:`begin` for
    environments whose episodes are reset from outside.

    Args:
        actor: acts; its weights may change between steps.
        num_envs: N.
        n_actions: A, to add log μ of the actions taken to the steps; None: do not add it.

    Raises:
        WiringError: the actor does not know log μ.
    """

    def __init__(self, actor: Actor, num_envs: int, n_actions: int | None = None) -> None:
        if n_actions is not None and not isinstance(actor, Recording):
            problem = f"Retrace needs an actor with `act_recorded`, which {type(actor).__name__} lacks"
            raise WiringError("returns", f"returns: {problem}; choose returns=tree_backup", "actor")
        self._recording: Any = None if n_actions is None else actor
        self._n_actions = n_actions
        self._log_mu: Tensor | None = None
        self.actor, self._num_envs = actor, num_envs
        is_recurrent = isinstance(actor, RecurrentActor) and actor.state_size > 0
        # mypy does not see that the condition includes the type
        self._recurrent: RecurrentActor | None = actor if is_recurrent else None  # type: ignore[assignment]
        self.memory: Memory | None = None
        """The memory before the next step; None if the actor has none."""
        self._state: Tensor | None = None
        self.begin()

    @property
    def is_recurrent(self) -> bool:
        """Whether the actor's networks are recurrent."""
        return self._recurrent is not None

    def begin(self, rows: Sequence[int] | None = None) -> None:
        """Begin new episodes in these environments, or in all."""
        if self._recurrent is None:
            return
        empty = Memory.empty(self._num_envs, self._recurrent.state_size)
        if rows is None or self.memory is None:
            self.memory = empty
            return
        begins = torch.zeros(self._num_envs, dtype=torch.bool)
        begins[[*rows]] = True
        self.memory = self.memory.after(*self.memory, begins)

    def act(self, observation: Tensor, **options: Any) -> Tensor:
        """An action for each environment, ``[N, *S]`` → ``[N]``; options are those of the actor's ``act``."""
        if self._recording is not None:
            action, self._log_mu = self._recording.act_recorded(observation, **options)
            return action
        if self._recurrent is None or self.memory is None:
            return self.actor.act(observation, **options)
        action, state = self._recurrent.act_from(observation, self.memory, **options)
        self._state = state.cpu()
        return action

    def scores(self, observation: Tensor) -> Tensor | None:
        """The scores by which it acts, with the mean weights, ``[N, A]``; None if the actor has no memory."""
        if self._recurrent is None or self.memory is None:
            return None
        return self._recurrent.mean_scores_from(observation, self.memory)

    def record(self, action: Tensor, step: Step) -> Step:
        """Record the actions taken, in the warm-up perhaps not those of :meth:`act`, and their result.

        Returns:
            The step, with the memory before it and with log μ. If :meth:`act` was not called since the last
            step, the actions were uniformly random.
        """
        if self._n_actions is not None:
            log_mu, self._log_mu = self._log_mu, None
            step = step._replace(log_mu=self._uniform(step) if log_mu is None else log_mu.cpu())
        if self.memory is None or self._state is None:
            return step
        before = self.memory.packed()
        self.update_memory(action, step.reward, step.ended)
        return step._replace(memory=before)

    def _uniform(self, step: Step) -> Tensor:
        """The log μ of uniformly random actions, ``[N]``."""
        if step.action_mask is not None:
            return -step.action_mask.sum(-1).log()
        return torch.full((self._num_envs,), -math.log(self._n_actions or 1))

    def update_memory(self, action: Tensor, reward: Tensor, ended: Tensor) -> None:
        """Advance the memory by one step: its actions, rewards, and which episodes ended, ``[N]`` each."""
        if self.memory is not None and self._state is not None:
            self.memory = self.memory.after(self._state, action.cpu(), reward, ended)

    def state_dict(self) -> dict[str, Any]:
        """The memory, between two steps."""
        return {} if self.memory is None else self.memory._asdict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; an empty one, of a run without memory, changes nothing."""
        if self.memory is not None and state:
            self.memory = Memory(**state)
