"""Atari games from RAM in processes of their own, seen from the process that has them played."""

import json
import mmap
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import IO, Any

import numpy as np

from sqn_rl.parts.env.ram_worker import DONE, PLAY, RESTART, layout

RUN = "import sys; sys.path[:] = {path!r}; from sqn_rl.parts.env.ram_worker import main; main()"
"""What a process runs, and nothing else: ``multiprocessing`` would run the caller's script again."""


class RamWorkers:
    """N games, shared out among some processes.

    Args:
        settings: of :class:`~sqn_rl.parts.env.ram_worker.RamGame`.
        num_envs: N, the number of environments.
        workers: how many processes.

    Raises:
        ChildProcessError: in any method: one of them has ended, of itself or by somebody's hand.
    """

    def __init__(self, settings: Mapping[str, Any], *, num_envs: int, workers: int) -> None:
        self._bounds = [number * num_envs // workers for number in range(workers + 1)]
        kind = layout(num_envs)
        with _memory_file() as file:
            os.posix_fallocate(
                file.fileno(), 0, kind.itemsize
            )  # a lack of room is an error now, not SIGBUS later
            shared = np.frombuffer(mmap.mmap(file.fileno(), 0), kind, count=1)[0]
            self._shared = {name: shared[name] for name in kind.names or ()}
            self._processes = [
                _start([settings, file.fileno(), num_envs, *bounds], file.fileno())
                for bounds in pairwise(self._bounds)
            ]
        self.close = weakref.finalize(self, _end, self._processes)

    def restart(self, rows: Sequence[int], seeds: Sequence[int | None]) -> np.ndarray:
        """Start these games anew with these seeds; None: go on drawing. Returns what they show."""
        self._shared["anew"][:] = False
        self._shared["anew"][rows] = True
        self._shared["seed"][rows] = _written(seeds)
        bounds = enumerate(pairwise(self._bounds))
        workers = [number for number, (first, end) in bounds if self._shared["anew"][first:end].any()]
        self._tell(workers, RESTART)
        self._wait(workers)
        return self._shared["observation"][rows]

    def send(self, actions: Sequence[int], seeds: Sequence[int | None]) -> None:
        """Begin to play; what ends is started anew with its seed."""
        self._shared["action"][:], self._shared["seed"][:] = actions, _written(seeds)
        self._tell(range(len(self._processes)), PLAY)

    def receive(self) -> Mapping[str, np.ndarray]:
        """The answers, by their names in ``Step``; overwritten at the next call."""
        self._wait(range(len(self._processes)))
        return self._shared

    def _tell(self, workers: Iterable[int], what: bytes) -> None:
        for number in workers:
            with suppress(BrokenPipeError):  # it has ended, which waiting for it tells
                self._processes[number].stdin.write(what)

    def _wait(self, workers: Iterable[int]) -> None:
        for number in workers:
            if self._processes[number].stdout.read(1) != DONE:
                code, (first, end) = self._processes[number].wait(), self._bounds[number : number + 2]
                raise ChildProcessError(f"the process of games {first} to {end - 1} ended with code {code}")


def _written(seeds: Sequence[int | None]) -> list[int]:
    return [-1 if seed is None else seed for seed in seeds]


def _memory_file() -> IO[bytes]:
    """A file that other processes can share: in memory where the system can, else in the temporary folder."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("sqn_rl"), "r+b")
    return tempfile.TemporaryFile()


def _start(arguments: list[Any], descriptor: int) -> Any:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", RUN.format(path=sys.path), json.dumps(arguments)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[descriptor],
        start_new_session=True,  # out of reach of what a terminal sends to all of a group
    )


def _end(processes: Sequence[Any]) -> None:
    """Have them end: those that play finish their step first."""
    for process in processes:
        process.stdin.close()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # stopped by somebody
            process.kill()
            process.wait()
        process.stdout.close()
