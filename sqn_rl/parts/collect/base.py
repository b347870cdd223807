"""Collecting by actors: their settings, and the engine that runs them.

An actor runs a worker, :class:`sqn_rl.training.collecting.worker.Worker`. A chunk, and the state after it,
depend only on the state before it, the weights and the request. So the chunks of a lost process are collected
again: the engine starts another one from the last state whose chunk was stored, and repeats the requests.

Legend: N environments over all actors, i one of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import WiringError, require_one_of
from sqn_rl.parts.arguments import Range, typed
from sqn_rl.parts.hosting import Host, Make
from sqn_rl.protocols import Laddered, Laned
from sqn_rl.types import Chunk, ChunkSummary, Request

ORDERS = ("cyclic", "any")
"""The orders in which chunks are stored: one of each actor in turn, or whichever is ready first."""

WorkerState = Any
"""What a worker needs to continue: tensors, numbers, lists and dicts; None before its first chunk."""

Result = tuple[ChunkSummary, Any, WorkerState]
"""A chunk's summary; the chunk, or a reference to it if it stays elsewhere; the state after it."""

HIGH_LAG = 200
"""A lag in updates above which a note says how to lower it."""

Ticket = Any
"""A handle for a chunk that was requested."""


class WorkerLost(Exception):  # noqa: N818  not an error of the program
    """An actor's process, or its machine, is lost, with all its open requests."""


class CollectingWorker(Protocol):
    """A worker that an engine runs."""

    def collect(self, weights: np.ndarray, request: Request) -> tuple[Chunk, WorkerState]:
        """Collect a chunk with these weights; return it, and the state after it."""

    def restore(self, state: WorkerState) -> None:
        """Continue from a state."""

    def close(self) -> None:
        """Close its environments."""


MakeWorker = Callable[[int], CollectingWorker]
"""Makes the worker of an actor, by its number. An engine may send it to another process."""


class Engine(Protocol):
    """Runs actors; each handles its requests in order."""

    def start(self, make_worker: MakeWorker, actors: int) -> None:
        """Start so many actors.

        Raises:
            SqnError: they cannot be started; none is left running.
        """

    def publish(self, weights: np.ndarray) -> Any:
        """Make weights available to all actors; return a handle for :meth:`ask`."""

    def ask(self, actor: int, weights: Any, request: Request) -> Ticket:
        """Ask an actor for a chunk. Returns at once."""

    def ready(self, tickets: Sequence[Ticket]) -> int:
        """Wait until one of these is ready, and return its index."""

    def host(self, make: Make, number: int) -> Host:
        """Run ``number`` objects, if possible in other processes; from then on chunks stay there too.

        Raises:
            SqnError: they cannot be started.
        """

    def result(self, ticket: Ticket) -> Result:
        """Wait for a chunk and the state after it.

        Raises:
            WorkerLost: the actor is lost, with all its open requests.
        """

    def revive(self, actor: int, state: WorkerState) -> None:
        """Restart an actor from a state; its open requests are forgotten."""

    def close(self) -> None:
        """Stop all actors."""


@runtime_checkable
class Sharded(Protocol):
    """A replay in shards, which may be in other processes."""

    shards: int

    def make_shard(self, number: int) -> Any:
        """One shard, by its number."""

    def use_host(self, host: Host) -> None:
        """Keep the shards in this host."""


def ladder_positions(actor: int, actors: int, num_envs: int) -> Tensor:
    """The positions i/(N−1) of an actor's environments, ``[E]``; a single environment is in the middle."""
    many = actors * num_envs
    i_E = torch.arange(actor * num_envs, (actor + 1) * num_envs)
    return i_E / (many - 1) if many > 1 else torch.full((1,), 0.5)


Number = Annotated[int, Range(lambda value: 1 <= value <= 2**16, "a whole number in [1, 65,536]")]
LadderRatio = Annotated[float, Range(lambda value: 1 < value <= 1e6, "a number in (1, 1e6]")]


class Actors(ABC):
    """Settings of collecting by actors; abstract: a subclass says which engine runs them.

    The learner stores a chunk, asks its actor for another with the newest weights, and does the updates that
    are due: as many per environment step as without actors. Actions are random until the warm-up is over.
    Priorities of new transitions are the |δ| of the network that acted.

    Args:
        actors: the number of actors; each has ``num_envs`` environments, and a lane of the replay.
        rows: the rows of a chunk: steps of each environment.
        depth: requests in flight to each actor. With 1 an actor waits while its chunk is stored; more lets
            the weights that it acts by grow older.
        sync_every: publish weights once this many updates were made since the last time; 1: for every chunk.
        order: ``cyclic`` stores one chunk of each actor in turn, so that a run can be repeated exactly;
            ``any`` stores whichever is there first, each exactly once.
        ladder: environments explore by different amounts: by a Boltzmann actor, environment i with
            ``α · ladder^(1 − 2i/(N−1))``, and by an ε-greedy one, whatever ``ladder`` is, with Ape-X's
            ``ε = 0.4^(1 + 7i/(N−1))``; null: all explore alike.

    Raises:
        SettingError: a value is out of range.
    """

    @typed
    def __init__(
        self,
        *,
        actors: Number,
        rows: Number,
        depth: Number,
        sync_every: Number,
        order: str,
        ladder: LadderRatio | None,
    ) -> None:
        require_one_of(ORDERS, "order", order)
        self.actors, self.rows, self.depth, self.sync_every = actors, rows, depth, sync_every
        self.order, self.ladder = order, ladder

    actor_bytes = 0
    """Memory of an actor on this machine, besides its environments, or of a shard, besides its rows."""

    elsewhere = False
    """Whether actors, and the shards of a replay, run on other machines."""

    def notes(self, num_envs: int, update_ratio: float) -> list[str]:
        """What the user should know before the run: whether acting weights will be old."""
        lag = self.depth * self.actors * self.rows * num_envs * update_ratio
        if lag <= HIGH_LAG:
            return []
        hint = "lower collect.rows, or collect.depth to 1"
        return [f"lag           acting weights get up to about {lag:,.0f} updates old; {hint}"]

    @abstractmethod
    def engine(self) -> Engine:
        """The engine that runs the actors; not started yet."""

    def require(self, replay: object, actor: object) -> None:
        """Refuse a replay without lanes, or an actor without a ladder.

        Raises:
            WiringError: there is no lane for each actor, or a ladder is set and the actor has none.
        """
        if not isinstance(replay, Laned) or replay.lanes != self.actors:
            problem = f"{type(replay).__name__} has no lane for each of {self.actors} actors"
            hint = "choose replay=uniform or prioritized, or collect=local"
            raise WiringError("collect", f"collect: {problem}; {hint}", "replay")
        if self.ladder is not None and not isinstance(actor, Laddered):
            problem = f"{type(actor).__name__} has no ladder: all its environments explore alike"
            hint = "set collect.ladder=null, or choose actor=boltzmann or epsilon_greedy"
            raise WiringError("collect.ladder", f"collect.ladder: {problem}; {hint}", "actor")
