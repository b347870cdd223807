"""Submit runs as jobs of submitit: to Slurm, or without it to local processes."""

import os
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqn_rl.analysis.grid import Job
from sqn_rl.analysis.pool import start_run
from sqn_rl.disk import Folder
from sqn_rl.errors import SettingError, explain

if TYPE_CHECKING:
    from submitit import Job as Submitted
    from submitit.helpers import DelayedSubmission

TIMEOUT = 24 * 60
"""Minutes of a job, if ``timeout_min`` is not given; after them it is requeued, and resumes."""

LOGGING = "SUBMITIT_LOG_LEVEL"
"""The variable with the level at which submitit logs, or with ``NOCONFIG`` to leave logging alone."""


def import_submitit() -> Any:
    """Import submitit, but leave logging as it is: the import would close the handlers of the process."""
    before = os.environ.get(LOGGING)
    os.environ[LOGGING] = "NOCONFIG"
    try:
        return import_module("submitit")
    finally:
        del os.environ[LOGGING]
        if before is not None:
            os.environ[LOGGING] = before


class Task:
    """The task of a job: a run, which a requeued job resumes.

    Args:
        log: the file for its output.
        arguments: the arguments of ``sqn-run``.
    """

    def __init__(self, log: Path, arguments: Sequence[str]) -> None:
        self.log, self.arguments = log, arguments

    def __call__(self) -> int:
        """Run it, and return its exit code."""
        process = start_run(self.log, self.arguments)
        try:
            return process.wait()
        finally:  # the job is requeued or cancelled: the run saves a checkpoint
            process.terminate()
            process.wait()

    def checkpoint(self) -> "DelayedSubmission":
        """The task of a requeued job: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class RunningJob:
    """A job that was submitted.

    Args:
        job: the job.
        log: the file for the output of its run.
    """

    def __init__(self, job: "Submitted[int]", log: Path) -> None:
        self.job, self.log = job, log
        self.code: int | None = None

    def poll(self) -> int | None:
        """The exit code of its run, or 1 if the job was lost; None if it has not ended."""
        if self.code is None and self.job.done():
            try:
                self.code = int(self.job.result())
            except Exception as error:  # submitit may raise anything
                self.code = 1
                line = f"submitit: job {self.job.job_id}: {explain(error)}\n"
                with Folder(self.log.parent) as folder:
                    folder.append(self.log.name, line.encode())
        return self.code

    def send_signal(self, sig: int, /) -> None:
        """Cancel it, whatever the signal."""
        self.terminate()

    def terminate(self) -> None:
        """Cancel it: its run is stopped with a checkpoint."""
        if self.poll() is None:
            self.job.cancel(check=False)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        while (code := self.poll()) is None:
            time.sleep(0.1)
        return code


class Submitter:
    """Submits jobs.

    Args:
        folder: the folder for files of submitit.
        parameters: parameters of submitit's ``AutoExecutor``: ``timeout_min``, ``slurm_partition``, …

    Raises:
        SettingError: submitit refuses a parameter.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        submitit = import_submitit()

        self._given = " ".join(f"{name}={value}" for name, value in parameters.items())
        self._executor = submitit.AutoExecutor(folder=folder)
        self.is_local = self._executor.cluster == "local"
        """Whether jobs are local processes."""
        try:
            self._executor.update_parameters(**{"timeout_min": TIMEOUT, "name": "sqn-run", **parameters})
        except (AssertionError, NameError, TypeError, ValueError) as error:
            expected = f"parameters of submitit ({_first_line(error)})"
            raise SettingError("submit", self._given, expected) from error

    def __call__(self, job: Job, options: Sequence[str]) -> RunningJob:
        """Submit a job.

        Raises:
            SettingError: the cluster refuses it.
        """
        task = Task(job.log, [*options, *job.overrides])
        try:
            submitted = self._executor.submit(task)
        except Exception as error:  # submitit's own of the cluster's command, among others
            expected = f"parameters that the cluster accepts ({_first_line(error)})"
            raise SettingError("submit", self._given, expected) from error
        return RunningJob(submitted, job.log)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
