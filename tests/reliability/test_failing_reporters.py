"""A run that stops because a reporter fails loses no step: resumed, it equals a run without the reporter."""

import json
from pathlib import Path
from typing import Any

import pytest
from reliability.trials import TASKS, TINY, differences, train

from sqn_rl import Reporter, compose

SETTINGS = {
    "local": ["recipe=sqn", *TASKS["CartPole"], *TINY],
    "actors": ["recipe=sqn_apex", *TASKS["CartPole"], *TINY, "collect=inline", "collect.rows=5"],
}
EVENTS = ("phase", "metrics", "episode", "evaluation", "best", "checkpoint")


class Failing(Reporter):
    """Fails at the first event of a kind after the first update was due, and records later events."""

    def __init__(self, event: str, error: Exception) -> None:
        self._counters: Any = None
        self._has_failed, self.later = False, list[str]()

        def method(*arguments: Any) -> None:
            if self._has_failed:
                self.later.append(event)
            elif self._counters and self._counters.env_steps > 60:
                self._has_failed = True
                raise error

        setattr(self, event, method)

    def begin(self, counters: Any) -> None:
        self._counters = counters


@pytest.fixture(scope="module", params=SETTINGS)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    run = tmp_path_factory.mktemp(request.param) / "run"
    assert train(run, *SETTINGS[request.param]) == "done"
    return request.param, run


@pytest.mark.parametrize(
    ("event", "kind"), [*((event, RuntimeError) for event in EVENTS), ("metrics", FileNotFoundError)]
)
def test_a_failing_reporter_stops_the_run_with_a_checkpoint_that_resumes_exactly(
    event: str, kind: type[Exception], undisturbed: tuple[str, Path], tmp_path: Path
) -> None:
    collect, whole = undisturbed
    reporter, run = Failing(event, kind("its log is gone")), tmp_path / "run"
    with pytest.raises(kind, match="its log is gone"):
        compose("sqn", *SETTINGS[collect], f"out={run}").train(reporters=[reporter])
    assert reporter.later == []  # after its failure it receives no other event
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "error"
    assert max(int(path.name) for path in (run / "checkpoints").glob("0*")) == summary["env_steps"] > 60
    assert train(run) == "done"
    names = {f"checkpoints/{summary['env_steps']:010d}"}  # the undisturbed run has no checkpoint there
    assert [each for each in differences(whole, run) if not any(name in each for name in names)] == []


def test_all_other_reporters_receive_the_event_at_which_one_fails(tmp_path: Path) -> None:
    """Before and after the failing reporter in the list."""

    class Counting(Reporter):
        def __init__(self) -> None:
            self.episodes = self.closed = 0
            self.statuses = list[str]()

        def episode(self, row: dict[str, Any]) -> None:
            self.episodes += 1

        def finished(self, summary: dict[str, Any]) -> None:
            self.statuses.append(summary["status"])

    first, last, run = Counting(), Counting(), tmp_path / "run"
    reporters = [first, Failing("episode", RuntimeError("enough")), last]
    with pytest.raises(RuntimeError, match="enough"):
        compose("sqn", *SETTINGS["local"], f"out={run}").train(reporters=reporters)
    rows = len((run / "episodes.jsonl").read_text().splitlines())
    assert first.episodes == last.episodes == rows > 0
    assert first.statuses == last.statuses == ["error"]


def test_errors_of_a_reporter_in_begin_and_finished_are_raised(tmp_path: Path) -> None:
    class Ending(Reporter):
        def finished(self, summary: dict[str, Any]) -> None:
            raise RuntimeError("cannot end")

    class Beginning(Reporter):
        def begin(self, counters: Any) -> None:
            raise RuntimeError("cannot begin")

    for number, (reporter, match) in enumerate([(Beginning(), "cannot begin"), (Ending(), "cannot end")]):
        with pytest.raises(RuntimeError, match=match):
            compose("sqn", *SETTINGS["local"], f"out={tmp_path / str(number)}").train(reporters=[reporter])
    statuses = [json.loads((tmp_path / name / "summary.json").read_text())["status"] for name in "01"]
    assert statuses == ["error", "done"]
