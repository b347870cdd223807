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

RECIPES = ("sqn", "sqn_rainbow")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
TASK_OF = {"CartPole": ("env=cartpole",), "Pong from RAM": ("env=atari_ram", "env.game=pong")}


def measure(folder: Path) -> list[Line]:
    """A line for each task, of recipes as they ship."""
    return [_line(folder, task) for task in TASK_OF]


def _line(folder: Path, task: str) -> Line:
    train(folder / f"imports {task}", *TASKS[task], *TINY, "steps=100")
    chance, stopped, wrong = random.Random(0), {}, []
    for recipe in RECIPES:
        for number in SIGNALS:
            run = folder / task.replace(" ", "_") / f"{recipe} {number.name}"
            code, took = _stopped(run, number, chance.uniform(0, 30), f"recipe={recipe}", *TASK_OF[task])
            stopped[run.name] = took
            summary = json.loads((run / "summary.json").read_text())
            if code != 3 or summary["status"] != "stopped" or not _saved(run, summary["env_steps"]):
                wrong.append(run.name)
    right = len(stopped) - len(wrong)
    return Line(
        f"{task}: {len(stopped)} runs stopped, with exit code 3 and a checkpoint",
        "all, within 5 s",
        f"{right}; within {max(stopped.values()):.1f} s",
        not wrong and max(stopped.values()) <= 5,
        {"seconds": stopped, "wrong": wrong},
    )


def _stopped(run: Path, number: signal.Signals, later: float, *settings: str) -> tuple[int, float]:
    """Send a signal to a run, some time after it began to learn, which begins with compiling.

    Returns:
        Its exit code, and after how many seconds it ended.
    """
    cache = run.with_name(f"{run.name} compiled".replace(" ", "_"))  # a C++ compiler wants no spaces
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # empty, so that the run must compile
    child = begin(lambda: main([*settings, "compile=always", "warmup_steps=200", f"out={run}"]))
    while not (run / "checkpoints" / "0000000200").exists():  # written before compiling begins
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    time.sleep(later)
    os.kill(child, number)
    began = time.monotonic()
    _, code = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(code), round(time.monotonic() - began, 2)


def _saved(run: Path, env_steps: int) -> bool:
    return (run / "checkpoints" / f"{env_steps:010d}" / "manifest.json").exists()


SECTION = Section(
    "signals",
    "5. Signals",
    """SIGTERM, SIGINT and SIGUSR1 at some moment of the first half minute after the warm-up, to recipes with
the settings they ship with, compiled: some while that is being done, some while they learn.""",
    measure,
)
