"""Weights on disk: they come back exactly, or the file says why not."""

from pathlib import Path

import pytest
import torch

from sqn_rl import DuelingHead, FixedTemperature, SQNLoss
from sqn_rl.checkpoint import CheckpointError, last_weights, load_weights, save_weights


def randomised(loss: SQNLoss) -> SQNLoss:
    with torch.no_grad():
        for tensor in loss.state_dict().values():
            tensor.copy_(torch.rand_like(tensor))
    return loss


def test_everything_comes_back_in_place(make_loss, tmp_path: Path) -> None:
    saved, loaded = randomised(make_loss()), make_loss()
    held = dict(loaded.state_dict())
    path = save_weights(tmp_path / "checkpoints", saved, env_steps=1234)
    assert load_weights(path, loaded) == 1234
    own = saved.state_dict()
    assert {name.split(".")[0] for name in own} == {"q_net", "target_q_net", "temperature"}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, own[name]), name
        assert tensor.data_ptr() == held[name].data_ptr()


def test_the_last_are_the_newest_and_only_whole_ones_count(make_loss, tmp_path: Path) -> None:
    loss = make_loss()
    for env_steps in (90_000, 100_000, 5):
        save_weights(tmp_path, loss, env_steps)
    (tmp_path / "0000200000.partial").write_bytes(b"half")
    (tmp_path / "best.safetensors").write_bytes(b"somebody's")
    assert last_weights(tmp_path).name == "0000100000.safetensors"


def test_what_fails_half_way_leaves_the_old_file(make_loss, tmp_path: Path, monkeypatch) -> None:
    path = save_weights(tmp_path, make_loss(), 7)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_weights(tmp_path, randomised(make_loss()), 7)
    assert path.read_bytes() == before


def test_no_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        last_weights(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden": (6,)}, r"encoder\.layers\.0\.bias"),
        ({"head": DuelingHead}, r"head\.advantage"),
        ({"members": 1}, r"encoder"),
    ],
)
def test_weights_of_another_agent_are_refused_and_change_nothing(
    make_loss, make_q_net, tmp_path: Path, change: dict, named: str
) -> None:
    path, other = save_weights(tmp_path, make_loss(), 1), make_loss(make_q_net(**change))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=named):
        load_weights(path, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_another_temperature_is_another_agent(make_loss, tmp_path: Path) -> None:
    path = save_weights(tmp_path, make_loss(), 1)
    with pytest.raises(CheckpointError, match=r"temperature\.parameter"):
        load_weights(path, make_loss(temperature=FixedTemperature(alpha=0.1)))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-10], lambda b: b[:4], lambda b: b"", lambda b: b"\xff" * len(b)]
)
def test_a_damaged_file_is_refused(make_loss, tmp_path: Path, damage) -> None:
    path = save_weights(tmp_path, make_loss(), 1)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="not readable"):
        load_weights(path, make_loss())


def test_a_file_of_somebody_elses_is_refused(make_loss, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    loss, path = make_loss(), tmp_path / "theirs.safetensors"
    save_file({name: tensor.clone() for name, tensor in loss.state_dict().items()}, path)
    with pytest.raises(CheckpointError, match="env_steps"):
        load_weights(path, loss)
    with pytest.raises(CheckpointError, match="not readable"):
        load_weights(tmp_path / "nowhere.safetensors", loss)
