"""Kills of actors and of their learner, at random times."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from reliability.score import Line, Section
from reliability.trials import TASKS
from scale.processes import actors_of, digests

from sqn_rl import compose

STEPS, KILLS = 4_000, 10
SETTINGS = [
    *("num_envs=4", "hidden=[32]", "batch_size=16", "warmup_steps=400", "update_ratio=0.1", "compile=never"),
    *("replay_capacity=2000", "log_every=200", "checkpoint_every=1000", "eval_episodes=1", "returns=n_step"),
    *("collect.actors=2", "collect.rows=20", "collect.ladder=4", f"steps={STEPS}"),
]
COMMAND = "from sqn_rl.cli.run import main; raise SystemExit(main())"
LATER = (0.0, 1.0)
"""Seconds until the next kill, counted from the first progress after the last one: actors start slowly."""
HANGS = 120
"""Seconds after which a learner that has not ended counts as hanging."""


def measure(folder: Path) -> list[Line]:
    """A line for each task."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        return [_line(folder / task, task) for task in ("CartPole", "Pong from RAM")]
    finally:
        ray.shutdown()


def _line(folder: Path, task: str) -> Line:
    settings = [*TASKS[task], *SETTINGS]
    compose("sqn_per", *settings, "collect=inline", f"out={folder}/inline").train()
    expected = digests(folder / "inline", STEPS)
    settings += ["collect=ray", f"collect.address={ray.get_runtime_context().gcs_address}"]
    chance, killed, runs = random.Random(0), Counter[str](), list[dict[str, Any]]()
    while killed.total() < KILLS:
        out = folder / f"ray{len(runs)}"
        before, hangs = killed.copy(), _killed_until_it_ends(out, settings, chance, killed)
        same = not hangs and digests(out, STEPS) == expected
        runs.append({"same": same, "hangs": hangs, **(killed - before)})
        print(task, runs[-1], flush=True)
    same = sum(run["same"] for run in runs)
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    ways = ", ".join(f"{number} of {who}" for who, number in sorted(killed.items()))
    return Line(
        f"{task}, 2 actors on Ray: {killed.total()} kills at random times ({ways}), in {count}",
        "every byte as in one process",
        f"{same} of {len(runs)} runs",
        same == len(runs),
        runs,
        killed.total(),
        {"hangs": sum(run["hangs"] for run in runs)},
    )


def _killed_until_it_ends(out: Path, settings: list[str], chance: random.Random, killed: Counter[str]) -> int:
    """Kill actors and the learner of a run, and resume it, until it ends; 1 if it hangs, else 0."""
    before = 0
    while True:
        command = [sys.executable, "-c", COMMAND, "recipe=sqn_per", *settings, f"out={out}", "resume=auto"]
        learner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began = time.monotonic()
        try:
            while learner.poll() is None:
                if time.monotonic() - began > HANGS:
                    return 1
                if (actors := actors_of(os.getpid())) and (there := _size(out / "metrics.jsonl")) != before:
                    before = there
                    time.sleep(chance.uniform(*LATER))
                    who = "the learner" if chance.random() < 1 / 3 else "an actor"
                    _kill(learner.pid if who == "the learner" else chance.choice(actors))
                    killed[who] += learner.poll() is None or who == "the learner"
                time.sleep(0.02)
        finally:
            learner.kill()
            learner.wait()
        if learner.returncode == 0:
            return 0


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, signal.SIGKILL)


SECTION = Section(
    "actors",
    "1. Exact resume of runs with actors",
    """Actors in processes of Ray, and their learner, are killed with SIGKILL at random times; a learner is
started again with the same command. Then weights, moments, priorities, the replay and the episodes are
compared with those of a run whose actors are in its own process.""",
    measure,
)
