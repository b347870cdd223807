"""``sqn-ablate --launcher submitit``: each run is a separate job, which resumes when it is requeued."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sqn_rl.analysis.grid import Job, jobs_of, variants_of
from sqn_rl.analysis.pool import run_jobs
from sqn_rl.errors import to_install
from sqn_rl.recipe.catalogue import Catalogue

Command = Callable[..., Any]

LONG = [
    "steps=8000",
    "warmup_steps=7900",
    "batch_size=4",
    "eval_every=0",
    "eval_episodes=1",
    "update_ratio=0.1",
]
CATALOGUE = Catalogue()
needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="could not import 'submitit'")


def descendants(number: int) -> dict[int, str]:
    """The processes below one, and their command lines."""
    found: dict[int, str] = {}
    for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        found |= {int(child): command} | descendants(int(child))
    return found


@needs_submitit
@pytest.mark.slow
def test_a_requeued_job_resumes_its_run(folder: Path) -> None:
    from sqn_rl.analysis.submitting import Submitter

    job = jobs_of(variants_of(["head=linear,dueling", *LONG], CATALOGUE), 1, Path("here"), CATALOGUE)[0]
    queue, ended, requeued = iter([job]), [], []

    def preempt(job: Job) -> bool:
        """Preempt the job once, as Slurm does, with SIGUSR2."""
        if (job.out / "episodes.jsonl").exists() and not requeued:
            tasks = [
                each for each, line in descendants(os.getpid()).items() if "submitit.core._submit" in line
            ]
            requeued.extend(tasks)
            os.kill(tasks[0], signal.SIGUSR2)
        return False

    stopped = run_jobs(
        lambda: next(queue, None),
        1,
        [],
        lambda *what: ended.append(what),
        is_unwanted=preempt,
        start=Submitter(Path("here/submitit"), {}),
    )
    log = job.log.read_text()
    assert (stopped, ended) == (None, [(job, 0)])
    assert len(requeued) == 1
    assert "stopped by SIGTERM" in log
    assert "resuming from here/base/s0/checkpoints/" in log
    assert job.summary["status"] == "done"


@needs_submitit
@pytest.mark.slow
def test_failed_jobs_are_reported_by_name_and_left_out_of_the_comparison(
    trusting: list[str], command: Command
) -> None:
    task = [
        "env=gym",
        "env.id=users/Task-v0",
        "+env.kwargs.happens=an_error",
        "+env.kwargs.at=10",
        "steps=100",
    ]
    arguments = ["head=linear,dueling", "seeds=1", "out=here", "--jobs", "2", "--launcher", "submitit"]
    done = command("ablate", *trusting, *task, *arguments, "--submit", "timeout_min=5")
    assert done.code == 2
    lines = done.out.splitlines()[2:]
    assert len(lines) == 2
    assert all("exit code 1: users/Task-v0" in line and "the robot fell over" in line for line in lines)
    assert done.err.startswith("there is no finished run to compare\nleft out: here/base/s0: failed after ")


@needs_submitit
def test_submit_parameters_that_the_cluster_refuses_are_reported(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("srun", "sbatch"):
        (folder / name).write_text("#!/bin/sh\necho invalid partition >&2\nexit 1\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    submit = ["--launcher", "submitit", "--submit", "slurm_partition=typo"]
    done = command("ablate", "head=linear,dueling", "out=here", *submit)
    expected = "submit = 'slurm_partition=typo': expected parameters that the cluster accepts ("
    assert done.code == 2
    assert f"\n{expected}" in done.err


@needs_submitit
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--submit", "a=1"], "submit = 'a=1': expected it only together with --launcher submitit"),
        (["--launcher", "submitit", "--submit", "a"], "submit = 'a': expected NAME=VALUE"),
        (
            ["--launcher", "submitit", "--submit", "a=1"],
            "submit = 'a=1': expected parameters of submitit (Parameter 'a'",
        ),
        (
            ["--launcher", "submitit", "--submit", "slurm_queue=x"],
            "submit = 'slurm_queue=x': expected parameters of submitit (Unknown argument 'queue'",
        ),
        (
            ["--launcher", "submitit", "--submit", "timeout_min=x"],
            "submit = 'timeout_min=x': expected parameters of submitit (Parameter \"timeout_min\" ",
        ),
    ],
)
def test_invalid_submit_parameters_are_refused_before_any_run_starts(
    arguments: list[str], message: str, folder: Path, command: Command
) -> None:
    done = command("ablate", "head=linear,dueling", *arguments)
    assert (done.code, done.err[: len(message)]) == (2, message)
    assert not list(folder.rglob("recipe.yaml"))


def test_without_submitit_the_launcher_is_refused_with_what_to_install(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    done = command("ablate", "head=linear,dueling", "--launcher", "submitit")
    assert (done.code, done.err) == (
        2,
        f"--launcher submitit needs submitit\n  the extra `submitit`: {to_install('submitit')}\n",
    )


@needs_submitit
def test_importing_submitit_leaves_the_handlers_of_logging_unchanged(tmp_path: Path) -> None:
    """In a new process, as a module is imported once per process."""
    program = f"""
import logging, os
handler = logging.FileHandler({str(tmp_path / "log")!r})
from sqn_rl.analysis.submitting import import_submitit
assert import_submitit().AutoExecutor
assert not handler.stream.closed and handler in [each() for each in logging._handlerList]
assert not logging.getLogger("submitit").handlers and "SUBMITIT_LOG_LEVEL" not in os.environ
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
