"""Exact resume: a run that is killed and goes on ends as one that never was, byte for byte."""

from pathlib import Path

import pytest
from reliability.trials import killed_and_resumed

TINY = (
    *(
        "num_envs=2",
        "warmup_steps=60",
        "batch_size=8",
        "update_ratio=0.25",
        "hidden=[8]",
        "replay_capacity=150",
    ),
    *("log_every=50", "checkpoint_every=70", "eval_every=90", "eval_episodes=2"),
)
FAMILIES = {
    "sqn": ["recipe=sqn", "loss.backup=sampled"],
    "rainbow": ["recipe=sqn_rainbow", "target_update=periodic", "target_update.every=7"],
    "actor-critic": [
        "recipe=discrete_sac",
        "layers=noisy",
        "returns=n_step",
        "returns.n=3",
        "returns.soft=true",
    ],
    "dqn": ["recipe=double_dqn", "optimizer=rmsprop"],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_on_cartpole(family: str, tmp_path: Path) -> None:
    kills, differ = killed_and_resumed(tmp_path, 4, 0, *FAMILIES[family], "steps=300", *TINY)
    assert kills >= 3
    assert differ == []
