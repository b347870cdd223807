"""Who plays: an actor, and for each of its environments what it remembers of the episode."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import WiringError
from sqn_rl.parts.memory import Memory
from sqn_rl.protocols import Actor
from sqn_rl.types import Step


@runtime_checkable
class Remembering(Protocol):
    """An actor whose networks are recurrent: it has no state itself: it is given one and returns the next."""

    state_size: int
    """W, numbers of a state; 0: this one's networks are not recurrent."""

    def act_from(self, observation: Tensor, memory: Memory, **options: Any) -> tuple[Tensor, Tensor]:
        """Actions, ``[N]`` int64, and the states after them, ``[N, W]``; options are those of ``act``."""

    def mean_scores_from(self, observation: Tensor, memory: Memory) -> Tensor:
        """The scores of the actions, with the mean weights, ``[N, *S]`` → ``[N, A]``."""


class Actions(Protocol):
    """Environments with A actions."""

    n_actions: int
    """A."""
    num_envs: int
    """N."""

    @property
    def action_mask(self) -> Tensor | None:
        """The actions allowed now, ``[N, A]`` bool; None: always all are."""


@runtime_checkable
class Recording(Protocol):
    """An actor that knows with what probability it acts."""

    def act_recorded(self, observation: Tensor, *, action_mask: Any = None) -> tuple[Tensor, Tensor]:
        """Actions, ``[N]`` int64, and log μ of each, ``[N]`` float32."""


@runtime_checkable
class OffPolicy(Protocol):
    """Returns that read log μ of every action, to correct for the policy that acted."""

    reads_log_mu: bool


def recorded_actions(env: Actions, returns: object) -> int | None:
    """A :class:`Player`'s ``n_actions``: None unless the returns read log μ."""
    return env.n_actions if isinstance(returns, OffPolicy) and returns.reads_log_mu else None


def random_actions(env: Actions, generator: torch.Generator) -> Tensor:
    """Uniformly random, of the allowed actions: ``[N]`` int64."""
    if (mask_NA := env.action_mask) is not None:
        return F.draw(F.masked(torch.zeros(mask_NA.shape), mask_NA), generator)
    return torch.randint(env.n_actions, (env.num_envs,), generator=generator)


class Player:
    """An actor in N environments. One that remembers nothing acts as it does alone.

    Whoever plays calls :meth:`act`, then :meth:`saw` with what was done and its result; and :meth:`begin` for
    environments whose episodes are reset from outside.

    Args:
        actor: acts; its weights may change between steps.
        num_envs: N.
        n_actions: A; then the steps have log μ of the actions taken. None: they have not.

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
        remembers = isinstance(actor, Remembering) and actor.state_size > 0
        self._remembering: Remembering | None = actor if remembers else None  # type: ignore[assignment]
        self.memory: Memory | None = None
        """Before the next step; None: the actor has none."""
        self._state: Tensor | None = None
        self.begin()

    @property
    def remembers(self) -> bool:
        """Whether there is something to remember."""
        return self._remembering is not None

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
        if self._recording is not None:
            action, self._log_mu = self._recording.act_recorded(observation, **options)
            return action
        if self._remembering is None or self.memory is None:
            return self.actor.act(observation, **options)
        action, state = self._remembering.act_from(observation, self.memory, **options)
        self._state = state.cpu()
        return action

    def scores(self, observation: Tensor) -> Tensor | None:
        """The scores by which it acts here, with the mean weights, ``[N, A]``; None: it remembers nothing."""
        if self._remembering is None or self.memory is None:
            return None
        return self._remembering.mean_scores_from(observation, self.memory)

    def saw(self, action: Tensor, step: Step) -> Step:
        """The actions were taken, perhaps others than :meth:`act` gave (a warm-up); this is their result.

        Returns:
            The step, with what was remembered when :meth:`act` was called, and with log μ. Actions that
            were not asked for since the last step were uniformly random.
        """
        if self._n_actions is not None:
            log_mu, self._log_mu = self._log_mu, None
            step = step._replace(log_mu=self._uniform(step) if log_mu is None else log_mu.cpu())
        if self.memory is None or self._state is None:
            return step
        remembered = self.memory.packed()
        self.remember(action, step.reward, step.ended)
        return step._replace(memory=remembered)

    def _uniform(self, step: Step) -> Tensor:
        """The log μ of uniformly random actions, ``[N]``."""
        if step.action_mask is not None:
            return -step.action_mask.sum(-1).log()
        return torch.full((self._num_envs,), -math.log(self._n_actions or 1))

    def remember(self, action: Tensor, reward: Tensor, ended: Tensor) -> None:
        """The same, of the rewards and of which episodes ended, ``[N]`` each."""
        if self.memory is not None and self._state is not None:
            self.memory = self.memory.after(self._state, action.cpu(), reward, ended)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, between two steps."""
        return {} if self.memory is None else self.memory._asdict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; from none, as a run without memory has it, as it is."""
        if self.memory is not None and state:
            self.memory = Memory(**state)
