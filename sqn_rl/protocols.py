"""What the part in a slot answers: all that the loop and the other parts know of it.

A class that answers this fills the slot; there is nothing to inherit from, but a Q-network and a temperature
are torch modules, as losses and actors hold them. A part with ``state_dict()`` and ``load_state_dict(state)``
is saved in checkpoints and restored; a run whose replay has none cannot be resumed. A temperature, an actor
or a replay with a method ``anneal(env_steps)`` is told how far the run is, and one with ``metrics()``,
numbers by name, is asked for them when metrics are written, as is one with ``advice()``, what a person should
change. A replay whose ``independent`` is true is asked for the batches of several updates at once. A
temperature or a target updater whose ``tensors_only`` is true does nothing after the optimizer's step but
compute with tensors in place: it may be compiled with it.

A Q-network may have ``observation_dtype``: its actors and losses take no observations of another kind, bytes
for numbers or numbers for bytes. An encoder may ask for ``observation_scaling``, and say by a method
``scaling(dtype)`` what it does to numbers, for the screen: "scaled as x/255".

Legend: B states or transitions, N environments or networks, A actions; ``*S`` the shape of an observation.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from sqn_rl.types import Backup, Batch, Counters, Step, Terms


class Distribution(Protocol):
    """What a head's predictions stand for: :class:`~sqn_rl.parts.distributions.Distribution` is the base."""

    def mean(self, prediction: Tensor) -> Tensor:
        """The action values, ``[N, B, A]``, reward units."""

    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Any:
        """What :meth:`loss` compares with."""

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
        """What its predictions stand for."""

    def predict(self, observation: Tensor) -> Tensor:
        """What every network says of every action. ``[B, *S]`` → ``[N, B, A]`` or ``[N, B, A, K]``."""

    def values(self, observation: Tensor) -> Tensor:
        """``Q_i(s, ·)``, the predictions' means. ``[B, *S]`` → ``[N, B, A]``, reward units."""

    def first(self, observation: Tensor) -> Tensor:
        """``Q_1(s, ·)`` alone, ``values(observation)[0]``. ``[B, *S]`` → ``[B, A]``."""

    def modules(self) -> Iterator[nn.Module]:
        """As of every module."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimizer moves."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of every module."""

    def eval(self) -> Self:
        """As of every module: target copies, and what acts, are in eval mode."""


class Temperature(Protocol):
    """``temperature``, an ``nn.Module``."""

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

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of everything in it: the networks, their target copies, the temperature."""

    def state_dict(self) -> dict[str, Any]:
        """All that is learned, and its target copies: what a checkpoint keeps."""


@runtime_checkable
class CompilableLoss(Protocol):
    """A loss that samples its noise before it computes: random numbers cannot be compiled."""

    def redraw(self, batch: Batch) -> None:
        """Sample all noise that the losses of this batch need."""

    def terms(self, batch: Batch) -> Terms:
        """The losses of one batch, with that noise."""


@runtime_checkable
class CompilableActor(Protocol):
    """An actor that draws random numbers before it chooses by them: random numbers cannot be compiled."""

    def choose(self, observation: Tensor, chance: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Actions, ``[B]`` int64, and the scores that they are chosen by, ``[B, A]``."""

    def use_compiled(self, choose: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, Tensor]]) -> None:
        """Choose by this, a compiled :meth:`choose`."""


class TargetUpdate(Protocol):
    """``target_update``."""

    def step(self) -> None:
        """Called after every update."""


class Replay(Protocol):
    """``replay``."""

    def cut(self) -> None:
        """Experience starts anew: what comes next does not follow from what came last."""

    def store(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step of every environment: ``[N, *S]``, ``[N]``, and their answer."""

    def draw(self, batch_size: int) -> Batch:
        """Draw a batch."""

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        """Be told the TD errors δ_i of the transitions drawn: their places ``[B]``, and ``[N, B]``."""


class Reporter:
    """Receives the events of a run. Every method does nothing here."""

    def note(self, text: str) -> None:
        """What was chosen or has happened that a person should know, as a line."""

    def metrics(self, row: dict[str, Any]) -> None:
        """Counters, losses, α, entropies, values and recent returns, every ``log_every`` steps."""

    def episode(self, row: dict[str, Any]) -> None:
        """A full game has ended."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """An evaluation has ended."""

    def checkpoint(self, counters: Counters, take_state: Callable[[], dict[str, Any]]) -> None:
        """It is time to write down all that the run has become: what ``take_state()`` gives."""

    def close(self) -> None:
        """The run has ended, well or not."""
