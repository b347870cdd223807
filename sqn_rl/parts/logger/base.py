"""What all loggers are: reporters, which receive the events of a run."""

from collections.abc import Callable
from typing import Any

from sqn_rl.types import Counters


class Reporter:
    """Receives the events of a run. Every method does nothing here."""

    def begin(self, counters: Counters) -> None:
        """Training begins, or is resumed, at these counters, which change as it advances."""

    def phase(self, name: str) -> None:
        """Something that takes long begins, such as ``evaluating``; empty: it has ended."""

    def note(self, text: str) -> None:
        """What was chosen or has happened that a person should know, as a line."""

    def metrics(self, row: dict[str, Any]) -> None:
        """Counters, losses, α, entropies, values and recent returns, every ``log_every`` steps."""

    def episode(self, row: dict[str, Any]) -> None:
        """A full episode has ended."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """An evaluation has ended."""

    def best(self, row: dict[str, Any], take_weights: Callable[[], dict[str, Any]]) -> None:
        """With ``checkpoint_best``: the evaluation of ``row`` is the best so far, by these weights."""

    def checkpoint(self, counters: Counters, take_state: Callable[[], dict[str, Any]]) -> None:
        """It is time to write down all that the run has become: what ``take_state()`` gives."""

    def finished(self, summary: dict[str, Any]) -> None:
        """The run has ended, well or not, and ``summary.json`` and ``curve.png`` are written."""

    def close(self) -> None:
        """No event follows."""
