"""Concurrency: two runs with one directory, and sweeps."""

import os
from pathlib import Path

from reliability.score import Line, Section, tests_line
from reliability.trials import TINY, begin, differences, train

from sqn_rl.cli.run import main

ROUNDS = 10


def measure(folder: Path) -> list[Line]:
    """A line for races, one for sweeps."""
    settings = [*TINY, "steps=100"]
    train(folder / "alone", *settings)
    codes, mixed = [], []
    for number in range(ROUNDS):
        run = folder / str(number)
        resume = ["resume=auto"] if number % 2 else []
        children = [begin(lambda: main([*settings, f"out={run}", *resume])) for _ in range(2)]  # noqa: B023  # it runs in this iteration
        codes.append(sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
        if differences(folder / "alone", run):
            mixed.append(number)
    refused = sum(pair == [0, 2] for pair in codes)
    return [
        Line(
            f"two `sqn-run` at once in one directory, {ROUNDS} times: it has one run's bytes",
            "all",
            f"{ROUNDS - len(mixed)} of {ROUNDS}; {refused} times one was refused, else it came too late",
            not mixed and all(pair in ([0, 2], [0, 0]) for pair in codes),
            codes,
        ),
        tests_line(
            folder,
            "sweeps go on after a job that failed and finish what is missing; `resume=auto`; a lock held",
            6,
            "tests/cli/test_resume.py",
            "-k",
            "sweep or auto or mix or folders",
        ),
    ]


SECTION = Section(
    "sharing",
    "9. Concurrency",
    """Processes that are started together, and the tests of sweeps.""",
    measure,
)
