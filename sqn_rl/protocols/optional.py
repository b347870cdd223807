"""Optional interfaces: what the loop and other parts use of those parts that have it.

``isinstance`` decides, once, whether a part has the members of a protocol. None of these may be a submodule
or a buffer, which ``isinstance`` does not find from Python 3.12 on: :func:`submodule` does. Those that need
the memory of recurrent networks are in :mod:`sqn_rl.parts.memory`.

Legend: B states or transitions, N environments or networks, A actions; ``*S`` the shape of an observation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sqn_rl.types import Batch, Terms


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
class HasReturns(Protocol):
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
class HasTarget(Protocol):
    """A loss that can show its target, for the search for NaN and infinite values."""

    def target(self, batch: Batch, q_NBA: Tensor) -> Tensor:
        """The targets, given the online networks' values."""


@runtime_checkable
class Independent(Protocol):
    """A replay; where this is true, it is asked for the batches of several updates at once."""

    independent: bool  # what is drawn does not depend on what is learned meanwhile


@runtime_checkable
class SizedReplay(Protocol):
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


@runtime_checkable
class MaskLoss(Protocol):
    """A loss that reads a batch's action masks; other losses are refused if the environment has masks."""

    reads_masks: bool


@runtime_checkable
class SequenceLoss(Protocol):
    """A loss that may read a batch's sequences; other losses are refused with recurrent networks."""

    reads_sequences: bool


@runtime_checkable
class SequenceGiving(Protocol):
    """A replay whose batches have sequences, as recurrent networks require."""

    gives_sequences: bool


@runtime_checkable
class SamplingLoss(Protocol):
    """A loss whose target may have one sampled action in place of the policy; Retrace refuses it."""

    samples_action: bool


@runtime_checkable
class Recording(Protocol):
    """An actor that knows the probability of the actions it takes."""

    def act_recorded(self, observation: Tensor, *, action_mask: Any = None) -> tuple[Tensor, Tensor]:
        """Actions, ``[N]`` int64, and log μ of each, ``[N]`` float32."""


@runtime_checkable
class OffPolicy(Protocol):
    """Returns that read log μ of every action, to correct for the policy that acted."""

    reads_log_mu: bool


@runtime_checkable
class MaskTemperature(Protocol):
    """A temperature whose target depends on how many actions are allowed."""

    def masked_loss(self, entropy_B: Tensor, action_mask: Tensor) -> Tensor:
        """L_α, from the policy's entropy, ``[B]`` nats, and the allowed actions, ``[B, A]``. → scalar."""


@runtime_checkable
class TrainablePolicy(Protocol):
    """An actor with a submodule ``policy_net``, which a loss trains."""

    def logits(self, observation: Tensor) -> Tensor:
        """The logits of ``policy_net``, with gradient, ``[B, *S]`` → ``[B, A]``."""


@runtime_checkable
class Laddered(Protocol):
    """An actor whose environments can explore by different amounts."""

    def explore(self, position: Tensor, base: float) -> None:
        """Explore by a ladder from now on; ``position`` is i/(N−1), ``[B]`` in [0, 1], for each state."""


@runtime_checkable
class Laned(Protocol):
    """A replay with a lane for each actor."""

    lanes: int
    prioritized: bool  # whether it asks for initial priorities

    def store_chunk(self, chunk: Any, *, lane: int) -> None:
        """Store the rows of a chunk, or with shards of a reference to it, in its actor's lane."""


def submodule(part: object, name: str) -> nn.Module | None:
    """The module that a part holds under this name; None if there is none."""
    return held if isinstance(held := getattr(part, name, None), nn.Module) else None
