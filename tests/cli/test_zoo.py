"""The trained policies of ``zoo/``: small, loaded without trust, and as good as their cards say."""

import json
import pickle
from pathlib import Path

import pytest

import sqn_rl

ZOO = Path(__file__).parents[2] / "zoo"
RUNS = sorted(path.parent for path in ZOO.glob("*/recipe.yaml"))


def test_the_zoo_readme_lists_every_policy_with_its_score() -> None:
    assert {run.name for run in RUNS} >= {"acrobot", "cartpole", "lunarlander", "minatar_breakout", "recall"}
    rows = [line for line in (ZOO / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [run.name for run in RUNS]
    for row, run in zip(rows, RUNS, strict=True):
        card, recipe = (run / "README.md").read_text(), sqn_rl.load(run).run
        name, trained, steps, score = (cell.strip(" `") for cell in row.split("|")[1:5])
        assert (name, trained, steps) == (run.name, recipe.recipe, f"{recipe.steps:,}")
        assert f"greedy episodes: {score}" in card


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_zoo_policy_scores_as_its_card_says(run: Path) -> None:
    (weights,) = run.rglob("weights.safetensors")
    assert weights.stat().st_size <= 200_000
    assert not Path(str(sqn_rl.load(run).run.out)).is_absolute()  # not a path of the machine that trained it
    evaluation = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    assert f"{evaluation['mean']:.2f} +/- {evaluation['std']:.2f}" in (run / "README.md").read_text()
    played = sqn_rl.load(run).evaluate(episodes=3)
    assert played.mean >= evaluation["mean"] - 2 * evaluation["std"] - 1


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_pickled_zoo_policy_evaluates_the_same(run: Path) -> None:
    policy = sqn_rl.load(run)
    sent = pickle.loads(pickle.dumps(policy))
    assert sent.evaluate(episodes=1, max_steps=100) == policy.evaluate(episodes=1, max_steps=100)
