"""Speed compared with other programs: measures every row of the table, in turns with its peer.

    python tests/benchmarks/speed.py                            what `make bench` runs
    python tests/benchmarks/speed.py --only cartpole --rounds 5
    python tests/benchmarks/speed.py --cleanrl ../cleanrl       with a checkout of CleanRL

Half an hour and 10 GB of memory, with the extra ``bench``. Every race is added to
``docs/results/raw/speed.json``, and ``docs/results/speed.md`` is made anew from it, and from what ``big.py``
measured.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from machine import machine, revision
from page import by_hand, page, tables
from race import race
from works import KINDS, races

from sqn_rl.parts.machine import has_amx

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PAGE, RAW, BIG = (RESULTS / name for name in ("speed.md", "raw/speed.json", "raw/big.json"))

FIRST_STEP = """
import os, signal, sys, time
from sqn_rl.cli.run import main
from sqn_rl.parts.env.games import GamesEnv

def send(self, action):
    os.write(2, str(time.time()).encode())
    os.kill(os.getpid(), signal.SIGKILL)

GamesEnv.send = send
main(sys.argv[1:])
"""


FIRST_UPDATE = """
import os, signal, sys, time
from sqn_rl.cli.run import main
from sqn_rl.training.agent import Agent

def update(self, batch, whole=Agent.update):
    terms = whole(self, batch)
    if not self.runs_compiled:  # before the run one update is tried
        return terms
    os.write(2, str(time.time()).encode())
    os.kill(os.getpid(), signal.SIGKILL)

Agent.update = update
main(sys.argv[1:])
"""


def first_step() -> float:
    """Seconds from the start of a process that does what ``sqn-run`` does, to its first environment step."""
    return _until_killed(FIRST_STEP)


def compiled_start() -> float:
    """Seconds to the end of the first compiled update, with the code that the start before has kept."""
    return _until_killed(FIRST_UPDATE, "compile=always", "warmup_steps=100")


def _until_killed(script: str, *arguments: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [sys.executable, "-c", script, f"out={folder}/run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return float(re.findall(r"\d{10}\.\d+", done.stderr)[-1]) - started


def sweep(jobs: int) -> float:
    """Seconds of ``sqn-ablate`` with ten runs of CartPole, compiled, so many at once."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [sys.executable, "-c", "from sqn_rl.cli.ablate import main; main()", "env=cartpole"]
        varied = ["lr=1e-3,5e-4", "seeds=5", "--jobs", str(jobs)]
        settings = ["steps=10000", "compile=always", f"out={folder}/runs", *varied]
        subprocess.run([*command, *settings], capture_output=True, check=True)
        return time.time() - started


def process(code: str) -> float:
    """Seconds of a process that runs this code."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


STARTS = {
    "`import torch`, for comparison": partial(process, "import torch"),
    "`sqn-list`": partial(process, "from sqn_rl.cli.list import main; main()"),
    "`sqn-run` to its first environment step": first_step,
    "`sqn-run` to its first compiled update, where one was compiled before": compiled_start,
}
SWEEP = "sweep"


def seconds_of_starts(rounds: int) -> dict[str, list[float]]:
    """Of every command; the first start, which may write bytecode and compile, does not count."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with _own_cache():
        return {name: [start() for _ in range(1 + rounds)][1:] for name, start in STARTS.items()}


def seconds_of_sweeps(rounds: int) -> dict[str, list[float]]:
    """By the number of jobs at once, in turns; what the first compiles is there for all."""
    with _own_cache():
        sweep(2)
        both = [(sweep(1), sweep(2)) for _ in range(rounds)]
    one, two = zip(*both, strict=True)
    return {"1": [*one], "2": [*two]}


@contextmanager
def _own_cache() -> Iterator[None]:
    """A context in which compiled code is kept in a folder of its own, empty at first."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        yield
    del os.environ["XDG_CACHE_HOME"]
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


def measure(raw: dict[str, Any], only: str | None, rounds: int, cleanrl: str | None) -> None:
    """Run the races, or one of them, and put what they gave into ``raw``."""
    kind = KINDS[0] if has_amx() else KINDS[1]
    facts = {
        "rounds": rounds,
        "revision": revision(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
    }
    for name, each in races(cleanrl).items():
        if only in (None, name):
            print(name, file=sys.stderr)
            race(each.contenders, leg=each.leg, rounds=rounds, threads=each.threads)
            contenders = {
                who: {
                    "arguments": ["…" if word == cleanrl else word for word in contender.arguments],
                    "legs": contender.legs,
                }
                for who, contender in each.contenders.items()
            }
            raw[f"{name} | {kind}"] = {
                **facts,
                "threads": each.threads,
                "leg": each.leg,
                "contenders": contenders,
            }
    if only in (None, "start"):
        raw[f"start | {kind}"] = {**facts, "seconds": seconds_of_starts(rounds)}
    if only in (None, SWEEP):
        few = {"rounds": min(rounds, 3)}
        raw[f"{SWEEP} | {kind}"] = {**facts, **few, "sweeps": seconds_of_sweeps(**few)}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=[*races(None), "start", SWEEP])
    parser.add_argument("--cleanrl", metavar="FOLDER", help="a checkout of CleanRL")
    arguments = parser.parse_args()
    raw = json.loads(RAW.read_text()) if RAW.exists() else {}
    measure(raw, arguments.only, arguments.rounds, arguments.cleanrl)
    RAW.write_text(json.dumps(raw, indent=1) + "\n")
    big = json.loads(BIG.read_text())["rows"] if BIG.exists() else {}
    PAGE.write_text(page(raw, big, by_hand(PAGE)))
    print(tables(raw, big))


if __name__ == "__main__":
    main()
