"""Run jobs in subprocesses, several at a time, and pass signals on to them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from typing import Any, Protocol

from sqn_rl.analysis.grid import Job
from sqn_rl.disk import Folder
from sqn_rl.runs.status import is_locked
from sqn_rl.training.stopping import signals_to

SQN_RUN = [sys.executable, "-P", "-m", "sqn_rl.cli.run"]
"""``-P`` keeps the working directory off the path, where Python would put it first."""


STOPPED = 3
"""The exit code of a run that a signal stopped, even before the run handled signals."""


class Running(Protocol):
    """A run that was started: a local process, or a job elsewhere."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def send_signal(self, sig: int, /) -> None:
        """Pass a signal on to it."""

    def terminate(self) -> None:
        """Ask it to stop."""

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""


Start = Callable[[Job, Sequence[str]], Running]
"""Starts a job, with the options of ``sqn-run``."""


def run_jobs(
    next_job: Callable[[], Job | None],
    at_a_time: int,
    options: Sequence[str],
    ended: Callable[[Job, int], None],
    *,
    waits: Callable[[Job], None] = lambda job: None,
    is_unwanted: Callable[[Job], bool] = lambda job: False,
    start: Start,
) -> str | None:
    """Run jobs until there are no more or a signal asks to stop.

    Signals are passed on to the runs, which end as ``sqn-run`` does: after the first signal with a
    checkpoint, after a second one at once. If this process dies, they get SIGTERM (on Linux). If another
    process is writing to the directory of a run, the run is started after that process.

    Args:
        next_job: called if another job can be started; returns None if there is none now. When there is none
            and none is running, all are done.
        at_a_time: the number of jobs that run at a time.
        options: options for ``sqn-run``, before the overrides.
        ended: called with each job that ended, and its exit code.
        waits: called with each job that waits for another process.
        is_unwanted: called repeatedly with each running job; if it returns True, the job is stopped.
        start: starts a job, as :func:`start_process` does.

    Returns:
        The name of the first signal; None if there was none.
    """
    pool = _Pool(next_job, at_a_time, waits, lambda job: start(job, options))
    with signals_to(pool.receive), _terminating(pool.running):
        while True:
            pool.start_free_jobs()
            if pool.is_idle:
                return pool.first_signal
            for job, code in pool.take_ended():
                ended(job, code)
            pool.stop(is_unwanted)
            time.sleep(0.1)
            pool.pass_on_signals()


class _Pool:
    """The jobs that wait for another process, those that run, and the signals that they are to receive."""

    def __init__(
        self,
        next_job: Callable[[], Job | None],
        at_a_time: int,
        waits: Callable[[Job], None],
        start: Callable[[Job], Running],
    ) -> None:
        self._next_job, self._at_a_time, self._waits, self._start = next_job, at_a_time, waits, start
        self.running: dict[Running, Job] = {}
        self.first_signal: str | None = None
        """The name of the first signal; after it, no job is started."""
        self._waiting, self._stopped, self._received = list[Job](), set[Running](), deque[Signals]()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, and nothing will be started."""
        return not self.running and bool(self.first_signal or not self._waiting)

    def receive(self, number: Signals, _: Any) -> bool:
        """Handle a signal: :meth:`pass_on_signals` passes it on."""
        self._received.append(number)
        return True

    def start_free_jobs(self) -> None:
        """Start jobs that no other process is working on, as many as may run."""
        while not self.first_signal and len(self.running) < self._at_a_time and (job := self._next_free()):
            self.running[self._start(job)] = job

    def _next_free(self) -> Job | None:
        """One that has waited, or a new one."""
        for job in self._waiting:
            if not is_locked(job.out):
                self._waiting.remove(job)
                return job
        while (new := self._next_job()) and is_locked(new.out):
            self._waiting.append(new)
            self._waits(new)
        return new

    def take_ended(self) -> Iterator[tuple[Job, int]]:
        """The jobs that have ended, with their exit codes."""
        for process in [each for each in self.running if each.poll() is not None]:
            code = process.wait()
            yield self.running.pop(process), STOPPED if self.first_signal and code else code

    def stop(self, is_unwanted: Callable[[Job], bool]) -> None:
        """Ask the jobs that are unwanted to stop, once."""
        for process, job in self.running.items():
            if process not in self._stopped and is_unwanted(job):
                self._stopped.add(process)
                process.terminate()

    def pass_on_signals(self) -> None:
        """Send the signals that were received to every run."""
        while self._received:
            number = self._received.popleft()
            self.first_signal = self.first_signal or number.name
            for process in self.running:
                process.send_signal(number)


@contextmanager
def _terminating(running: Collection[Running]) -> Iterator[None]:
    """A context that at its end terminates all that is still running, for example after a broken pipe."""
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def start_process(job: Job, options: Sequence[str]) -> Running:
    """Start a job in a local process, which ends with this one."""
    return start_run(job.log, [*options, *job.overrides])


def start_run(log: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start ``sqn-run`` in a process, which ends with this one.

    Args:
        log: the file to which its output is appended.
        arguments: its options and overrides.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    flags, parent = os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.getpid()
    with Folder(log.parent) as folder, folder.open_own(log.name, flags) as file:
        return subprocess.Popen(
            [*SQN_RUN, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},  # logs are UTF-8 in every locale
            start_new_session=True,  # a terminal's Ctrl-C must not reach it twice
            preexec_fn=lambda: _end_with(parent),
        )


_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _end_with(parent: int) -> None:
    """Make the system send this process SIGTERM when its parent dies, for whatever reason."""
    if _PRCTL:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent has died already
            os._exit(1)
