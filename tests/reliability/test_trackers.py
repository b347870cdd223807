"""Experiment trackers, offline: a killed and resumed run loses no row; config and curve are sent."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from reliability.trials import TINY, train

from sqn_rl import RecipeError, TrackingLogger, compose
from sqn_rl.cli.resume import main as resume
from sqn_rl.errors import SettingError, to_install

STEPS = {"train/loss_q": [100, 150, 200, 250, 300], "evaluation/mean": [90, 180, 270, 300]}
EXTENDED = {"train/loss_q": [*STEPS["train/loss_q"], 350, 360], "evaluation/mean": [90, 180, 270, 300, 360]}
"""The final evaluation of the first run, at 300, remains: rows cannot be removed from a tracker."""
Points = dict[str, list[int]]


def of_wandb(run: Path) -> tuple[Points, dict[str, Any], int, str]:
    """The steps of two metrics, the config, the number of pictures, and the run's name."""
    from wandb.proto.wandb_internal_pb2 import Record

    points: Points = {name: [] for name in STEPS}
    config, ids, names = {}, set(), set()
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    for path in files:
        for data in records(path.read_bytes()):
            record = Record.FromString(data)
            row = [name for item in record.history.item for name in (item.key, *item.nested_key)]
            for name in STEPS:
                points[name] += [record.history.step.num] * (name in row)
            if record.HasField("run"):
                ids.add(record.run.run_id)
                names.add(record.run.display_name)
                config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
    assert len(ids) == len(names) == 1
    return points, config, len([*run.glob("wandb/offline-run-*/files/media/images/*.png")]), names.pop()


def records(data: bytes) -> Iterator[bytes]:
    """The records of a file of wandb: LevelDB's log format after a header of 7 bytes."""
    at, whole, block = 7, b"", 32768
    while at + 7 <= len(data):
        if block - at % block < 7:  # skip the end of a block that is too short for a header
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole record, or its last part
            yield whole
            whole = b""


def of_mlflow(run: Path) -> tuple[Points, dict[str, Any], int, str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(run / "mlruns").as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("sqn_rl").experiment_id])
    id_ = found.info.run_id
    points = {name: [each.step for each in client.get_metric_history(id_, name)] for name in STEPS}
    assert found.info.status == "FINISHED"
    return points, found.data.params, len(client.list_artifacts(id_)), found.info.run_name


def of_trackio(run: Path) -> tuple[Points, dict[str, Any], int, str]:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("sqn_rl")
    rows = SQLiteStorage.get_logs("sqn_rl", name)
    points = {key: [row["step"] for row in rows if key in row] for key in STEPS}
    config = SQLiteStorage.get_run_config("sqn_rl", name)
    return points, config, len([row for row in rows if "curve" in row]), name


READ: dict[str, Callable[[Path], tuple[Points, dict[str, Any], int, str]]] = {
    "wandb": of_wandb,
    "mlflow": of_mlflow,
    "trackio": of_trackio,
}


def train_thrice(run: Path, logger: str) -> None:
    """Kill a run when it has rows after its last checkpoint, resume it to its end, then extend it.

    Prints the contents of the tracker after the second and the third process.
    """
    settings = [*TINY, f"logger={logger}"]
    if (process := os.fork()) == 0:
        turn = count(1)
        train(run, *settings, die=lambda: next(turn) > 119 and os._exit(9))
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert train(run) == "done"
    names = [thread.name for thread in threading.enumerate() if not thread.daemon]
    assert names == ["MainThread"]
    compose("sqn", *settings).preflight()  # must not begin a run of the tracker
    print(json.dumps(READ[logger](run)))
    assert resume([str(run), "steps=360"]) == 0
    print(json.dumps(READ[logger](run)))


