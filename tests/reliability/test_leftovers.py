"""A run leaves nothing in memory, and evaluating or diagnosing it later needs no replay."""

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from sqn_rl import Agent, BatchedEnv, Polyak, QNet, RecipeError, Reporter, TDLoss, compose
from sqn_rl.cli import diagnose
from sqn_rl.cli import evaluate as sqn_eval
from sqn_rl.parts.actor.base import NetworkActor
from sqn_rl.parts.replay.base import RingReplay
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.recipe import resources
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.runs.serialization import tensors_file
from sqn_rl.training.numerics import bundle
from sqn_rl.types import Batch

KINDS = (Agent, BatchedEnv, NetworkActor, Polyak, QNet, Ring, RingReplay, TDLoss, torch.optim.Optimizer)
TINY = ["steps=60", "warmup_steps=20", "hidden=[8]", "batch_size=4", "eval_episodes=1", "num_envs=2"]


def alive() -> Counter[str]:
    """The number of objects of a run by type, garbage included."""
    return Counter(type(each).__name__ for each in gc.get_objects() if issubclass(type(each), KINDS))


class Failing(Reporter):
    """Fails in the middle of a run, when all of its objects are in memory."""

    def episode(self, row: dict[str, Any]) -> None:
        assert alive()["UniformReplay"]
        raise RuntimeError("enough")


@pytest.fixture(autouse=True)
def _no_older_garbage() -> None:
    gc.collect()


@pytest.mark.parametrize(
    "settings",
    [
        ["recipe=sqn", "compile=never"],
        ["recipe=sqn_rainbow", "eval_every=30", "checkpoint_every=30"],
        pytest.param(["recipe=dqn", "compile=always"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_finished_run_leaves_no_objects_in_memory(settings: list[str], tmp_path: Path) -> None:
    before = alive()
    assert compose("sqn", *TINY, *settings, f"out={tmp_path / 'run'}").train()["status"] == "done"
    assert alive() == before


def test_a_failed_run_leaves_only_garbage_in_memory(tmp_path: Path) -> None:
    before = alive()
    with pytest.raises(RuntimeError, match="enough") as error:
        compose("sqn", *TINY, f"out={tmp_path / 'run'}").train(reporters=[Failing()])
    del error
    gc.collect()
    assert alive() == before


def test_garbage_of_an_earlier_run_is_collected_before_memory_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is free, as the patched function reports it, only once the garbage is collected."""
    compose("sqn", *TINY).recipe.build()  # leaves garbage
    assert alive()["UniformReplay"]
    monkeypatch.setattr("sqn_rl.recipe.preflight.require_room", lambda recipe: None)  # checks networks alone
    monkeypatch.setattr(resources, "available_bytes", lambda: 0 if alive()["UniformReplay"] else 10**12)
    compose("sqn", *TINY).preflight()
    monkeypatch.setattr(resources, "available_bytes", lambda: 0)
    with pytest.raises(RecipeError, match="of memory"):
        compose("sqn", *TINY).preflight()


def test_sqn_eval_and_sqn_diagnose_build_no_replay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The capacity of the replay is set to a size that no machine can hold."""
    run = tmp_path / "run"
    compose("sqn", *TINY, f"out={run}").train()
    path = run / "recipe.yaml"
    recipe = load_recipe(path)
    path.write_text(
        path.read_text().replace(f"capacity: {recipe.fields('replay')['capacity']}", f"capacity: {10**14}")
    )
    with pytest.raises(RecipeError):
        load_recipe(path).build()
    assert sqn_eval.main([str(run)]) == 0
    assert sqn_eval.main([str(run), "--video", str(tmp_path / "film.gif")]) == 0
    ones, no, action = torch.ones(4), torch.zeros(4, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)
    batch = Batch(torch.ones(4, 4), action, ones, torch.ones(4, 4), no, ones, action)
    parts = tensors_file(bundle(recipe.build()["loss"], batch))
    run.joinpath("numerics.safetensors").write_bytes(b"".join(parts))
    assert diagnose.main([str(run)]) == 0
    assert "everything is finite" in capfd.readouterr().out
