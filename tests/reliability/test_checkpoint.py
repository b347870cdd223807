"""Checkpoints are restored exactly, and each writes only new replay rows."""

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from reliability.tiny import loaded, plain, saved, state, weights, write
from safetensors.torch import load_file

from sqn_rl.errors import CheckpointError
from sqn_rl.runs import manifest
from sqn_rl.runs.checkpoint import Checkpoints
from sqn_rl.runs.saved import read_weights
from sqn_rl.runs.serialization import DTYPES, read_tensors, tensors_file

X = torch.ones(2)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- what is restored --------------------------------------------------------------------------------------


def test_the_newest_checkpoint_is_restored_exactly(tmp_path: Path) -> None:
    saved(tmp_path, 10, 20)
    assert loaded(tmp_path) == (20, [])
    path, env_steps, tensors = read_weights(tmp_path / "checkpoints")
    assert (path.parent.name, env_steps, plain(tensors)) == ("0000000020", 20, plain(weights(20)))


def test_every_tensor_file_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    saved(tmp_path, 7)
    files = [*tmp_path.rglob("*.safetensors")]
    assert len(files) == 4  # weights, state, and rows 0-4 and 4-7
    assert plain(load_file(tmp_path / "checkpoints/0000000007/weights.safetensors")) == plain(weights(7))
    assert all(load_file(path) for path in files)


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_tensors_in_a_file_are_aligned_to_64_bytes(count: int, tmp_path: Path) -> None:
    dtypes = [*DTYPES] * 10
    tensors = {"x" * i: torch.ones(i % 5).to(dtypes[i]) for i in range(count)}
    path = tmp_path / "file"
    path.write_bytes(b"".join(bytes(part) for part in tensors_file(tensors)))
    assert plain(dict(read_tensors(path))) == plain(tensors)
    assert all(tensor.data_ptr() % 64 == 0 for _, tensor in read_tensors(path) if tensor.numel())


@pytest.mark.parametrize("number", [0.1, 1e-320, math.pi, -0.0, 1e308, 2**53 + 1, -(10**30), float("inf")])
def test_numbers_are_restored_exactly(number: float, tmp_path: Path) -> None:
    (checkpoints := saved(tmp_path)).save(1, {}, {"number": number}, {})
    found = checkpoints.load()
    assert found
    assert (found.state["number"], str(found.state["number"])) == (number, str(number))


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"own": {0: 1}}, "/own: the key 0 in a state_dict; expected texts"),
        ({"a/b": X, "a": {"b": X}}, "/a/b: two tensors in a state_dict have this path"),
        (
            {"own": X.to(torch.complex64)},
            "/own: a tensor of torch.complex64 in a state_dict; expected float64",
        ),
        ({"own": X.to(torch.float8_e5m2)}, "/own: a tensor of torch.float8_e5m2 in a state_dict"),
        ({"own": object()}, "/own: a object in a state_dict"),
    ],
)
def test_a_state_that_cannot_be_restored_exactly_is_refused(
    state: dict, problem: str, tmp_path: Path
) -> None:
    checkpoints = saved(tmp_path, 10)
    with pytest.raises(CheckpointError, match=re.escape(problem)):
        checkpoints.save(20, {}, state, {})
    assert loaded(tmp_path)[0] == 10


def test_a_run_without_a_checkpoint_loads_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path) == (0, [])
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        read_weights(tmp_path / "checkpoints")


