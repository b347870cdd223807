"""The TensorBoard logger."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from sqn_rl.disk import EVALUATIONS_FILE, Folder
from sqn_rl.errors import SettingError, to_install
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.parts.logger.tracking import numbers, rows
from sqn_rl.types import Counters


class TensorBoardLogger(Reporter):
    """Writes scalars for TensorBoard to ``<run>/tensorboard``, by environment steps.

    They are the rows of ``metrics.jsonl`` and ``evaluations.jsonl``. Existing event files are replaced, and
    existing rows written again, so that a resumed run has no duplicate points.

    Args:
        directory: the run directory.

    Raises:
        SettingError: tensorboard is not installed.
        StorageError: when training begins, ``<run>/tensorboard`` is a link.
    """

    @typed
    def __init__(self, *, directory: Path) -> None:
        try:
            import tensorboard.summary  # noqa: F401  whether it is there
        except ImportError as error:
            expected = f"the extra `logging`: {to_install('logging')}"
            raise SettingError("logger", "tensorboard", expected) from error
        self._directory, self._opened = directory, ExitStack()
        self._file = f"{EVENTS}.{time.time():.0f}.sqn_rl"

    def begin(self, counters: Counters) -> None:
        """Replace existing event files, and write the rows in the logs."""
        with Folder(self._directory) as run:
            self._folder = self._opened.enter_context(run.folder("tensorboard"))
        for name in self._folder.names():
            if name.startswith(EVENTS):
                self._folder.remove(name)
        self._folder.append(self._file, _record(file_version="brain.Event:2"))
        for row in rows(self._directory / "metrics.jsonl"):
            self.metrics(row)
        for row in rows(self._directory / EVALUATIONS_FILE):
            self.evaluation(row)

    def metrics(self, row: dict[str, Any]) -> None:
        """Every number of the row, under ``train/``."""
        self._write("train", row)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Mean, standard deviation and IQM, under ``evaluation/``."""
        self._write("evaluation", row)

    def close(self) -> None:
        """Close the folder."""
        self._opened.close()

    def _write(self, group: str, row: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in numbers(row).items()
        ]
        self._folder.append(self._file, _record(step=row["env_steps"], summary=Summary(value=values)))


EVENTS = "events.out.tfevents"
"""Prefix by which TensorBoard recognises its files."""


def _record(**content: Any) -> bytes:
    """An event in the format of TensorBoard's files."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file := BytesIO()).write(Event(wall_time=time.time(), **content).SerializeToString())
    return file.getvalue()