@pytest.mark.slow
@pytest.mark.parametrize("logger", READ)
def test_a_tracker_has_every_row_of_a_run_that_was_killed_and_resumed(logger: str, tmp_path: Path) -> None:
    pytest.importorskip(logger)
    run, off = tmp_path / "run", "http://127.0.0.1:1"  # no server answers there
    folders = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    environment = {**os.environ, **folders, "HTTPS_PROXY": off, "HTTP_PROXY": off, "WANDB_MODE": "offline"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    code = "import sys; from pathlib import Path; from reliability.test_trackers import train_thrice; "
    code += "train_thrice(Path(sys.argv[1]), sys.argv[2])"
    command = [sys.executable, "-W", "error", "-c", code, str(run), logger]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, last = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    points, config, pictures, name = first
    if logger == "mlflow":  # others may lose or repeat rows that were being sent at the kill
        assert points == STEPS
    assert {name: sorted({*steps}) for name, steps in points.items()} == STEPS
    assert pictures == 1
    assert name.startswith("sqn s0")
    assert str(config["steps"]) == "300"
    assert "CartPole" in str(config)
    sent = json.loads((run / f"{logger}.json").read_text())
    assert (sent["train"], sent["evaluation"]) == (360, 360)
    assert {name: sorted({*steps}) for name, steps in last[0].items()} == EXTENDED
    assert last[3] == name


@pytest.mark.parametrize("logger", READ)
def test_without_the_package_of_a_tracker_the_error_names_the_extra(
    logger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, logger, None)
    with pytest.raises(RecipeError, match=re.escape(to_install(logger))):
        compose("sqn", *TINY, f"logger={logger}").preflight()


class Kept(TrackingLogger):
    """A tracker that keeps the steps of the rows that it is sent."""

    def __init__(self, directory: Path) -> None:
        self.rows: list[int] = []
        super().__init__("kept", directory, {"seed": 0}, "sqn")

    def open(self, id: str | None, recipe: Any, name: str) -> str:
        return id or "abc"

    def send(self, values: Any, env_steps: int) -> None:
        self.rows.append(env_steps)

    def send_figure(self, path: Path) -> None:
        pass

    def end(self, status: str) -> None:
        pass

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "../x", "train": 1, "evaluation": 1}', "[" * 9999])
def test_an_invalid_tracker_file_begins_a_new_run_of_the_tracker(text: str, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(text)
    logger = Kept(tmp_path)
    for env_steps in (10, 20, 10, 20, 30):
        logger.metrics({"env_steps": env_steps, "loss_q": 1.0})
    assert logger.rows == [10, 20, 30]
    assert json.loads((tmp_path / "kept.json").read_text()) == {"id": "abc", "train": 30, "evaluation": -1}


def test_the_run_id_of_a_tracker_may_have_a_dash_and_an_underscore(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text('{"id": "my-run_2", "train": 20, "evaluation": -1}')
    logger = Kept(tmp_path)
    logger.metrics({"env_steps": 20, "loss_q": 1.0})
    assert logger.rows == []
    assert json.loads((tmp_path / "kept.json").read_text())["id"] == "my-run_2"


class Refused(Kept):
    """A tracker that fails to open; its other methods must not be called then."""

    def open(self, id: str | None, recipe: Any, name: str) -> str:
        raise SettingError("logger", "refused", "a login")

    def end(self, status: str) -> None:
        raise AttributeError(status)

    def wait(self) -> None:
        raise AttributeError


def test_a_tracker_that_cannot_begin_raises_its_error(tmp_path: Path) -> None:
    recipe = compose("sqn", *TINY, f"out={tmp_path / 'run'}")
    with pytest.raises(SettingError, match="expected a login"):
        recipe.train(reporters=[Refused(tmp_path)])


def test_a_tracker_does_not_write_into_a_directory_that_replaced_its_run(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    run.mkdir()
    logger = Kept(run)
    logger.metrics({"env_steps": 10, "loss_q": 1.0})
    run.rename(moved)
    run.mkdir()
    logger.metrics({"env_steps": 20, "loss_q": 1.0})
    logger.close()
    assert not [*run.iterdir()]
    assert json.loads((moved / "kept.json").read_text())["train"] == 20
