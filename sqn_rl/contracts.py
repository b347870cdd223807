"""What the part in a slot answers: all that the loop and the other parts know of it.

A class that answers this fills the slot; there is nothing to inherit from.

Legend: B states or transitions, N environments or networks, A actions; ``*S`` the shape of an observation.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from sqn_rl.data import Batch, Step


class QNetwork(Protocol):
    """``q_net``."""

    @property
    def in_keys(self) -> Sequence[Any]:
        """The observation's key, as a TensorDict module."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """S."""

    def values(self, observation: Tensor) -> Tensor:
        """``Q_i(s, ·)`` of every network. ``[B, *S]`` → ``[N, B, A]``, reward units."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer moves."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of every module."""


class Temperature(Protocol):
    """``temperature``. One with a method ``anneal(env_steps)`` is told how far the run is, as is any part."""

    @property
    def alpha(self) -> Tensor:
        """α, scalar, reward units."""

    @property
    def target_entropy(self) -> float | None:
        """H̄ in nats; None where nothing is aimed at."""

    @property
    def lr(self) -> float:
        """The learning rate of its parameters; not asked of one that has none."""

    def loss(self, entropy_B: Tensor) -> Tensor:
        """L_α, from the policy's entropy, ``[B]`` nats. → scalar."""

    def refresh(self) -> None:
        """Called after the optimizer's step."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer moves; may be none."""


class Actor(Protocol):
    """``actor``."""

    @property
    def device(self) -> torch.device:
        """Where it computes, and where a generator for it must live."""

    def act(
        self, observation: Tensor, *, greedy: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """An action for each observation, ``[B, *S]`` → ``[B]`` int64."""


class Terms(Protocol):
    """What a loss makes of a batch."""

    @property
    def loss_q(self) -> Tensor:
        """L_Q, scalar, with gradient."""

    @property
    def loss_alpha(self) -> Tensor:
        """L_α, scalar, with gradient."""

    @property
    def td_error(self) -> Tensor:
        """δ_i, ``[N, B]``."""

    @property
    def q(self) -> Tensor:
        """``Q_i(s, ·)``, ``[N, B, A]``."""

    @property
    def log_pi(self) -> Tensor:
        """Of the policy, log π(·|s), ``[B, A]``."""


class Loss(Protocol):
    """``loss``."""

    @property
    def q_net(self) -> QNetwork:
        """The online networks."""

    @property
    def target_q_net(self) -> QNetwork:
        """Their target copies."""

    @property
    def temperature(self) -> Temperature:
        """α."""

    def compute(self, batch: Batch) -> Terms:
        """The losses of one batch."""

    def state_dict(self) -> dict[str, Any]:
        """All that is learned, and its target copies: what a checkpoint keeps."""


class TargetUpdate(Protocol):
    """``target_update``."""

    def step(self) -> None:
        """Called after every update."""


class Replay(Protocol):
    """``replay``."""

    def cut(self) -> None:
        """Experience starts anew: what comes next does not follow from what came last."""

    def extend(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step of every environment: ``[N, *S]``, ``[N]``, and their answer."""

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch."""
