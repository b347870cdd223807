"""Run jobs, two at a time, and keep a row of each: resumable, at low priority."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .plan import Job

ROOT = Path(__file__).resolve().parents[3]
RAW = ROOT / "docs" / "results" / "raw"
BINS = 50
"""Points of a kept training curve."""
KEPT = ("env_steps", "updates", "episodes", "git_revision")
Row = dict[str, Any]


def rows_of(phase: str) -> list[Row]:
    """The rows that there are."""
    path = RAW / f"evidence_{phase}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(jobs: Iterable[Job], folder: Path, at_a_time: int) -> bool:
    """Run those of which there is no row; whether all are done: not after SIGTERM, SIGINT or a failure.

    A run that was stopped, or killed, resumes from its checkpoint in ``folder`` when it is its turn again.
    """
    waiting = deque(job for job in jobs if not _is_done(job))
    total, stopping, lock = len(waiting), threading.Event(), threading.Lock()
    running: set[subprocess.Popen[bytes]] = set()

    def stop(number: int, _: Any) -> None:
        stopping.set()
        for process in [*running]:
            process.send_signal(signal.SIGTERM)

    def work() -> None:
        while not stopping.is_set():
            with lock:
                if not waiting:
                    return
                job = waiting.popleft()
            _train(job, folder, running, stopping, lock)
            if not stopping.is_set():
                print(f"{total - len(waiting)}/{total}", *job.key, flush=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    threads = [threading.Thread(target=work) for _ in range(at_a_time)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)  # so that signals are received
    return not waiting and not stopping.is_set()


def _is_done(job: Job) -> bool:
    return any(_key(row) == job.key for row in rows_of(job.phase))


def _key(row: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return row["agent"], row["variant"], row["task"], row["seed"]


def _train(
    job: Job,
    folder: Path,
    running: set[subprocess.Popen[bytes]],
    stopping: threading.Event,
    lock: threading.Lock,
) -> None:
    out = folder / job.phase / "-".join(map(_plain, job.key))
    out.parent.mkdir(parents=True, exist_ok=True)
    log, spent = out.with_suffix(".log"), out.with_suffix(".cpu")
    command = [sys.executable, "-m", job.program, *job.overrides, f"out={out}", "resume=auto"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
            preexec_fn=_low_priority,
        )
    running.add(process)
    if stopping.is_set():
        process.send_signal(signal.SIGTERM)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    running.discard(process)
    with spent.open("a") as file_of_seconds:
        file_of_seconds.write(f"{usage.ru_utime + usage.ru_stime:.1f}\n")
    summary_file = out / "summary.json"
    summary = json.loads(summary_file.read_text()) if summary_file.exists() else {}
    if summary.get("status") != "done":
        if not stopping.is_set():
            print(f"FAILED {job.key}: {log}", file=sys.stderr, flush=True)
        return
    cpu_s = sum(map(float, spent.read_text().split()))
    with lock, (RAW / f"evidence_{job.phase}.jsonl").open("a") as rows:
        rows.write(json.dumps(_row(job, out, summary, cpu_s)) + "\n")
    shutil.rmtree(out)
    log.unlink()
    spent.unlink()


def _row(job: Job, out: Path, summary: Row, cpu_s: float) -> Row:
    evaluation = json.loads((out / "evaluations.jsonl").read_text().splitlines()[-1])
    episodes = (out / "episodes.jsonl").read_text().splitlines()
    curve = training_curve(episodes, summary["env_steps"])
    return {
        "agent": job.agent,
        "variant": job.variant,
        "task": job.task,
        "seed": job.seed,
        **{name: summary.get(name) for name in KEPT},  # a peer's program has no revision of ours
        "cpu_s": round(cpu_s, 1),
        "compiled": summary.get("compiled"),
        "final": round(evaluation["mean"], 3),
        "returns": [round(each, 2) for each in evaluation["returns"]],
        "area": round(float(np.mean(curve)), 4),
        "curve": [round(float(each), 4) for each in curve],
    }


def training_curve(lines: Iterable[str], env_steps: int) -> np.ndarray:
    """The mean return of the training episodes that ended in each of 50 equal parts of the budget.

    Where none ended it is that of the part before; before the first, that of the first.
    """
    episodes = [json.loads(line) for line in lines]
    step_E = np.array([each["env_steps"] for each in episodes])
    return_E = np.array([each["return"] for each in episodes])
    part_E = np.minimum((step_E - 1) * BINS // env_steps, BINS - 1)
    means = [return_E[part_E == part].mean() if (part_E == part).any() else np.nan for part in range(BINS)]
    there = np.flatnonzero(~np.isnan(means))
    nearest = np.maximum(np.searchsorted(there, np.arange(BINS), side="right") - 1, 0)
    return np.array(means)[there[nearest]]


def _plain(value: object) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", str(value))


def _low_priority() -> None:
    os.nice(19)
