"""Interfaces of the slots: everything that the loop and other parts use of a part.

A class that has the members of its slot's protocol fills the slot; it need not inherit from anything, but a
Q-network and a temperature are torch modules, as losses and actors hold them. The protocols after the slots'
are optional: ``isinstance`` decides, once, whether a part has the members of one. None of these may be a
submodule or a buffer, which ``isinstance`` does not find from Python 3.12 on: :func:`submodule` does.

Legend: B states or transitions, N environments or networks, A actions; ``*S`` the shape of an observation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

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


# --- optional interfaces ------------------------------------------------------------------------------------


@runtime_checkable
class Annealed(Protocol):
    """A temperature, an actor or a replay with a schedule."""

    def anneal(self, env_steps: int) -> None:
        """Move to this many environment steps: called before each, and before a trained actor acts."""


@runtime_checkable
class Measured(Protocol):
    """A temperature, an actor or a replay with metrics of its own."""

    def metrics(self) -> Mapping[str, float | None]:
        """Numbers by name, for every row of the metrics."""


@runtime_checkable
class Advising(Protocol):
    """A temperature, an actor or a replay that knows which setting to change."""

    def advice(self) -> str | None:
        """What the user should change, if anything: asked for with the metrics, and shown once."""


@runtime_checkable
class Stateful(Protocol):
    """A replay, an actor or a target updater with a state; without its replay's a run cannot be resumed."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values. Called at every checkpoint."""

    def load_state_dict(self, state: Any) -> Any:
        """Resume from such a state."""


@runtime_checkable
class LazilyStateful(Protocol):
    """A replay whose state is large."""

    def lazy_state_dict(self) -> dict[str, Any]:
        """Like ``state_dict``, but large tables are :class:`~sqn_rl.types.Rows`, read when written."""


@runtime_checkable
class Randomized(Protocol):
    """A loss, an actor, a target updater, or a module inside one, that draws random numbers.

    Checkpoints store what it names. A part with another generator is refused when the agent is made. Torch's
    global generators, from which dropout draws, are always stored.
    """

    @property
    def randomness(self) -> Mapping[str, Any]:
        """``torch.Generator`` and :class:`~sqn_rl.parts.noise.Noise` objects by name, always the same."""


@runtime_checkable
class Wired(Protocol):
    """Returns, a temperature, an actor or a loss that declares the keys it reads, for the wiring.

    Keys are ``action_value``, ``alpha``, ``entropy``, ``log_policy``, ``observation``, ``transitions`` and
    ``batch.COLUMN``. One that no part writes is refused. The default is what its slot's parts usually read.
    """

    @property
    def consumes(self) -> Sequence[str]:
        """The keys."""


@runtime_checkable
class Keyed(Protocol):
    """A Q-network, an actor or a loss that is a TensorDict module; its keys are checked before the run."""

    @property
    def in_keys(self) -> Sequence[Any]:
        """The keys, those under ``next`` as tuples."""


@runtime_checkable
class Policy(Protocol):
    """An actor that has a policy: asked by soft n-step returns, at every draw."""

    def log_policy(self, observation: Tensor) -> Tensor:
        """The log π(·|s), ``[B, *S]`` → ``[B, A]``; ``action_mask=`` where there is one."""


@runtime_checkable
class Discounted(Protocol):
    """A loss, or returns, with a γ: both must be equal."""

    gamma: float


@runtime_checkable
class Returning(Protocol):
    """A replay whose ``returns``, which make its batches, are compared with the loss."""

    returns: Any


@runtime_checkable
class SoftReturns(Protocol):
    """Returns that may count entropies: refused with a loss that leaves out the last of them."""

    soft: bool


@runtime_checkable
class EntropyBackup(Protocol):
    """A loss that may leave the entropy bonus out of its target."""

    backup_entropy: bool


@runtime_checkable
class PathReturns(Protocol):
    """Returns whose batches may have paths: refused with a loss that does not read them."""

    gives_paths: bool


@runtime_checkable
class PathLoss(Protocol):
    """A loss that may compute its target along a batch's paths."""

    reads_paths: bool


@runtime_checkable
class Targeting(Protocol):
    """A loss that can show its target, for the search for NaN and infinite values."""

    def target(self, batch: Batch, q_NBA: Tensor) -> Tensor:
        """The targets, given the online networks' values."""


@runtime_checkable
class Independent(Protocol):
    """A replay; where this is true, it is asked for the batches of several updates at once."""

    independent: bool  # what is drawn does not depend on what is learned meanwhile


@runtime_checkable
class Sized(Protocol):
    """A replay with a known size, which is checked against memory and disk."""

    capacity: int
    transition_bytes: tuple[int, int]  # of one transition, in memory and in a checkpoint


@runtime_checkable
class TensorsOnly(Protocol):
    """A temperature or a target updater; where this is true, its step is compiled with the optimizer's."""

    tensors_only: bool  # the step does nothing but compute with tensors, in place


@runtime_checkable
class ObservationTyped(Protocol):
    """A Q-network for one dtype: its actors and losses refuse bytes for numbers and numbers for bytes."""

    observation_dtype: torch.dtype


@runtime_checkable
class Described(Protocol):
    """A Q-network that describes its input and its precision, for the screen and the logs."""

    reads: str  # its input: ``uint8 [128], scaled as (x − 128)/128``
    precision: str  # ``fp32`` or ``bf16``


@runtime_checkable
class CompilableLoss(Protocol):
    """A loss that samples its noise before it computes, as random numbers cannot be compiled."""

    def redraw(self, batch: Batch) -> None:
        """Sample all noise that the losses of this batch need."""

    def terms(self, batch: Batch) -> Terms:
        """The losses of one batch, with that noise."""


@runtime_checkable
class CompilableActor(Protocol):
    """An actor that draws random numbers before it chooses by them, as they cannot be compiled."""

    def choose(self, observation: Tensor, noise: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Actions, ``[B]`` int64, and the scores that they are chosen by, ``[B, A]``."""

    def use_compiled(self, choose: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, Tensor]]) -> None:
        """Use this compiled :meth:`choose` from now on."""


def submodule(part: object, name: str) -> nn.Module | None:
    """The module that a part holds under this name; None if there is none."""
    return held if isinstance(held := getattr(part, name, None), nn.Module) else None
