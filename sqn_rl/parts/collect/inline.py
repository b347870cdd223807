"""Actors in the process of the learner, which collect a chunk when it is needed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sqn_rl.parts.collect.base import Actors, CollectingWorker, Engine, MakeWorker, Result, WorkerState
from sqn_rl.parts.hosting import Host, LocalHost, Make
from sqn_rl.types import Request


class InlineCollect(Actors):
    """Actors in this process, one after the other; actors in other processes give the same results.

    Arguments are those of :class:`~sqn_rl.parts.collect.base.Actors`.
    """

    actor_bytes = 10 * 10**6

    def engine(self) -> Engine:
        """The engine that runs the actors; not started yet."""
        return InlineEngine()


class _Ticket(NamedTuple):
    actor: int
    weights: np.ndarray
    request: Request


class InlineEngine:
    """Calls workers when their results are asked for."""

    def __init__(self) -> None:
        self._workers: list[CollectingWorker] = []

    def start(self, make_worker: MakeWorker, actors: int) -> None:
        """Make the workers."""
        self._make_worker = make_worker
        for actor in range(actors):
            self._workers.append(make_worker(actor))

    def publish(self, weights: np.ndarray) -> np.ndarray:
        """The weights themselves."""
        return weights

    def ask(self, actor: int, weights: np.ndarray, request: Request) -> _Ticket:
        """Keep the request until its result is requested."""
        return _Ticket(actor, weights, request)

    def ready(self, tickets: Sequence[Any]) -> int:
        """The ticket whose actor has collected least: no result is ready before it is asked for."""
        return min(range(len(tickets)), key=lambda index: tickets[index].request.serial)

    def host(self, make: Make, number: int) -> Host:
        """Objects in this process."""
        return LocalHost(make, number)

    def result(self, ticket: _Ticket) -> Result:
        """Collect the chunk."""
        chunk, state = self._workers[ticket.actor].collect(ticket.weights, ticket.request)
        return chunk.summary, chunk, state

    def revive(self, actor: int, state: WorkerState) -> None:
        """Make another worker, and have it continue from a state."""
        self._workers[actor].close()
        self._workers[actor] = self._make_worker(actor)
        self._workers[actor].restore(state)

    def close(self) -> None:
        """Close the workers' environments."""
        for worker in self._workers:
            worker.close()
