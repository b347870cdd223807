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
from sqn_rl.runs.directory import is_locked
from sqn_rl.training.stopping import signals_to

SQN_RUN = [sys.executable, "-P", "-m", "sqn_rl.cli.run"]
"""``-P``: without the working directory, which Python else puts first on the path."""


STOPPED = 3
"""The exit code of a run that a signal stopped; also of one that was not yet ready for signals."""


class Running(Protocol):
    """A run that was started: a process here, or a job elsewhere."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def send_signal(self, sig: int, /) -> None:
        """Pass a signal on to it."""

    def terminate(self) -> None:
        """Ask it to stop."""

    def wait(self) -> int:
        """Wait for its end; its exit code."""


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

    Signals are passed on to the runs, which end as ``sqn-run`` does: at the first with a checkpoint, at a
    second at once. If this process dies, they are asked to stop by SIGTERM (on Linux). A run that another
    process is writing to is waited for.

    Args:
        next_job: called where there is room for another job; None: there is none now. All are done once
            there is none and none runs.
        at_a_time: how many.
        options: of ``sqn-run``, before the overrides.
        ended: called with each job that ended, and its exit code.
        waits: called with each job that is waited for.
        is_unwanted: called again and again with each job that runs; True: it is asked to stop.
        start: starts a job, as :func:`start_process` does.

    Returns:
        The name of the first signal.
    """
    waiting, running, unwanted = deque[Job](), dict[Running, Job](), set[Running]()
    first, received = None, deque[Signals]()

    def receive(number: Signals, _: Any) -> bool:
        received.append(number)
        return True

    def next_free() -> Job | None:
        """A job that no other process is at: one that was waited for, or a new one."""
        for job in [*waiting]:
            if not is_locked(job.out):
                waiting.remove(job)
                return job
        while (new := next_job()) and is_locked(new.out):
            waiting.append(new)
            waits(new)
        return new

    with signals_to(receive), _left_to_none(running):
        while True:
            while not first and len(running) < at_a_time and (job := next_free()):
                running[start(job, options)] = job
            if not running and (first or not waiting):
                return first
            for process in [each for each in running if each.poll() is not None]:
                code = process.wait()
                ended(running.pop(process), STOPPED if first and code else code)
            for process, job in running.items():
                if process not in unwanted and is_unwanted(job):
                    unwanted.add(process)
                    process.terminate()
            time.sleep(0.1)
            while received:
                number = received.popleft()
                first = first or number.name
                for process in running:
                    process.send_signal(number)


@contextmanager
def _left_to_none(running: Collection[Running]) -> Iterator[None]:
    """Terminate the processes that still run on leaving, for example after a broken pipe."""
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def start_process(job: Job, options: Sequence[str]) -> Running:
    """Start a job in a process here, which ends with this one."""
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
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},  # so that a log is UTF-8 wherever we print
            start_new_session=True,  # else a terminal's Ctrl-C would reach it twice
            preexec_fn=lambda: _end_with(parent),
        )


_PRCTL, _PR_SET_PDEATHSIG = ctypes.CDLL(None).prctl if sys.platform == "linux" else None, 1


def _end_with(parent: int) -> None:
    """Have this process be sent SIGTERM when the one that started it dies, however that happens."""
    if _PRCTL:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died before
            os._exit(1)
