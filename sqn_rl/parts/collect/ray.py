"""Actors in processes of Ray, on this machine or in a cluster."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sqn_rl.errors import EnvError, SettingError, first_line, require, to_install
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.collect.base import (
    Actors,
    Engine,
    LadderRatio,
    MakeWorker,
    Number,
    Result,
    WorkerLost,
    WorkerState,
)
from sqn_rl.parts.collect.ray_processes import ActorProcess, Failure, RayHost, ShardProcess
from sqn_rl.parts.hosting import Host, Make
from sqn_rl.parts.machine import processors
from sqn_rl.types import Request

OBJECT_STORE_BYTES = 200 * 2**20
"""Shared memory of a Ray that a run starts: room for the chunks in flight, and the weights."""

ACTOR_BYTES = 400 * 10**6
"""Memory of an actor's process: Python, PyTorch and Ray."""

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Processes of Ray that live for another minute after their driver was killed."""

CONNECT_SECONDS = 10
"""The time in which a cluster must answer."""

HTTP2_SETTINGS = 4
"""The type of a frame of HTTP/2, after the three bytes of its length."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, HTTP2_SETTINGS, 0, 0, 0, 0, 0])
"""The first bytes that a client of HTTP/2 sends, with empty settings  (RFC 9113, section 3.4)."""

START_SECONDS = 120
"""The time in which actors must start: each imports PyTorch."""


class RayCollect(Actors):
    """Actors in processes of Ray, which collect while the learner learns.

    Further arguments are those of :class:`~sqn_rl.parts.collect.base.Actors`.

    Args:
        address: address of a running cluster, ``HOST:PORT``, or ``auto`` for this machine's; null: the run
            starts and stops its own Ray.

    Raises:
        SettingError: a value is out of range, or Ray is not installed.
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
        address: str | None,
    ) -> None:
        super().__init__(
            actors=actors, rows=rows, depth=depth, sync_every=sync_every, order=order, ladder=ladder
        )
        if find_spec("ray") is None:
            raise SettingError("collect", "ray", f"the extra `ray`: {to_install('ray')}")
        self.address = address
        self.elsewhere = address is not None
        self.actor_bytes = 0 if self.elsewhere else ACTOR_BYTES

    def engine(self) -> Engine:
        """The engine that runs the actors; not started yet."""
        return RayEngine(self.address)


class _Ticket(NamedTuple):
    reference: Any
    chunk: Any = None
    """The reference to a chunk that stays in its actor's process."""


