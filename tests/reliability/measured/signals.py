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
            run = folder / task / f"{recipe} {number.name}"
            code, *took = _stopped(run, number, chance.uniform(0, 2), f"recipe={recipe}", *TASK_OF[task])
            stopped[run.name] = took
            summary = json.loads((run / "summary.json").read_text())
            if code != 3 or summary["status"] != "stopped" or not _saved(run, summary["env_steps"]):
                wrong.append(run.name)
    right = len(stopped) - len(wrong)
    processor, clock = (max(each) for each in zip(*stopped.values(), strict=True))
    return Line(
        f"{task}: {len(stopped)} runs stopped, with exit code 3 and a checkpoint",
        "all, within 5 s",
        f"{right}; at most {processor:.1f} s of the processor, {clock:.1f} s of the clock",
        not wrong and clock <= 5,
        {"processor and clock": stopped, "wrong": wrong},
    )


def _stopped(run: Path, number: signal.Signals, later: float, *settings: str) -> tuple[int, float, float]:
    """Send a signal to a run, some time after it began to learn.

    Returns:
        Its exit code, and after how many seconds of the processor and of the clock it ended.
    """
    arguments = [*settings, "compile=never", "warmup_steps=200", "log_every=100", f"out={run}"]
    child = begin(lambda: main(arguments))
    rows = run / "metrics.jsonl"
    while not (rows.exists() and "loss_q" in rows.read_text()):
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    time.sleep(later)
    user, system = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
    os.kill(child, number)
    began = time.monotonic()
    _, code, used = os.wait4(child, 0)
    processor = used.ru_utime + used.ru_stime - (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return os.waitstatus_to_exitcode(code), round(processor, 2), round(time.monotonic() - began, 2)


def _saved(run: Path, env_steps: int) -> bool:
    return (run / "checkpoints" / f"{env_steps:010d}" / "manifest.json").exists()


SECTION = Section(
    "signals",
    "5. Signals",
    """SIGTERM, SIGINT and SIGUSR1 at some moment after learning has begun, to recipes with the settings they
ship with, but not compiled: a signal that comes while an update is being compiled waits for that. The clock
decides; where other work has most of the processor, the processor's seconds say what an idle one may do.""",
    measure,
)
