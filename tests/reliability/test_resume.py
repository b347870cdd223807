"""Exact resume: a run that is killed and goes on ends as one that never was, byte for byte."""

from pathlib import Path

import pytest
from reliability.trials import TASKS, TINY, killed_and_resumed

FAMILIES = {
    "sqn": ("recipe=sqn", "loss.backup=sampled"),
    "rainbow": ("recipe=sqn_rainbow", "target_update=periodic", "target_update.every=7"),
    "quantile": ("recipe=sqn_quantile", "replay=prioritized", "head.dueling=true"),
    "munchausen": ("recipe=sqn_munchausen", "temperature=annealed"),
    "actor-critic": ("recipe=discrete_sac", "layers=noisy", "returns=n_step", "returns.soft=true"),
    "dqn": ("recipe=double_dqn", "optimizer=rmsprop"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("task", "kills"), [("CartPole", 15), ("Pong from RAM", 6)])
def test_a_family_of_recipes(task: str, kills: int, family: str, tmp_path: Path) -> None:
    trial = killed_and_resumed(tmp_path, kills, 0, *FAMILIES[family], *TASKS[task], *TINY)
    assert trial.kills.total() == kills
    assert trial.differ == []


def test_games_from_pixels(tmp_path: Path) -> None:
    shorter = ("recipe=dqn", *TASKS["Pong from pixels"], *TINY, "steps=160", "eval_episodes=1")
    assert killed_and_resumed(tmp_path, 4, 0, *shorter).differ == []
