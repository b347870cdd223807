"""Interfaces of the slots: what the loop and other parts use of every part.

Legend: B states or transitions, N environments or networks, A actions; ``*S`` the shape of an observation.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from sqn_rl.types import Backup, Batch, Path, Step, Terms


class Distribution(Protocol):
    """How a head's predictions represent returns: :class:`~sqn_rl.parts.distributions.Distribution`."""

    def mean(self, prediction: Tensor) -> Tensor:
        """The action values, ``[N, B, A]``, reward units."""

    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Any:
        """The target that :meth:`loss` compares with."""

    def path_target(self, prediction: Tensor, backup: Backup, reward_BT: Tensor, path: Path) -> Any:
        """The same, computed backwards along paths, if the returns give them."""

    def loss(self, prediction: Tensor, action_B: Tensor, target: Any) -> tuple[Tensor, Tensor]:
        """The loss, with gradient, and δ of the actions taken: ``[N, B]`` each."""


class QNetwork(Protocol):
    """``q_net``, an ``nn.Module``."""

    @property
    def in_keys(self) -> Sequence[Any]:
        """The observation's key, as a TensorDict module."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """S."""

    @property
    def distribution(self) -> Distribution:
        """How its predictions represent returns."""

    def predict(self, observation: Tensor) -> Tensor:
        """Predictions of every network for every action. ``[B, *S]`` → ``[N, B, A]`` or ``[N, B, A, K]``."""

    def values(self, observation: Tensor) -> Tensor:
        """``Q_i(s, ·)``, the predictions' means. ``[B, *S]`` → ``[N, B, A]``, reward units."""

    def first(self, observation: Tensor) -> Tensor:
        """``Q_1(s, ·)`` alone, ``values(observation)[0]``. ``[B, *S]`` → ``[B, A]``."""

    modules: Callable[[], Iterator[nn.Module]]
    parameters: Callable[[], Iterator[nn.Parameter]]
    requires_grad_: Callable[..., Self]
    eval: Callable[[], Self]  # target copies, and what acts, are in eval mode


class Temperature(Protocol):
    """``temperature``, an ``nn.Module``."""

    @property
    def alpha(self) -> Tensor:
        """α, scalar, reward units."""

    @property
    def target_entropy(self) -> float | None:
        """H̄ in nats; None: there is no target entropy."""

    @property
    def lr(self) -> float:
        """The learning rate of its parameters; unused if there are none."""

    def loss(self, entropy_B: Tensor) -> Tensor:
        """L_α, from the policy's entropy, ``[B]`` nats. → scalar."""

    def refresh(self) -> None:
        """Called after the optimizer's step."""

    parameters: Callable[[], Iterator[nn.Parameter]]  # its learned parameters; may be none


class Actor(Protocol):
    """``actor``."""

    @property
    def device(self) -> torch.device:
        """Where it computes, and where a generator for it must live."""

    def act(
        self, observation: Tensor, *, greedy: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """An action for each observation, ``[B, *S]`` → ``[B]`` int64; ``action_mask=`` if there is one."""


class Loss(Protocol):
    """``loss``."""

    @property
    def q_net(self) -> QNetwork:
        """The online networks."""

    @property
    def target_q_net(self) -> QNetwork:
        """Their target copies."""

    @property
    def temperature(self) -> Temperature | None:
        """α, where there is one."""

    def compute(self, batch: Batch) -> Terms:
        """The losses of one batch."""

    parameters: Callable[[], Iterator[nn.Parameter]]  # of the networks, their target copies, the temperature

    def state_dict(self) -> dict[str, Any]:
        """All that is learned, and its target copies, for checkpoints."""


class TargetUpdate(Protocol):
    """``target_update``."""

    def step(self) -> None:
        """Called after every update."""


class Replay(Protocol):
    """``replay``."""

    def cut(self) -> None:
        """Mark a discontinuity: the next step does not continue the last one."""

    def store(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step of every environment: ``[N, *S]``, ``[N]``, and its result."""

    def draw(self, batch_size: int) -> Batch:
        """Draw a batch."""

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        """Receive the TD errors δ_i of the transitions drawn: their places ``[B]``, and ``[N, B]``."""
