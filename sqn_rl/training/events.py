"""The events of a run, sent to several reporters."""

from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any

from sqn_rl.errors import require
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.types import Counters


class Reporters(Reporter):
    """Passes every event on to each reporter, in order; each gets a copy of a row.

    An error while training is kept until :meth:`require_working`, so that the others receive the event too,
    and the loop can save its state. A reporter that has failed receives no further event.

    Args:
        reporters: receive the events.

    Raises:
        SettingError: one is not a reporter.
    """

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        are = isinstance(reporters, Sequence) and all(isinstance(each, Reporter) for each in reporters)
        expected = "a list of reporters: objects of classes derived from sqn_rl.Reporter, not the classes"
        require(are, "reporters", reporters, expected)
        self._reporters, self._is_training = reporters, False
        self._failed: dict[int, Exception] = {}  # by the place of the reporter

    @classmethod
    def of(cls, reporters: Sequence[Reporter]) -> "Reporters":
        """All of them as one; if they are one already, that one."""
        match reporters:
            case [Reporters() as one]:
                return one
        return cls(reporters)

    @property
    def have_failed(self) -> bool:
        """Whether an error is kept."""
        return bool(self._failed)

    def require_working(self) -> None:
        """Raise the first error that was kept."""
        for error in self._failed.values():
            raise error

    def begin(self, counters: Counters) -> None:
        """Pass on that training begins."""
        for reporter in self._reporters:
            reporter.begin(counters)
        self._is_training = True

    def phase(self, name: str) -> None:
        """Pass on that a long phase begins."""
        self._pass_on(lambda reporter: reporter.phase(name))

    def note(self, *lines: str) -> None:
        """Pass on lines that the user should read."""
        for line in lines:
            self._pass_on(methodcaller("note", line))

    def metrics(self, row: dict[str, Any]) -> None:
        """Pass on a row of metrics."""
        self._pass_on(lambda reporter: reporter.metrics(dict(row)))

    def episode(self, row: dict[str, Any]) -> None:
        """Pass on an episode that has ended."""
        self._pass_on(lambda reporter: reporter.episode(dict(row)))

    def evaluation(self, row: dict[str, Any]) -> None:
        """Pass on an evaluation that has ended."""
        self._pass_on(lambda reporter: reporter.evaluation(dict(row)))

    def best(self, row: dict[str, Any], take_weights: Callable[[], dict[str, Any]]) -> None:
        """Pass on the best evaluation so far."""
        self._pass_on(lambda reporter: reporter.best(dict(row), take_weights))

    def checkpoint(self, counters: Counters, take_state: Callable[[], dict[str, Any]]) -> None:
        """Have each reporter save the state of the run."""
        self._pass_on(lambda reporter: reporter.checkpoint(counters, take_state))

    def finished(self, summary: dict[str, Any]) -> None:
        """Pass on the summary of the run."""
        self._pass_on(lambda reporter: reporter.finished(dict(summary)))

    def _pass_on(self, event: Callable[[Reporter], None]) -> None:
        for place, reporter in enumerate(self._reporters):
            if place in self._failed:
                continue
            try:
                event(reporter)
            except Exception as error:
                if reporter.ends_at_once or not self._is_training:
                    raise
                self._failed[place] = error
