"""The TensorBoard log of a run that was killed and resumed has every point exactly once."""

from itertools import count
from pathlib import Path

import pytest
from reliability.trials import TINY, Killed, train

pytest.importorskip("tensorboard")

SETTINGS = [*TINY, "logger=tensorboard"]
UNEQUAL = "train/wall_s"


def points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag, all points that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, float]]]:
    run = tmp_path_factory.mktemp("alone") / "run"
    assert train(run, *SETTINGS) == "done"
    found = points(run)
    assert [step for step, _ in found["train/loss_q"]] == [100, 150, 200, 250, 300]
    assert [step for step, _ in found["evaluation/mean"]] == [90, 180, 270, 300]
    return found


def test_a_run_killed_and_resumed_has_every_tensorboard_point_once(
    alone: dict[str, list[tuple[int, float]]], tmp_path: Path
) -> None:
    """The run is killed twice in its loop, when its logs have rows after the last checkpoint."""
    run = tmp_path / "run"
    for turn in (119, 50):
        turn_now = count(1)
        with pytest.raises(Killed):
            train(run, *SETTINGS, die=lambda turn=turn, now=turn_now: next(now) > turn)
        with (next((run / "tensorboard").iterdir())).open("ab") as file:
            file.write(b"\x18half a record")
    assert train(run) == "done"
    found = points(run)
    assert found.keys() == alone.keys()
    for tag, values in found.items():
        steps = [step for step, _ in values]
        assert steps == sorted(set(steps)), tag
        assert tag == UNEQUAL or values == alone[tag], tag
