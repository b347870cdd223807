"""Contenders in processes of their own that take turns, a leg at a time: what slows the machine slows all.

A contender calls :meth:`Baton.tick` at each step. At the end of a leg it waits until it is its turn again, so
that no two run at once.
"""

import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

Leg = dict[str, Any]
"""``seconds`` and, of all threads together, ``cpu``; ``steps`` and ``updates``; ``memory``, the most so far,
in bytes; ``return``, the mean of the last 20 games.
"""


class Baton:
    """What a contender runs with.

    Args:
        leg: environment steps until it is passed on.
        legs: that there will be.
    """

    def __init__(self, leg: int, legs: int) -> None:
        self.leg, self.steps, self.over = leg, leg * legs, False
        self.returns: deque[float] = deque(maxlen=20)
        self._told, sys.stdout = sys.stdout, sys.stderr
        self._before = 0, 0
        self._wait()

    def tick(self, steps: int) -> bool:
        """Report the number of steps so far, over all environments. Returns whether to continue."""
        if steps >= self._before[0] + self.leg and not self.over:
            self._pass_on(steps)
        return not self.over

    def _pass_on(self, steps: int) -> None:
        seconds, cpu = time.perf_counter() - self._started, time.process_time() - self._started_cpu
        updates = _updates()
        row = {
            "seconds": seconds,
            "cpu": cpu,
            "steps": steps - self._before[0],
            "updates": updates - self._before[1],
            "return": mean(self.returns) if self.returns else None,
            "memory": _peak_bytes(),
        }
        self._before = steps, updates
        print(json.dumps(row), file=self._told, flush=True)
        self._wait()

    def _wait(self) -> None:
        self.over = not sys.stdin.readline()
        self._started, self._started_cpu = time.perf_counter(), time.process_time()


def _updates() -> int:
    """The steps of a contender's optimizer, counted at the optimizer itself."""
    from torch.optim import Optimizer

    optimizers = (thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer))
    states = (state for optimizer in optimizers for state in optimizer.state.values())
    return max((int(state["step"]) for state in states), default=0)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


@dataclass
class Contender:
    """What runs ``contenders.py`` with these arguments."""

    arguments: Sequence[str]
    leg: int | None = None
    """Environment steps of a leg, where it is not the race's."""
    legs: list[Leg] = field(default_factory=list)
    """The first has what happens once, such as compiling."""

    @property
    def speeds(self) -> list[float]:
        """Steps a second of every leg but the first."""
        return [leg["steps"] / leg["seconds"] for leg in self.legs[1:]]

    @property
    def speed(self) -> float:
        """Their median."""
        return median(self.speeds)

    def start(self, leg: int, legs: int, threads: int, folder: Path) -> None:
        """Start its process, which waits for its first turn."""
        here = Path(__file__).parent
        variables = {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "SQN_RL_TRUST": "filled_replay",
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        }
        self._errors = folder.joinpath(f"{len(list(folder.iterdir()))}.txt").open("w+")
        numbers = [str(number) for number in (self.leg or leg, legs, threads)]
        self._process = subprocess.Popen(
            [sys.executable, here / "contenders.py", *numbers, *self.arguments],
            env=os.environ | variables,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def run_leg(self) -> None:
        """Let it run one leg."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            self._errors.seek(0)
            raise SystemExit(f"{' '.join(self.arguments)} has ended: {self._errors.read()[-2000:]}")
        self.legs.append(json.loads(line))

    def stop(self) -> None:
        """Tell it that the race is over, and wait until it has gone."""
        self._process.communicate()
        self._errors.close()


def race(contenders: dict[str, Contender], *, leg: int, rounds: int, threads: int) -> None:
    """Let each contender run one leg alone, and then ``rounds`` legs in turns.

    Args:
        contenders: by name; their ``legs`` grow.
        leg: environment steps.
        rounds: legs that count.
        threads: of each contender.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            for contender in contenders.values():
                contender.start(leg, 1 + rounds, threads, Path(folder))
            for number in range(1 + rounds):
                for name, contender in contenders.items():
                    contender.run_leg()
                    done = contender.legs[-1]
                    print(
                        f"{number:3} {name:40} {done['steps'] / done['seconds']:9,.0f} steps/s",
                        file=sys.stderr,
                    )
        finally:
            for contender in contenders.values():
                contender.stop()
