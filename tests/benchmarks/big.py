"""Commands on big inputs: seconds and memory of the report of 1,000 runs, and of one run's curve and page.

    python tests/benchmarks/big.py [--runs 1000] [--episodes 5000000]

The runs are copies of two tiny ones, with other scores and 1,000 episodes each. Needs 0.5 GB of disk in the
temporary folder for the long run. Writes ``docs/results/raw/big.json``. Some minutes.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from machine import machine, revision

from sqn_rl import compose
from sqn_rl.recipe.catalogue import Catalogue

RAW = Path(__file__).resolve().parents[2] / "docs" / "results" / "raw" / "big.json"
TINY = ["steps=300", "num_envs=2", "warmup_steps=100", "hidden=[8]", "eval_every=100", "eval_episodes=2"]
HEADS = ("linear", "dueling")


def make_runs(folder: Path, count: int) -> None:
    """Finished runs of both heads, each with seeds from 0 on."""
    generator = random.Random(0)
    episodes = [{"env_steps": step, "return": step % 500.0, "length": 20} for step in range(1_000)]
    for head in HEADS:
        first = folder / head / "0"
        compose("sqn", *TINY, f"head={head}", f"out={first}").train()
        rows = [json.loads(line) for line in (first / "evaluations.jsonl").read_text().splitlines()]
        for seed in range(1, count // len(HEADS)):
            run = folder / head / str(seed)
            run.mkdir()
            for row in rows:
                row["mean"] = generator.gauss(100, 10)
            own = json.loads((first / "summary.json").read_text())
            own |= {"seed": seed, "out": str(run), "evaluation": rows[-1]}
            recipe = (first / "recipe.yaml").read_text().replace("seed: 0 ", f"seed: {seed} ")
            (run / "recipe.yaml").write_text(recipe)
            (run / "summary.json").write_text(json.dumps(own))
            for name, lines in (("evaluations", rows), ("episodes", episodes)):
                (run / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def compare(folder: Path) -> None:
    """``sqn-compare`` of all runs."""
    from sqn_rl.cli.compare import main

    assert main([str(folder / head) for head in HEADS] + ["--output", str(folder / "report")]) == 0


def make_long_run(run: Path, episodes: int) -> None:
    """A finished run with so many episodes."""
    compose("sqn", *TINY, f"out={run}").train()
    with (run / "episodes.jsonl").open("w") as file:
        for number in range(episodes):
            file.write(f'{{"env_steps": {20 * number}, "return": {number % 500}.0, "length": 20}}\n')


def curve(run: Path) -> None:
    """``curve.png``, as at the end of a run."""
    from sqn_rl.plots.curve import draw_curve
    from sqn_rl.plots.logs import Log

    logs = [Log(run / f"{name}.jsonl").read() for name in ("metrics", "episodes", "evaluations")]
    assert draw_curve("a long run", *logs)


def watch(run: Path) -> None:
    """What the page of the run shows when it is opened."""
    from sqn_rl.watch.run import WatchedRun

    assert json.dumps(WatchedRun(run, Catalogue()).state())


def measured(work: Callable[[], None]) -> dict[str, Any]:
    """Seconds, processor seconds and the most memory of ``work`` in a process of its own."""
    began = time.perf_counter()
    if not (child := os.fork()):
        try:
            work()
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    seconds = time.perf_counter() - began
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 1), "cpu_s": round(cpu, 1), "MB": round(usage.ru_maxrss / 1000)}


def main() -> None:
    """Make the inputs, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--episodes", type=int, default=5_000_000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder, run = Path(temporary) / "runs", Path(temporary) / "long"
        make_runs(folder, arguments.runs)
        make_long_run(run, arguments.episodes)
        rows = {
            f"sqn-compare of {arguments.runs:,} runs": measured(lambda: compare(folder)),
            f"curve.png of {arguments.episodes:,} episodes": measured(lambda: curve(run)),
            f"the page of {arguments.episodes:,} episodes": measured(lambda: watch(run)),
        }
    for name, row in rows.items():
        print(f"{name:<36}{row['seconds']:>7} s {row['cpu_s']:>7} s of processor {row['MB']:>6} MB")
    RAW.write_text(json.dumps({"machine": machine(), "revision": revision(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
