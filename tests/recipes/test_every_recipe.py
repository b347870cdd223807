"""Every recipe of the tree trains: on CartPole, by EnvPool too, and on an Atari game by RAM and by screen."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from flat import FLAT
from safetensors.torch import load_file

from sqn_rl import compose
from sqn_rl.recipe.catalogue import RECIPE, Catalogue

TASKS = {
    "cartpole": ["steps=300", "warmup_steps=100", "batch_size=16"],
    "envpool": [*("steps=140", "warmup_steps=40", "batch_size=16"), "env.id=CartPole-v1"],
    "atari_ram": ["steps=200", "warmup_steps=100", "batch_size=16", "env.max_frames=200"],
    "atari": ["steps=120", "warmup_steps=40", "batch_size=4", "env.max_frames=200"],
}
FREQUENT = ["num_envs=2", "update_ratio=0.1", "replay_capacity=1000", "log_every=40", "eval_episodes=1"]
UPDATES = {"cartpole": 20, "envpool": 10, "atari_ram": 10, "atari": 8}
LEARNED = ("q_net.", "policy_net.", "temperature.")


@pytest.mark.parametrize("env", TASKS)
@pytest.mark.parametrize("name", Catalogue().names(RECIPE))
def test_every_recipe_trains_and_moves_its_learned_parameters(name: str, env: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tiny = [f"env={env}", *TASKS[env], *FREQUENT, f"out={out}"]
    if name in ("sqn_apex", "sqn_impala"):  # without Ray, which tests/scale covers
        tiny += ["collect=inline", "collect.rows=10"]
    tiny += FLAT.get(name, ()) if env != "atari" else ()
    every = TASKS[env][1].partition("=")[2]
    experiment = compose(name, *tiny, f"checkpoint_every={every}", "checkpoint_keep=9")
    summary = experiment.train()
    assert (summary["status"], summary["updates"]) == ("done", UPDATES[env])

    metrics = rows(out / "metrics.jsonl")
    assert metrics[-1]["updates"] == UPDATES[env]
    for row in metrics:
        numbers = {key: value for key, value in row.items() if value is not None}
        assert numbers.keys() >= {"loss_q", "td_error", "q_mean"}
        assert all(map(math.isfinite, numbers.values())), row

    before, *_, after = map(load_file, sorted((out / "checkpoints").glob("*/weights.safetensors")))
    assert before.keys() == after.keys()
    for key in before:
        if key.startswith(LEARNED):
            unmoved = before[key].equal(after[key])
            assert unmoved == (
                experiment.recipe.part("temperature") == "fixed" and key == "temperature.alpha"
            ), key

    (evaluation,) = rows(out / "evaluations.jsonl")
    assert evaluation["env_steps"] == summary["env_steps"]
    assert len(evaluation["returns"]) == 1
    assert math.isfinite(evaluation["mean"])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", Catalogue().names(RECIPE))
def test_atari_screens_choose_an_image_encoder_unless_overridden(name: str) -> None:
    assert compose(name, "env=atari").recipe.part("encoder").endswith("_cnn")
    assert compose(name, "env=atari", "encoder=mlp").recipe.part("encoder") == "mlp"
    if name not in FLAT:
        assert compose(name, "env=atari_ram").recipe.part("encoder") == "mlp"
