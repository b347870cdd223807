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
from signal import Signals
from typing import Any

from sqn_rl.analysis.grid import Job
from sqn_rl.disk import Folder
from sqn_rl.runs.directory import is_locked
from sqn_rl.training.stopping import signals_to

SQN_RUN = [sys.executable, "-P", "-m", "sqn_rl.cli.run"]
"""``-P``: without the working directory, which Python else puts first on the path."""


def run_jobs(
    jobs: Sequence[Job],
    at_a_time: int,
    options: Sequence[str],
    ended: Callable[[Job, int], None],
    waits: Callable[[Job], None] = lambda job: None,
) -> str | None:
    """Run jobs until all are done or a signal asks to stop.

    Signals are passed on to the runs, which end as ``sqn-run`` does: at the first with a checkpoint, at a
    second at once. If this process dies, they are asked to stop by SIGTERM (on Linux). A run that another
    process is writing to is waited for.

    Args:
        jobs: in the order in which they start.
        at_a_time: how many.
        options: of ``sqn-run``, before the overrides.
        ended: called with each job that ended, and its exit code.
        waits: called with each job that is waited for.

    Returns:
        The name of the first signal.
    """
    waiting, running = deque(jobs), dict[subprocess.Popen[bytes], Job]()
    first, received, waited = None, deque[Signals](), list[Job]()

    def receive(number: Signals, _: Any) -> bool:
        received.append(number)
        return True

    with signals_to(receive), _left_to_none(running):
        while running or (waiting and not first):
            for job in [*waiting] if len(running) < at_a_time and not first else ():
                if is_locked(job.out):
                    if job not in waited:
                        waited.append(job)
                        waits(job)
                elif len(running) < at_a_time:
                    waiting.remove(job)
                    running[_start(job, options)] = job
            for process in [each for each in running if each.poll() is not None]:
                ended(running.pop(process), process.returncode)
            time.sleep(0.1)
            while received:
                number = received.popleft()
                first = first or number.name
                for process in running:
                    process.send_signal(number)
    return first


@contextmanager
def _left_to_none(running: Collection[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Terminate the processes that still run on leaving, for example after a broken pipe."""
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _start(job: Job, options: Sequence[str]) -> subprocess.Popen[bytes]:
    job.out.parent.mkdir(parents=True, exist_ok=True)
    flags, parent = os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.getpid()
    with Folder(job.out.parent) as folder, folder.open_own(job.log.name, flags) as log:
        return subprocess.Popen(
            [*SQN_RUN, *options, *job.overrides],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},  # so that a log is UTF-8 wherever we print
            start_new_session=True,  # else a terminal's Ctrl-C would reach it twice
            preexec_fn=lambda: _end_with(parent),
        )


_PRCTL, _PR_SET_PDEATHSIG = getattr(ctypes.CDLL(None), "prctl", None), 1


def _end_with(parent: int) -> None:
    """Have this process be sent SIGTERM when the one that started it dies, however that happens."""
    if _PRCTL:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died before
            os._exit(1)
