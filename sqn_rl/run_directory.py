"""The run directory: everything that a run leaves behind."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sqn_rl.agent import Agent
from sqn_rl.checkpoint import save_weights
from sqn_rl.curve import draw_curve
from sqn_rl.errors import SettingError
from sqn_rl.training import Counters, Reporter

PACKAGES = ("sqn_rl", "torch", "torchrl", "tensordict", "gymnasium", "ale-py", "numpy")


class RunDirectory(Reporter):
    """Writes ``recipe.yaml``, the logs, the weights, the curve and the summary of one run.

    Args:
        path: the directory; made, with its parents.
        recipe: the resolved recipe, as YAML text; enough to run again.

    Raises:
        SettingError: there is a run in ``path`` already.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            with (path / "recipe.yaml").open("x", encoding="utf-8") as file:
                file.write(recipe)
        except FileExistsError as error:
            raise SettingError("out", str(path), "a directory without a run in it") from error
        except OSError as error:
            raise SettingError(
                "out", str(path), f"a directory that can be written to ({error.strerror})"
            ) from error
        self._evaluation: dict[str, Any] | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the weights lie."""
        return self.path / "checkpoints"

    def metrics(self, row: dict[str, Any]) -> None:
        """Append to ``metrics.jsonl``."""
        self._append("metrics.jsonl", row)

    def episode(self, row: dict[str, Any]) -> None:
        """Append to ``episodes.jsonl``."""
        self._append("episodes.jsonl", row)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Append to ``evaluations.jsonl``."""
        self._append("evaluations.jsonl", row)
        self._evaluation = row

    def checkpoint(self, agent: Agent, counters: Counters) -> None:
        """Write the weights."""
        save_weights(self.checkpoints, agent.loss, counters.env_steps)

    def finish(self, status: str, counters: Counters, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``summary.json``, draw ``curve.png``, and return the summary.

        Args:
            status: ``done``, ``stopped``, or what went wrong.
            counters: what was done.
            facts: recipe, environment, seed and whatever else identifies the run.
        """
        summary = {
            "status": status,
            **facts,
            **counters.row(),
            "steps_per_s": round(counters.env_steps / counters.wall_s, 1) if counters.wall_s else None,
            "evaluation": self._evaluation if status == "done" else None,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "git_revision": _git_revision(),
            "hardware": {
                "processor": _processor(),
                "threads": torch.get_num_threads(),
                "platform": platform.platform(),
            },
            "command": sys.argv,
        }
        (self.path / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        title = f"{facts.get('recipe')} on {facts.get('env')}, seed {facts.get('seed')}"
        rows = (read_rows(self.path / f"{name}.jsonl") for name in ("metrics", "episodes", "evaluations"))
        draw_curve(self.path / "curve.png", title, *rows)
        return summary

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log such as ``metrics.jsonl``; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _git_revision() -> str | None:
    """The revision of the checkout that this package runs from, with ``+changes`` if it has any."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True)
        if tracked.returncode:
            return None
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.strip() + ("+changes" if changes else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
