"""Runs in processes of their own, some at a time, that stop when they are asked to."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from signal import Signals
from typing import Any

from sqn_rl.grid import Job
from sqn_rl.stopping import signals_to

SQN_RUN = [sys.executable, "-m", "sqn_rl.cli.run"]


def run_jobs(
    jobs: Sequence[Job],
    at_a_time: int,
    options: Sequence[str],
    ended: Callable[[Job, int], None],
) -> str | None:
    """Run jobs until all are done or a signal asks to stop.

    Signals are passed on to the runs, which end as ``sqn-run`` does: at the first with a checkpoint, at a
    second at once.

    Args:
        jobs: in the order in which they start.
        at_a_time: how many.
        options: of ``sqn-run``, before the overrides.
        ended: is told each job that ended, and its exit code.

    Returns:
        The name of the first signal.
    """
    waiting, running = deque(jobs), dict[subprocess.Popen[bytes], Job]()
    first, received = None, deque[Signals]()

    def receive(number: Signals, _: Any) -> bool:
        received.append(number)
        return True

    with signals_to(receive), _left_to_none(running):
        while running or (waiting and not first):
            while waiting and len(running) < at_a_time and not first:
                job = waiting.popleft()
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
    """Stop what still runs when we cannot wait for it, as when nobody reads what we print."""
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _start(job: Job, options: Sequence[str]) -> subprocess.Popen[bytes]:
    job.out.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [*SQN_RUN, *options, *job.overrides],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},  # so that a log is UTF-8 wherever we print
            start_new_session=True,  # else a terminal's Ctrl-C would reach it twice
        )
