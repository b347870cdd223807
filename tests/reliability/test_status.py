"""The status of a run, also when it changes while it is read."""

import fcntl
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sqn_rl import compose
from sqn_rl.analysis.comparison import compare
from sqn_rl.analysis.finished import read_runs
from sqn_rl.errors import SettingError
from sqn_rl.runs import status
from sqn_rl.runs.status import LOCK, is_locked, locked, read_summary, status_of

TINY = ["env=cartpole", "steps=40", "warmup_steps=10", "batch_size=4", "hidden=[4]", "eval_episodes=1"]


def hold(path: Path, kind: int, seconds: float) -> threading.Thread:
    """Hold the lock of a folder for ``seconds``; return the thread that releases it."""
    file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, kind)
    thread = threading.Thread(target=lambda: (time.sleep(seconds), os.close(file)))
    thread.start()
    return thread


def test_reading_the_lock_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    looking = hold(tmp_path, fcntl.LOCK_SH, 0.05)
    with locked(tmp_path):
        assert is_locked(tmp_path)
    looking.join()
    assert not is_locked(tmp_path)


def test_a_second_run_in_a_locked_directory_is_refused(tmp_path: Path) -> None:
    running = hold(tmp_path, fcntl.LOCK_EX, 1.0)
    with pytest.raises(SettingError, match="no other run is writing to"), locked(tmp_path):
        pass
    running.join()


def test_a_run_that_ends_while_its_status_is_read_is_not_reported_as_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = compose("sqn", *TINY, f"out={tmp_path}").train()
    (tmp_path / "summary.json").unlink()
    assert status_of(tmp_path) == "killed"

    def ends(path: Path) -> bool:
        (path / "summary.json").write_text(json.dumps(done))
        return False

    monkeypatch.setattr(status, "is_locked", ends)
    assert status_of(tmp_path) == "done"


def test_a_run_whose_curve_cannot_be_drawn_still_has_the_status_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("sqn_rl.runs.directory.draw_curve", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        compose("sqn", *TINY, f"out={tmp_path}").train()
    assert read_summary(tmp_path)["status"] == "done"


def test_finished_runs_are_compared_by_identity(tmp_path: Path) -> None:
    compose("sqn", *TINY, "eval_every=20", "eval_max_steps=3", f"out={tmp_path}").train()
    (first, second), _ = read_runs([tmp_path, tmp_path])
    assert first != second
    assert len({first, second}) == 2
    assert np.array_equal(first.steps, second.steps)
    assert compare([first]).rows