def test_saving_the_same_step_again_only_sets_lost_state_entries_to_none(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    checkpoints.save(10, weights(11), state(11) | {"deep": None}, {})
    found = Checkpoints(tmp_path / "checkpoints", 2).load()
    assert found
    assert plain(found.weights) == plain(weights(10))
    assert plain(found.state) == plain(state(10) | {"deep": None})


# --- what is written ---------------------------------------------------------------------------------------


def test_a_replay_row_is_written_once(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    replay = tmp_path / "checkpoints" / "replay"
    before = {path: path.stat() for path in replay.iterdir()}
    write(tmp_path, checkpoints, 15)
    after = {path: path.stat() for path in before}
    assert [each.st_mtime_ns for each in after.values()] == [each.st_mtime_ns for each in before.values()]
    spans = [(0, 4), (4, 8), (8, 10), (10, 14), (14, 15)]
    assert names(replay) == {f"{begin:012d}-{end:012d}.safetensors" for begin, end in spans}


def test_old_checkpoints_and_replay_files_are_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20, 30)
    assert names(tmp_path / "checkpoints") == {"0000000020", "0000000030", "replay"}
    for step in (40, 50):
        write(tmp_path, checkpoints, step, begin=step - 5)
    spans = [(35, 39), (39, 40), (45, 49), (49, 50)]
    replay = {f"{begin:012d}-{end:012d}.safetensors" for begin, end in spans}
    assert names(tmp_path / "checkpoints" / "replay") == replay


def test_a_resumed_run_writes_new_replay_rows_to_a_new_file(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    again = Checkpoints(tmp_path / "checkpoints", 2)
    again.load()
    write(tmp_path, again, 12)
    assert "000000000010-000000000012.safetensors" in names(tmp_path / "checkpoints" / "replay")
    assert loaded(tmp_path) == (12, [])


def test_a_damaged_checkpoint_is_set_aside_with_its_replay_rows(tmp_path: Path) -> None:
    saved(tmp_path, 10, 20)
    (tmp_path / "checkpoints" / "0000000020" / "manifest.json").write_text("{}")
    again = Checkpoints(tmp_path / "checkpoints", 1)
    found = again.load()
    assert found
    assert found.env_steps == 10
    again.prune(10)
    write(tmp_path, again, 15)
    assert names(tmp_path / "checkpoints") == {"0000000015", "0000000020.damaged", "replay"}
    rows = {f"{begin:012d}-{end:012d}.safetensors" for begin, end in ((10, 14), (14, 18), (18, 20))}
    assert names(tmp_path / "checkpoints" / "0000000020.damaged" / "replay") == rows
    assert loaded(tmp_path) == (15, [])


def test_a_foreign_folder_among_the_checkpoints_is_not_removed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    best = Path(shutil.copytree(tmp_path / "checkpoints/0000000010", tmp_path / "checkpoints/best"))
    for step in (20, 30, 40):
        write(tmp_path, checkpoints, step)
    assert len(names(best)) == 3


# --- the best evaluation -----------------------------------------------------------------------------------


def best_there(run: Path) -> set[str]:
    folder = run / "checkpoints" / "best"
    return names(folder) if folder.exists() else set()


def save_best(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save_best(step, weights(step), {"env_steps": step, "mean": float(step)}, {})


def test_the_best_weights_are_read_by_name_and_by_step(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    folder = tmp_path / "checkpoints"
    with pytest.raises(
        CheckpointError, match="no checkpoint best; kept: 10, last; checkpoint_best=true keeps"
    ):
        read_weights(folder, "best")
    for step in (15, 20):
        save_best(checkpoints, step)
    write(tmp_path, checkpoints, 25)
    for which, step in (("best", 20), (20, 20), ("last", 25), (10, 10)):
        path, env_steps, tensors = read_weights(folder, which)
        assert (env_steps, plain(tensors)) == (step, plain(weights(step)))
        assert (path.parent.parent.name == "best") == (step == 20)
    with pytest.raises(CheckpointError, match=r"no checkpoint 15; kept: 10, 20, 25, last, best$"):
        read_weights(folder, 15)
    (folder / "best" / "0000000020" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"best/0000000020/weights.safetensors: damaged"):
        read_weights(folder, "best")


def test_the_best_weights_of_every_checkpoint_are_kept_and_no_others(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    for step in (12, 14, 16):
        save_best(checkpoints, step)
    assert best_there(tmp_path) == {"0000000012", "0000000014", "0000000016"}  # until the next checkpoint
    write(tmp_path, checkpoints, 20)
    assert best_there(tmp_path) == {"0000000016"}
    save_best(checkpoints, 25)
    write(tmp_path, checkpoints, 30)
    assert best_there(tmp_path) == {"0000000016", "0000000025"}
    write(tmp_path, checkpoints, 40)
    assert best_there(tmp_path) == {"0000000025"}


@pytest.mark.parametrize(("damaged", "best"), [(False, {"0000000016", "0000000025"}), (True, {"0000000016"})])
def test_a_resumed_run_has_the_best_weights_of_its_checkpoint(
    damaged: bool, best: set[str], tmp_path: Path
) -> None:
    checkpoints = saved(tmp_path)
    save_best(checkpoints, 16)
    write(tmp_path, checkpoints, 20)
    save_best(checkpoints, 25)
    write(tmp_path, checkpoints, 30)
    save_best(checkpoints, 35)  # and the process is killed
    if damaged:
        (tmp_path / "checkpoints" / "0000000030" / "state.safetensors").write_bytes(b"")
    again = Checkpoints(tmp_path / "checkpoints", 2)
    found = again.load()
    assert found
    again.prune(found.env_steps)
    assert best_there(tmp_path) == best
    for step in (50, 60, 70):
        write(tmp_path, again, step)
    assert read_weights(tmp_path / "checkpoints", "best")[1] == (16 if damaged else 25)


def test_best_weights_without_a_checkpoint_are_removed_when_a_run_starts_over(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path)
    checkpoints.make()
    save_best(checkpoints, 5)
    again = Checkpoints(tmp_path / "checkpoints", 2)
    assert again.were_never_saved()
    assert again.load() is None
    again.forget_best()
    assert best_there(tmp_path) == set()


def test_a_manifest_whose_best_is_later_than_itself_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 10)
    path = tmp_path / "checkpoints" / "0000000010"
    content = manifest.read(path) | {"best": 11}
    (path / "manifest.json").write_bytes(manifest.render(content))
    with pytest.raises(CheckpointError, match=r"json: 11 where the steps of the best evaluation should be"):
        manifest.read(path)
