"""Exact resume: a run that is killed and resumed equals a run that was never killed, byte for byte."""

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
def test_a_killed_run_of_each_recipe_family_resumes_exactly(
    task: str, kills: int, family: str, tmp_path: Path
) -> None:
    trial = killed_and_resumed(tmp_path, kills, 0, *FAMILIES[family], *TASKS[task], *TINY)
    assert trial.kills.total() == kills
    assert trial.compiled == {"before": kills}
    assert (trial.differ, trial.faults) == ([], {})


@pytest.mark.parametrize("collect", ["local", "inline"])
def test_a_killed_run_with_a_recurrent_network_resumes_exactly(collect: str, tmp_path: Path) -> None:
    tiny = [*TINY, "q_net.units=8", "replay.length=4", "replay.stride=4", "replay.burn_in=2"]
    tiny += ["collect.rows=5"] * (collect == "inline")
    trial = killed_and_resumed(tmp_path, 5, 0, "recipe=sqn_r2d2", "env=recall", *tiny, f"collect={collect}")
    assert (trial.differ, trial.faults) == ([], {})


def test_a_killed_run_with_a_sharded_replay_resumes_exactly(tmp_path: Path) -> None:
    settings = ["recipe=sqn_apex", *TASKS["CartPole"], *TINY, "collect=inline", "collect.rows=5"]
    trial = killed_and_resumed(tmp_path, 6, 0, *settings, "replay=sharded", "returns=n_step")
    assert trial.kills.total() == 6
    assert (trial.differ, trial.faults) == ([], {})


def test_a_killed_run_from_pixels_resumes_exactly(tmp_path: Path) -> None:
    shorter = ("recipe=dqn", *TASKS["Pong from pixels"], *TINY, "steps=160", "eval_episodes=1")
    trial = killed_and_resumed(tmp_path, 4, 0, *shorter)
    assert (trial.differ, trial.faults) == ([], {})


def test_resuming_removes_leftover_checkpoints_and_partial_files(tmp_path: Path) -> None:
    """The run is killed after its last checkpoint, so that no later save removes the leftovers."""
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
