"""The events of a run, sent to several reporters."""

from collections.abc import Callable, Sequence
from typing import Any

from sqn_rl.errors import require
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.types import Counters


class Reporters(Reporter):
    """Passes every event on to each reporter, in order; each gets a copy of a row.

    Args:
        reporters: receive the events.

    Raises:
        SettingError: one is not a reporter.
    """

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        is_list = isinstance(reporters, Sequence)
        expected = "a list of reporters: objects of classes derived from sqn_rl.Reporter, not the classes"
        require(is_list and not any(map(_is_no_reporter, reporters)), "reporters", reporters, expected)
        self._reporters = reporters

    def begin(self, counters: Counters) -> None:
        """Pass on that training begins."""
        for reporter in self._reporters:
            reporter.begin(counters)

    def phase(self, name: str) -> None:
        """Pass on that a long phase begins."""
        for reporter in self._reporters:
            reporter.phase(name)

    def note(self, *lines: str) -> None:
        """Pass on lines that the user should read."""
        for line in lines:
            for reporter in self._reporters:
                reporter.note(line)

    def metrics(self, row: dict[str, Any]) -> None:
        """Pass on a row of metrics."""
        for reporter in self._reporters:
            reporter.metrics(dict(row))

    def episode(self, row: dict[str, Any]) -> None:
        """Pass on an episode that has ended."""
        for reporter in self._reporters:
            reporter.episode(dict(row))

    def evaluation(self, row: dict[str, Any]) -> None:
        """Pass on an evaluation that has ended."""
        for reporter in self._reporters:
            reporter.evaluation(dict(row))

    def best(self, row: dict[str, Any], take_weights: Callable[[], dict[str, Any]]) -> None:
        """Pass on the best evaluation so far."""
        for reporter in self._reporters:
            reporter.best(dict(row), take_weights)

    def checkpoint(self, counters: Counters, take_state: Callable[[], dict[str, Any]]) -> None:
        """Have each reporter save the state of the run."""
        for reporter in self._reporters:
            reporter.checkpoint(counters, take_state)

    def finished(self, summary: dict[str, Any]) -> None:
        """Pass on the summary of the run."""
        for reporter in self._reporters:
            reporter.finished(dict(summary))

    def close(self) -> None:
        """Close each reporter."""
        for reporter in self._reporters:
            reporter.close()


def _is_no_reporter(part: object) -> bool:
    """Whether this is no reporter: another object, or a class of reporters."""
    return not isinstance(part, Reporter)
