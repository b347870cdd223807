"""The base of loggers that send a run to an experiment tracker."""

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from sqn_rl.disk import EVALUATIONS_FILE, Folder
from sqn_rl.errors import SettingError, to_install
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.types import Counters

CURVE = "curve.png"
LONGEST = 10_000
"""The largest size of the file that records what was sent to a tracker."""


class TrackingLogger(Reporter):
    """Sends the rows of the logs to a tracker, by environment steps; abstract.

    ``<run>/<tracker>.json`` has the tracker's id of the run, and the environment steps of the last row sent.
    A resumed run continues there: rows that a checkpoint has dropped, and that are computed again, are not
    sent again, and rows from before the logger was chosen are sent first. If the tracker is not
    ``synchronous``, the steps are written only at the end: what a killed process had sent may be lost, and
    is sent again.

    Args:
        tracker: the name of the tracker.
        directory: the run directory.
        recipe: the resolved config.
        title: the run's title.
    """

    synchronous = True
    """Whether a row that was sent is stored even if the process is killed afterwards."""

    def __init__(self, tracker: str, directory: Path, recipe: Mapping[str, Any], title: str) -> None:
        self._file, self._directory, self._begun = f"{tracker}.json", directory, False
        self._recipe, self._name = recipe, f"{title} s{recipe['seed']}"
        self._sent: dict[str, Any] = _read(directory / self._file)

    @abstractmethod
    def open(self, id: str | None, recipe: Mapping[str, Any], name: str) -> str:
        """Begin a run of the tracker, or continue the one with this id; return the id."""

    @abstractmethod
    def send(self, values: Mapping[str, float], env_steps: int) -> None:
        """Send the numbers of a row."""

    @abstractmethod
    def send_figure(self, path: Path) -> None:
        """Send the picture of the finished run."""

    @abstractmethod
    def end(self, status: str) -> None:
        """End the run, or stop for now: ``status`` is that of the summary."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until everything is stored; nothing more is sent."""

    def begin(self, counters: Counters) -> None:
        """Begin or continue the tracker's run; not called when a recipe is only checked.

        Raises:
            SettingError: the tracker refuses, as without a login.
        """
        self._begin()

    def metrics(self, row: dict[str, Any]) -> None:
        """Every number, under ``train/``."""
        self._send_once("train", row)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Mean, standard deviation and IQM, under ``evaluation/``."""
        self._send_once("evaluation", row)

    def finished(self, summary: dict[str, Any]) -> None:
        """The curve, if training has ended; nothing if the tracker's run could not begin."""
        if not self._begun:
            return
        if summary["status"] == "done":
            self.send_figure(self._directory / CURVE)
        self.end(summary["status"])

    def _begin(self) -> None:
        """Begin or continue the tracker's run, unless that was done, and send the rows in the logs."""
        if self._begun:
            return
        with ExitStack() as unless_open:
            folder = unless_open.enter_context(Folder(self._directory))
            self._sent["id"] = self.open(self._sent["id"], self._recipe, self._name)
            unless_open.pop_all()
        self._begun = True
        self._folder = folder  # held open: its path may lead to another run's later
        self._write()
        logs = {"train": "metrics.jsonl", "evaluation": EVALUATIONS_FILE}
        stored = [(group, row) for group, file in logs.items() for row in rows(self._directory / file)]
        stored.sort(key=lambda each: int(each[1]["env_steps"]))  # trackers expect rows in order
        for group, row in stored:
            self._send_once(group, row)

    def _send_once(self, group: str, row: Mapping[str, Any]) -> None:
        self._begin()
        env_steps = row["env_steps"]
        if env_steps <= self._sent[group]:
            return
        self.send({f"{group}/{name}": value for name, value in numbers(row).items()}, env_steps)
        self._sent[group] = env_steps
        if self.synchronous:
            self._write()

    def close(self) -> None:
        """Wait until everything is stored."""
        if self._begun:
            self.wait()
            self._write()
            self._folder.__exit__()

    def _write(self) -> None:
        self._folder.write_atomic(self._file, [json.dumps(self._sent).encode()])


def missing(name: str) -> NoReturn:
    """Refuse a logger whose package is not installed.

    Raises:
        SettingError: always.
    """
    raise SettingError("logger", name, f"the extra `{name}`: {to_install(name)}")


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row, except the environment steps."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "env_steps"
    }


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log, which the run has checked already; none if the log does not exist."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested config, by dotted key."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read(path: Path) -> dict[str, Any]:
    """What was sent: the content of the file, or nothing if it does not exist or is not valid."""
    nothing: dict[str, Any] = {"id": None, "train": -1, "evaluation": -1}
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(LONGEST))
        has_id = isinstance(found["id"], str) and re.fullmatch(r"[\w-]{1,128}", found["id"]) is not None
        has_steps = all(type(found[name]) is int for name in ("train", "evaluation"))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return nothing
    return found if has_id and has_steps else nothing
