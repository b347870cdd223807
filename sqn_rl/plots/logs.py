"""Read the logs of a run for drawing, thinned to the rows that a curve needs, in bounded memory."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from sqn_rl.recipe.reading import DataError, open_file, printable, read_line

Row = Mapping[str, Any]
"""``env_steps``, and a number for each column, or None where no number can be drawn."""

ROWS = 1000
"""The number of rows to which a log is thinned when it has twice as many."""

COLUMNS, LETTERS = 100, 100
"""The most columns of a log that are drawn, and the longest name of a column."""

LARGEST, LAST_STEP = 1e100, 2**53
"""The largest value and step that are drawn: a browser has only 64-bit floats."""

TAIL, LINES = 2**18, 100
"""How much of the end of a log :func:`newest_row` reads, in bytes and in lines."""

NO_CURVES = {"returns", "lengths", "greedy"}
"""Columns of an evaluation that are not numbers."""


class Log:
    """The rows of a growing file. Each row is read once; every k-th is kept, and the first and the newest.

    Invalid rows are skipped, and values that are not numbers become None: the file is not trusted.
    For rows that are not kept, only ``env_steps`` is checked.

    Args:
        path: the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin()

    def _begin(self) -> None:
        self._offset, self._lines, self._count, self._every = 0, 0, 0, 1
        self._kept: list[Row] = []
        self._newest: Row | None = None
        self._names = {"env_steps"}  # drawn however many columns there are
        self._unreadable, self._bad, self._first_bad = "", 0, ""
        self.newest: Mapping[str, Any] = {}
        """The newest row, unchanged."""

    def read(self) -> Sequence[Row]:
        """The rows that are kept, oldest first, and the newest row."""
        self._unreadable = ""
        if os.path.lexists(self.path):
            try:
                with open_file(self.path) as file:
                    self._read(file)
            except DataError as error:
                self._unreadable = str(error)
            except OSError as error:
                self._unreadable = f"{self.path}: cannot be read: {error.strerror}"
        if self.newest and not self._newest:  # the only row that is drawn without being kept
            self._newest = self._drawn(self.newest)
        newest = self._newest
        return self._kept + ([newest] if newest and newest is not self._kept[-1] else [])

    @property
    def notes(self) -> Iterator[str]:
        """What could not be read: the first bad row, and the number of bad rows."""
        if self._bad:
            others = f", and {self._bad - 1:,} more bad rows" if self._bad > 1 else ""
            yield f"{self.path.name}:{self._first_bad}{others}"
        if self._unreadable:
            yield self._unreadable

    def _read(self, file: BinaryIO) -> None:
        if os.fstat(file.fileno()).st_size < self._offset:  # truncated by a run that was resumed
            self._begin()
        file.seek(self._offset)
        while (line := read_line(file, self.path, self._lines + 1)).endswith(b"\n"):  # else being written
            self._offset, self._lines = self._offset + len(line), self._lines + 1
            self._add(line)

    def _add(self, line: bytes) -> None:
        try:
            row = _row_of(line)
        except ValueError as error:
            return self._note(str(error))
        while self._kept and self._kept[-1]["env_steps"] > row["env_steps"]:  # cut and grown since then
            self._kept.pop()
        drawn = self._drawn(row) if self._count % self._every == 0 or not self._kept else None
        if drawn:
            self._kept.append(drawn)
        self._count, self._newest, self.newest = self._count + 1, drawn, row
        if len(self._kept) >= 2 * ROWS:
            self._kept, self._every = self._kept[::2], 2 * self._every
        return None

    def _note(self, problem: str) -> None:
        self._bad += 1
        self._first_bad = self._first_bad or f"{self._lines}: {problem}"

    def _drawn(self, row: Mapping[str, Any]) -> Row:
        """The values of a row that can be drawn."""
        drawn, problem = {}, ""
        for name, value in row.items():
            if name in NO_CURVES:
                continue
            if name not in self._names and (len(self._names) >= COLUMNS or len(name) > LETTERS):
                problem = problem or "too many columns, or one with too long a name"
                continue
            self._names.add(name)
            drawn[printable(name)] = number = finite_number(value)
            is_gap = value is None or (isinstance(value, float) and not math.isfinite(value))
            if number is None and not is_gap:
                problem = problem or f"{printable(name)} is no number that can be drawn"
        if problem:
            self._note(problem)
        return drawn


def newest_row(path: Path) -> Row:
    """The newest row of a log, of which only the end is read; empty if there is none."""
    try:
        with open_file(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read(TAIL).split(b"\n")[:-1]  # the last line is incomplete, or empty
    except (DataError, OSError):
        return {}
    for line in reversed(lines[-LINES:]):
        with suppress(ValueError):
            return _row_of(line)
    return {}


def _row_of(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    step = row.get("env_steps") if isinstance(row, dict) else None
    if type(step) is not int or not 0 <= step <= LAST_STEP:
        raise ValueError("no row with a whole number of env_steps")
    return row


def finite_number(value: Any) -> int | float | None:
    """The value if it is a number that can be drawn; else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) <= LARGEST else None
