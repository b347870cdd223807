"""``sqn-diagnose``: values that are NaN or infinite, the first cause first."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sqn_rl.recipe.compose import load_recipe
from sqn_rl.runs.serialization import tensors_file
from sqn_rl.training.numerics import bundle, not_finite
from sqn_rl.types import Batch

Spoil = Callable[[Any, Batch], Any]
TINY = ["steps=200", "warmup_steps=100", "batch_size=8", "hidden=[16]", "eval_episodes=1", "out=run"]

FAULTS: dict[str, tuple[Spoil, str]] = {
    "reward": (lambda loss, batch: batch.reward[1:3].fill_(math.nan), "replay: reward of the batch: 2 of 8"),
    "observation": (
        lambda loss, batch: batch.observation[0].fill_(math.inf),
        "replay: observation of",
    ),
    "weight": (
        lambda loss, batch: loss.q_net.head.q.bias.data[1].fill_(math.nan),
        "weights: q_net.head.q.bias",
    ),
    "overflow": (
        lambda loss, batch: loss.target_q_net.head.q.weight.data.fill_(3e38),
        "loss: target_q_net",
    ),
    "huge": (lambda loss, batch: batch.reward.fill_(1e30), "loss: loss_q: 1 of 1"),
}


def a_batch() -> Batch:
    ones = torch.ones(8)
    no = torch.zeros(8, dtype=torch.bool)
    action, place = torch.zeros(8, dtype=torch.int64), torch.arange(8)
    return Batch(torch.randn(8, 4), action, ones.clone(), torch.randn(8, 4), no, ones * 0.99, place)


@pytest.fixture
def loss(command: Callable, folder: Path) -> Any:
    assert command("run", *TINY).code == 0
    return load_recipe(folder / "run" / "recipe.yaml").build()["loss"]


def test_the_first_cause_of_a_non_finite_value_is_reported_first(
    loss: Any, command: Callable, folder: Path
) -> None:
    path, weights = (
        folder / "run" / "numerics.safetensors",
        {k: v.clone() for k, v in loss.state_dict().items()},
    )
    assert not_finite(loss, a_batch()) == []
    for spoil, message in FAULTS.values():
        loss.load_state_dict(weights)
        batch = a_batch()
        spoil(loss, batch)
        assert not_finite(loss, batch)[0].startswith(message)
        path.write_bytes(b"".join(tensors_file(bundle(loss, batch))))
        done = command("diagnose", "run")
        assert done.code == 4
        assert done.out.startswith(message)


def test_runs_and_files_that_sqn_diagnose_cannot_read_are_refused(
    loss: Any, command: Callable, folder: Path
) -> None:
    path = folder / "run" / "numerics.safetensors"
    assert command("diagnose", "elsewhere").code == 2
    none = command("diagnose", "run")
    assert none.code != 0
    assert "no update of this run was stopped" in none.err
    path.write_bytes(b"nothing")
    assert "numerics.safetensors: not readable" in command("diagnose", "run").err
    path.write_bytes(b"".join(tensors_file({"batch.colour": torch.zeros(1)})))
    assert "not what a run keeps" in command("diagnose", "run").err
