"""Disk faults during a save, and the checkpoint that is found afterwards."""

import errno
import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from reliability.tiny import loaded, saved, write
from reliability.trials import Killed, disk_that

from sqn_rl.runs.checkpoint import Checkpoints

Fault = Callable[..., Any]
"""Called instead of a disk operation, with the operation and its arguments."""


def no_space(operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
    """The disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def input_output_error(operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
    """The disk is broken."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def killed_before(operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
    """The process is killed before the operation."""
    raise Killed


def killed_after(operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
    """The process is killed after the operation; of a write, half is done."""
    try:
        short_write(operation, *what, **how)
    finally:
        raise Killed


def short_write(operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
    """A write writes half of its bytes, and returns their number; other operations work."""
    if operation.__name__ == "write" and len(what[1]) > 1:
        return operation(what[0], what[1][: len(what[1]) // 2])
    return operation(*what, **how)


FAULTS = [no_space, input_output_error, killed_before, killed_after, short_write]


def after_fault(fault: Fault, number: int, run: Path) -> int | str | None:
    """Let a run with checkpoints at steps 5 and 9 save one at 12, with a fault at operation ``number``.

    Returns:
        The step of the checkpoint that is loaded afterwards; None if the save has fewer operations. Asserts
        that a failed save raised an error, and that the run can continue from the loaded checkpoint.
    """
    checkpoints, seen = saved(run, 5, 9), count()

    def does(now: int, operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
        next(seen)
        return (partial(fault, operation) if now == number else operation)(*what, **how)

    failed = False
    with disk_that(does, run):
        try:
            write(run, checkpoints, 12)
        except (OSError, Killed):
            failed = True
    if next(seen) <= number:
        return None
    left, passed_over = loaded(run)
    assert passed_over == []
    assert failed or left == 12
    again = Checkpoints(run / "checkpoints", 2)
    again.load()
    write(run, again, 15)
    assert loaded(run) == (15, [])
    kept = {f"{step:010d}" for step in (left, 15)}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {*kept, "replay"}
    return left
