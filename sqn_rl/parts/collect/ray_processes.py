"""Code that runs in processes of Ray, for actors' workers and shards of a replay, and their errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sqn_rl.errors import EnvError, NumericsError, ReplayError, SqnError, explain, first_line
from sqn_rl.parts.collect.base import MakeWorker, WorkerState
from sqn_rl.parts.hosting import Make
from sqn_rl.types import Request


class Failure(NamedTuple):
    """An error of another process, which may not be one that can be pickled."""

    kind: str
    message: str

    def error(self) -> SqnError:
        """The error to raise in this process."""
        if self.kind == NumericsError.__name__:
            return NumericsError(self.message)
        return EnvError("an actor", self.message)


def as_failure(error: Exception) -> Failure:
    """Convert an error to one that can be pickled."""
    return Failure(type(error).__name__, str(error) if isinstance(error, SqnError) else explain(error))


class ActorProcess:
    """A worker, in its process."""

    def __init__(self, make_worker: MakeWorker, actor: int) -> None:
        try:
            self._worker, self._error = make_worker(actor), None
        except Exception as error:
            self._error = as_failure(error)

    def started(self) -> Failure | None:
        """Why the worker could not be made; None if it was."""
        return self._error

    def restore(self, state: WorkerState) -> None:
        """Continue from a state, if the worker was made."""
        if self._error is not None:
            return
        try:
            self._worker.restore(state)
        except Exception as error:
            self._error = as_failure(error)

    def collect(self, weights: np.ndarray, request: Request, apart: bool) -> Any:
        """A chunk's summary, the chunk, and the state after it; or an error, now and at all later calls.

        If the chunk shall stay ``apart``, there are two results: the rest, and the chunk.
        """
        if self._error is None:
            try:
                chunk, state = self._worker.collect(weights, request)
                return ((chunk.summary, None, state), chunk) if apart else (chunk.summary, chunk, state)
            except Exception as error:
                self._error = as_failure(error)
        return (self._error, None) if apart else self._error


class ShardProcess:
    """An object that is called from another process."""

    def __init__(self, make: Make, number: int) -> None:
        try:
            self._object, self._error = make(number), None
        except Exception as error:
            self._error = as_failure(error)

    def started(self) -> Failure | None:
        """Why the object could not be made; None if it was."""
        return self._error

    def call(self, method: str, *arguments: Any) -> Any:
        """The answer of a method; or an error, now and at all later calls."""
        if self._error is None:
            try:
                return getattr(self._object, method)(*arguments)
            except Exception as error:
                self._error = as_failure(error)
        return self._error


class RayHost:
    """Holds objects in processes of Ray.

    Ray does not make a call whose argument, such as a chunk that stayed apart, is lost, and says so only in
    the answer to that call. So every answer is checked together with those to the calls before it.

    Args:
        ray: the module.
        processes: Ray's handles of :class:`ShardProcess`.
    """

    def __init__(self, ray: Any, processes: Sequence[Any]) -> None:
        self._ray, self._processes = ray, processes
        self._unchecked: list[list[Any]] = [[] for _ in processes]

    def call(self, number: int, method: str, *arguments: Any) -> Any:
        """Send the call. A chunk that stayed apart arrives as such."""
        reference = self._processes[number].call.remote(method, *arguments)
        self._unchecked[number].append(reference)
        return number, reference

    def answer(self, ticket: Any) -> Any:
        """Wait for the answer.

        Raises:
            ReplayError: the process or the argument of an earlier call is lost, or the object has failed.
        """
        number, reference = ticket
        unchecked = self._unchecked[number]
        many = unchecked.index(reference) + 1
        try:
            *_, answer = self._ray.get(unchecked[:many])
        except self._ray.exceptions.RayError as error:
            raise ReplayError(f"shard {number} is lost, with its transitions: {first_line(error)}") from error
        del unchecked[:many]  # after an error they stay, so that later answers have it too
        if isinstance(answer, Failure):
            raise ReplayError(f"shard {number} has failed: {answer.message}")
        return answer
