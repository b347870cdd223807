"""Exact resume: a run that is killed and goes on ends as one that never was, byte for byte."""

import shutil
from pathlib import Path

import pytest
from reliability.trials import TASKS, TINY, killed_and_resumed, train

FAMILIES = {
    "sqn": ("recipe=sqn", "loss.backup=sampled"),
    "rainbow": ("recipe=sqn_rainbow", "target_update=periodic", "target_update.every=7"),
    "quantile": ("recipe=sqn_quantile", "replay=prioritized", "head.dueling=true"),
    "munchausen": ("recipe=sqn_munchausen", "temperature=annealed"),
    "actor-critic": ("recipe=discrete_sac", "layers=noisy", "returns=n_step", "returns.soft=true"),
    "dqn": ("recipe=double_dqn", "optimizer=rmsprop"),
    "actors": ("recipe=sqn_apex", "collect=inline", "collect.rows=5", "returns=retrace"),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("task", "kills"), [("CartPole", 15), ("Pong from RAM", 6)])
def test_a_family_of_recipes(task: str, kills: int, family: str, tmp_path: Path) -> None:
    trial = killed_and_resumed(tmp_path, kills, 0, *FAMILIES[family], *TASKS[task], *TINY)
    assert trial.kills.total() == kills
    assert trial.compiled == {"before": kills}
    assert (trial.differ, trial.faults) == ([], {})


@pytest.mark.parametrize("collect", ["local", "inline"])
def test_what_an_actor_remembers(collect: str, tmp_path: Path) -> None:
    tiny = [*TINY, "q_net.units=8", "replay.length=4", "replay.stride=4", "replay.burn_in=2"]
    tiny += ["collect.rows=5"] * (collect == "inline")
    trial = killed_and_resumed(tmp_path, 5, 0, "recipe=sqn_r2d2", "env=recall", *tiny, f"collect={collect}")
    assert (trial.differ, trial.faults) == ([], {})


def test_a_replay_in_shards(tmp_path: Path) -> None:
    settings = ["recipe=sqn_apex", *TASKS["CartPole"], *TINY, "collect=inline", "collect.rows=5"]
    trial = killed_and_resumed(tmp_path, 6, 0, *settings, "replay=sharded", "returns=n_step")
    assert trial.kills.total() == 6
    assert (trial.differ, trial.faults) == ([], {})


def test_games_from_pixels(tmp_path: Path) -> None:
    shorter = ("recipe=dqn", *TASKS["Pong from pixels"], *TINY, "steps=160", "eval_episodes=1")
    trial = killed_and_resumed(tmp_path, 4, 0, *shorter)
    assert (trial.differ, trial.faults) == ([], {})


def test_what_was_to_be_removed_is_removed_by_whoever_goes_on(tmp_path: Path) -> None:
    """Killed after the last checkpoint: no other one is written, which would have removed too many."""
    settings, run = ("recipe=sqn", *TASKS["CartPole"], *TINY), tmp_path / "run"
    train(run, *settings)
    checkpoints = run / "checkpoints"
    there = {path.name for path in checkpoints.iterdir()}
    shutil.copytree(checkpoints / "0000000300", checkpoints / "0000000070.gone")
    (checkpoints / "0000000140").mkdir()
    (checkpoints / "replay" / "000000000000-000000000009.safetensors.partial").touch()
    (run / "summary.json").unlink()
    assert train(run, *settings) == "done"
    assert {path.name for path in checkpoints.iterdir()} == there
    assert not [*checkpoints.rglob("*.partial")]
