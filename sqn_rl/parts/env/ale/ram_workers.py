"""The parent's side of the worker processes that play Atari games from RAM."""

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

from sqn_rl.parts.env.ale.ram_worker import DONE, PLAY, RESTART, layout

RUN = "import sys; sys.path[:] = {path!r}; from sqn_rl.parts.env.ale.ram_worker import main; main()"
"""The code of a worker process; not ``multiprocessing``, which would run the caller's script again."""


class RamWorkers:
    """N games, divided among worker processes.

    Args:
        settings: arguments of :class:`~sqn_rl.parts.env.ale.ram_worker.RamGame`.
        num_envs: N, the number of environments.
        workers: the number of processes.

    Raises:
        ChildProcessError: in any method: a worker has exited or was killed.
    """

    def __init__(self, settings: Mapping[str, Any], *, num_envs: int, workers: int) -> None:
        self._bounds = [number * num_envs // workers for number in range(workers + 1)]
        kind = layout(num_envs)
        with _memory_file() as file:
            if hasattr(os, "posix_fallocate"):  # a full disk raises now, not SIGBUS later
                os.posix_fallocate(file.fileno(), 0, kind.itemsize)
            else:
                file.truncate(kind.itemsize)
            shared = np.frombuffer(mmap.mmap(file.fileno(), 0), kind, count=1)[0]
            self._shared = {name: shared[name] for name in kind.names or ()}
            self._processes = [
                _start([settings, file.fileno(), num_envs, *bounds], file.fileno())
                for bounds in pairwise(self._bounds)
            ]
        self.close = weakref.finalize(self, _end, self._processes)

    def restart(self, rows: Sequence[int], seeds: Sequence[int | None]) -> np.ndarray:
        """Reset these games with these seeds; None: keep the random state. Returns their observations."""
        self._shared["restart"][:] = False
        self._shared["restart"][rows] = True
        self._shared["seed"][rows] = _encode_seeds(seeds)
        bounds = enumerate(pairwise(self._bounds))
        workers = [number for number, (first, end) in bounds if self._shared["restart"][first:end].any()]
        self._command(workers, RESTART)
        self._wait(workers)
        return self._shared["observation"][rows]

    def send(self, actions: Sequence[int], seeds: Sequence[int | None]) -> None:
        """Begin one step of all games; a game that ends is reset with its seed."""
        self._shared["action"][:], self._shared["seed"][:] = actions, _encode_seeds(seeds)
        self._command(range(len(self._processes)), PLAY)

    def receive(self) -> Mapping[str, np.ndarray]:
        """The results of the step, by their names in ``Step``; overwritten at the next call."""
        self._wait(range(len(self._processes)))
        return self._shared

    def _command(self, workers: Iterable[int], what: bytes) -> None:
        for number in workers:
            with suppress(BrokenPipeError):  # the worker has exited, which ``_wait`` reports
                self._processes[number].stdin.write(what)

    def _wait(self, workers: Iterable[int]) -> None:
        for number in workers:
            if self._processes[number].stdout.read(1) != DONE:
                code, (first, end) = self._processes[number].wait(), self._bounds[number : number + 2]
                raise ChildProcessError(f"the process of games {first} to {end - 1} ended with code {code}")


def _encode_seeds(seeds: Sequence[int | None]) -> list[int]:
    return [-1 if seed is None else seed for seed in seeds]


def _memory_file() -> IO[bytes]:
    """A file to share with other processes: in memory if the system supports it, else a temporary file."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("sqn_rl"), "r+b")
    return tempfile.TemporaryFile()


def _start(arguments: list[Any], descriptor: int) -> Any:
    path = [folder for folder in sys.path if isinstance(folder, str)]  # Python ignores other objects
    return subprocess.Popen(
        [sys.executable, "-P", "-c", RUN.format(path=path), json.dumps(arguments)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[descriptor],
        start_new_session=True,  # not in the terminal's process group, which gets its signals
    )


def _end(processes: Sequence[Any]) -> None:
    """End the workers; a worker finishes its current step first."""
    for process in processes:
        process.stdin.close()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it was stopped by a signal
            process.kill()
            process.wait()
        process.stdout.close()
