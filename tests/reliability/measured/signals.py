"""Signals: how long a run takes to stop."""

import json
import os
import random
import signal
import time
from pathlib import Path

from reliability.score import Line, Section
from reliability.trials import TASKS, TINY, begin, train

from sqn_rl.cli.run import main

RECIPES = ("sqn", "sqn_rainbow", "discrete_sac")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
TASK_OF = {"CartPole": ("env=cartpole",), "Pong from RAM": ("env=atari_ram", "env.game=pong")}


def measure(folder: Path) -> list[Line]:
    """A line for each task, of recipes as they ship."""
    return [_line(folder, task) for task in TASK_OF]


def _line(folder: Path, task: str) -> Line:
    train(folder / f"imports {task}", *TASKS[task], *TINY, "steps=100")
    chance, seconds, wrong = random.Random(0), {}, []
    for recipe in RECIPES:
        for number in SIGNALS:
            run = folder / task / f"{recipe} {number.name}"
            code, took = _stopped(run, number, chance.uniform(0, 2), f"recipe={recipe}", *TASK_OF[task])
            seconds[run.name] = round(took, 3)
            summary = json.loads((run / "summary.json").read_text())
            if code != 3 or summary["status"] != "stopped" or not _saved(run, summary["env_steps"]):
                wrong.append(run.name)
    slowest = max(seconds.values())
    return Line(
        f"{task}: {len(seconds)} runs stopped with exit code 3 and a checkpoint",
        "all, within 5 s",
        f"{len(seconds) - len(wrong)}, the slowest {slowest:.1f} s, the median {_median(seconds):.1f} s",
        not wrong and slowest <= 5,
        {"seconds": seconds, "wrong": wrong},
    )


def _stopped(run: Path, number: signal.Signals, later: float, *settings: str) -> tuple[int, float]:
    """Send a signal to a run, some time after it began to learn; its exit code, and how long that took."""
    arguments = [*settings, "warmup_steps=200", "log_every=100", f"out={run}"]
    child = begin(lambda: main(arguments))
    rows = run / "metrics.jsonl"
    while not (rows.exists() and "loss_q" in rows.read_text()):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    time.sleep(later)
    os.kill(child, number)
    began = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, time.monotonic() - began


def _saved(run: Path, env_steps: int) -> bool:
    return (run / "checkpoints" / f"{env_steps:010d}" / "manifest.json").exists()


def _median(seconds: dict[str, float]) -> float:
    return sorted(seconds.values())[len(seconds) // 2]


SECTION = Section(
    "signals",
    "5. Signals",
    """SIGTERM, SIGINT and SIGUSR1 at some moment after learning has begun, to recipes with the settings they ship
with. The processor was shared, and gave these runs a part of its time.""",
    measure,
)