class RayEngine:
    """Runs workers in actors of Ray core, which Ray itself never restarts.

    Args:
        address: see :class:`RayCollect`.
    """

    def __init__(self, address: str | None) -> None:
        self._address, self._owns, self._actors, self._shards = address, False, list[Any](), list[Any]()
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(self, make_worker: MakeWorker, actors: int) -> None:
        """Connect to Ray, or start one; then start the actors.

        Raises:
            SettingError: Ray cannot be reached or started, or has too few processors.
            EnvError: a worker cannot be made.
        """
        import ray

        self._ray, self._make_worker = ray, make_worker
        try:
            self._connect(actors)
            self._actors = [self._actor(actor) for actor in range(actors)]
            self._require_started("actor", self._actors)
            if self._owns and self._address is None:
                self._watchdog = _kill_with_this_process(_agents())
        except BaseException:
            self.close()
            raise

    def _connect(self, actors: int) -> None:
        ray = self._ray
        if not ray.is_initialized():
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
            if self._address is None:
                options |= {"num_cpus": max(actors, processors()), "include_dashboard": False}
                options |= {"object_store_memory": OBJECT_STORE_BYTES}
            else:
                options |= {"address": self._address}
                self._require_reachable(self._address)
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                with _own_signals():
                    ray.init(**options)
            except Exception as error:
                expected = "a Ray that can be reached" if self._address else "null, where a Ray can start"
                message = f"{expected} ({first_line(error):.200})"
                raise SettingError("address", self._address, message) from error
            self._owns = True
        cpus = int(ray.cluster_resources().get("CPU", 0))
        require(cpus >= actors, "actors", actors, f"at most {cpus}, the processors that Ray has")

    def _require_reachable(self, address: str) -> None:
        """Refuse an address at which nothing listens, or another program, which Ray would try for minutes."""
        host, _, port = address.rpartition(":")
        if address == "auto":
            return
        try:
            with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS) as connection:
                _require_http2(connection)
        except (OSError, ValueError, OverflowError) as error:
            expected = f"auto, or the HOST:PORT of a running Ray ({error})"
            raise SettingError("address", address, expected) from error

    def _actor(self, actor: int) -> Any:
        remote = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(ActorProcess)
        return remote.remote(self._make_worker, actor)

    def _require_started(self, what: str, processes: Sequence[Any]) -> None:
        references = [process.started.remote() for process in processes]
        try:
            failures: list[Failure | None] = self._ray.get(references, timeout=START_SECONDS)
        except self._ray.exceptions.GetTimeoutError as error:
            expected = f"fewer: {len(references)} have not started within {START_SECONDS} s"
            raise SettingError(f"{what}s", len(references), expected) from error
        except self._ray.exceptions.RayActorError as error:
            raise EnvError(f"{what}s", f"a process ended while it started: {first_line(error)}") from error
        for number, failure in enumerate(failures):
            if failure is not None:
                raise EnvError(f"{what} {number}", failure.message)

    def host(self, make: Make, number: int) -> Host:
        """Run so many objects in processes of their own, on as many machines as there are.

        Raises:
            EnvError: one cannot be made.
        """
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        remote = self._ray.remote(**options)(ShardProcess)
        self._shards = [remote.remote(make, each) for each in range(number)]
        self._require_started("shard", self._shards)
        return RayHost(self._ray, self._shards)

    def publish(self, weights: np.ndarray) -> Any:
        """A reference to the weights in Ray's shared memory."""
        return self._ray.put(weights)

    def ask(self, actor: int, weights: Any, request: Request) -> _Ticket:
        """Send the request. If there are shards, the chunk stays with the actor until a shard takes it."""
        collect = self._actors[actor].collect
        if self._shards:
            return _Ticket(*collect.options(num_returns=2).remote(weights, request, True))
        return _Ticket(collect.remote(weights, request, False))

    def ready(self, tickets: Sequence[_Ticket]) -> int:
        """Wait for the first chunk that is ready."""
        references = [ticket.reference for ticket in tickets]
        (first, *_), _ = self._ray.wait(references, num_returns=1, fetch_local=False)
        return references.index(first)

    def result(self, ticket: _Ticket) -> Result:
        """Wait for a chunk."""
        errors = self._ray.exceptions  # a task fails if its weights were lost
        try:
            found = self._ray.get(ticket.reference)
        except (errors.RayActorError, errors.ObjectLostError, errors.RayTaskError) as error:
            raise WorkerLost(first_line(error)) from error
        if isinstance(found, Failure):
            raise found.error()
        summary, chunk, state = found
        return summary, chunk if ticket.chunk is None else ticket.chunk, state

    def revive(self, actor: int, state: WorkerState) -> None:
        """End an actor's process, if it is there, and start another from a state."""
        self._ray.kill(self._actors[actor])
        self._actors[actor] = self._actor(actor)
        self._actors[actor].restore.remote(state)

    def close(self) -> None:
        """End the actors, and the Ray that this engine has started or connected to."""
        for process in [*self._actors, *self._shards]:
            with suppress(Exception):
                self._ray.kill(process)
        self._actors, self._shards = [], []
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None
        if self._owns:
            with _own_signals():
                self._ray.shutdown()
            self._owns = False


def _require_http2(connection: socket.socket) -> None:
    """Refuse a program that does not answer as servers of gRPC do, of which Ray is one.

    Raises:
        OSError: it answers in another way, or not at all.
    """
    connection.settimeout(CONNECT_SECONDS)
    connection.sendall(PREFACE)
    frame = connection.recv(9, socket.MSG_WAITALL)
    if len(frame) < 9 or frame[3] != HTTP2_SETTINGS:
        raise OSError("what listens there is not Ray")


def _agents() -> list[int]:
    """The agents of the Ray that this process started: without a driver they live on for 62 s."""
    parents, names = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            names[int(folder.name)] = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
            parents[int(folder.name)] = int(stat.split()[1])
    agents = [pid for pid, name in names.items() if name.startswith(AGENTS)]
    return [pid for pid in agents if parents.get(parents.get(pid, 0)) == os.getpid()]


def _kill_with_this_process(pids: Sequence[int]) -> "subprocess.Popen[bytes]":
    """Start a process that waits for the end of this one, and then kills the others."""
    command = ["sh", "-c", f"read -r _; kill -9 {' '.join(map(str, pids))} 2>/dev/null"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


@contextmanager
def _own_signals() -> Iterator[None]:
    """A context that restores the handlers of SIGINT and SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
