"""Reporters, which receive the events of a run; all loggers are reporters."""

from collections.abc import Callable
from typing import Any

from sqn_rl.types import Counters


class Reporter:
    """Receives the events of a run. Every method does nothing here.

    If one raises after training has begun, the run first finishes its iteration and saves a checkpoint.
    """

    ends_at_once = False
    """Whether the run ends at once instead, as what a checkpoint says of the logs would be wrong."""

    def begin(self, counters: Counters) -> None:
        """Training begins, or is resumed, at these counters, which change as it advances."""

    def phase(self, name: str) -> None:
        """A long phase begins, such as ``evaluating``; an empty name: it has ended."""

    def note(self, text: str) -> None:
        """A line about something that was chosen or has happened, and that the user should know."""

    def metrics(self, row: dict[str, Any]) -> None:
        """Counters, losses, α, entropies, values and recent returns, every ``log_every`` steps."""

    def episode(self, row: dict[str, Any]) -> None:
        """A full episode has ended."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """An evaluation has ended."""

    def best(self, row: dict[str, Any], take_weights: Callable[[], dict[str, Any]]) -> None:
        """With ``checkpoint_best``: the evaluation of ``row`` is the best so far, by these weights."""

    def checkpoint(self, counters: Counters, take_state: Callable[[], dict[str, Any]]) -> None:
        """A checkpoint is due; ``take_state()`` returns the state of the run to save."""

    def finished(self, summary: dict[str, Any]) -> None:
        """The run has ended, well or not, and ``summary.json`` and ``curve.png`` are written."""

    def close(self) -> None:
        """No event follows."""
