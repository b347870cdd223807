"""``checkpoint_best``: the weights of the best evaluation are kept, also if the run is killed or extended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reliability.trials import Killed, differences, train

from sqn_rl import Agent, CheckpointError, Evaluation, Reporter, load
from sqn_rl import train as train_agent
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.runs.directory import RunDirectory
from sqn_rl.training.agent import AGENT_PARTS

TINY = ["steps=480", "warmup_steps=40", "num_envs=2", "update_ratio=1", "batch_size=16", "hidden=[16]"]
TINY += ["log_every=40", "checkpoint_every=160", "eval_every=60", "eval_episodes=2", "lr=5e-3"]
TINY += ["checkpoint_best=true"]


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def best_of(run: Path) -> dict[str, Any]:
    return max(evaluations(run), key=lambda row: row["mean"])  # the first of equal means


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, named by its seed, with three or more best evaluations before its last."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in range(20):
        run = folder / f"{seed}"
        assert train(run, *TINY, f"seed={seed}") == "done"
        means = [row["mean"] for row in evaluations(run)]
        records = [mean for number, mean in enumerate(means) if mean > max(means[:number], default=0)]
        if len(records) >= 3 and means[-1] < records[-1]:
            return run
    raise AssertionError("no seed of these does")


def test_the_best_and_the_last_checkpoint_repeat_their_evaluations(alone: Path) -> None:
    best, last = load(alone, "best"), load(alone)
    row = best_of(alone)
    assert {"env_steps": best.env_steps, **best.evaluate().row()} == row
    assert {"env_steps": last.env_steps, **last.evaluate().row()} == evaluations(alone)[-1]
    assert json.loads((alone / "summary.json").read_text())["evaluation"] == evaluations(alone)[-1]
    assert load(alone, row["env_steps"]).env_steps == row["env_steps"]


def test_best_weights_are_equal_to_the_regular_checkpoint_of_that_step(alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, *TINY, f"seed={alone.name}", "checkpoint_every=60", "checkpoint_keep=9")
    name = f"{best_of(run)['env_steps']:010d}/weights.safetensors"
    kept = (run / "checkpoints" / name).read_bytes()
    assert kept == (run / "checkpoints" / "best" / name).read_bytes()
    assert kept == (alone / "checkpoints" / "best" / name).read_bytes()


def test_sqn_eval_reports_the_step_of_the_weights_or_lists_the_kept_checkpoints(
    alone: Path, command: Callable
) -> None:
    row = best_of(alone)
    for which in ("best", str(row["env_steps"])):
        out = command("evaluate", str(alone), "--checkpoint", which).out
        assert f"weights after {row['env_steps']} environment steps" in out
        assert f"return {row['mean']:.1f} ± " in out
    for which in ("last", "480"):
        assert "weights after 480 environ" in command("evaluate", str(alone), "--checkpoint", which).out
    failed = command("evaluate", str(alone), "--checkpoint", "400")
    best = {int(path.name) for path in (alone / "checkpoints").glob("best/*")}
    kept = [*sorted(best | {320, 480}), "last", "best"]
    where = f"{alone}/checkpoints: no checkpoint 400; kept: "
    assert (failed.code, failed.out) == (2, "")
    assert failed.err == f"{where}{', '.join(map(str, kept))}\n"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("event", "number"), [("evaluation", 8), ("best", 1), ("best", 2), ("best", 3)])
def test_a_run_killed_at_an_evaluation_resumes_to_the_same_best_checkpoints(
    event: str, number: int, when: str, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed once, before or after it writes its n-th evaluation or best evaluation."""
    happened, write = [], getattr(RunDirectory, event)

    def killed(self: RunDirectory, *what: Any) -> None:
        happened.append(what)
        if len(happened) == number and when == "before":
            raise Killed
        write(self, *what)
        if len(happened) == number:
            raise Killed

    monkeypatch.setattr(RunDirectory, event, killed)
    settings = [*TINY, f"seed={alone.name}"]
    with pytest.raises(Killed):
        train(tmp_path / "run", *settings)
    assert train(tmp_path / "run", *settings) == "done"
    assert differences(alone, tmp_path / "run") == []


def test_a_run_that_restarts_from_step_0_drops_its_best_checkpoint(alone: Path, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", [*TINY, f"seed={alone.name}"]
    with pytest.raises(Killed):
        train(run, *settings, die=(run / "checkpoints" / "best" / "0000000060").exists)
    assert load(run, "best").env_steps == 60
    with pytest.raises(CheckpointError, match="no checkpoint last; kept: 60, best"):
        load(run)
    with pytest.raises(Killed):
        train(run, *settings, die=lambda: True)
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        load(run, "best")


def test_an_extended_run_is_equal_to_one_trained_to_that_length(
    alone: Path, command: Callable, tmp_path: Path
) -> None:
    """The end of the shorter run is evaluated too; a longer run has no evaluation at that step."""
    run = tmp_path / "run"
    train(run, *TINY, f"seed={alone.name}", "steps=430")
    assert command("resume", str(run), "steps=480").code == 0
    assert evaluations(run) == evaluations(alone)
    for which in ("best", "last"):
        assert str(load(run, which).state_dict()) == str(load(alone, which).state_dict())


class Keeping(Reporter):
    """Records the step and the mean of each best evaluation."""

    def __init__(self) -> None:
        self.found: list[tuple[int, float]] = []

    def best(self, row: dict[str, Any], take_weights: Callable[[], dict[str, Any]]) -> None:
        assert "q_net.encoder.layers.0.weight" in take_weights()
        self.found.append((row["env_steps"], row["mean"]))


def test_only_a_strictly_higher_mean_is_a_new_best_evaluation() -> None:
    means = iter([2.0, 5.0, 5.0, 4.0, 6.0, -1.0])
    run = ["steps=60", "num_envs=1", "warmup_steps=50", "eval_every=10", "hidden=[4]", "replay_capacity=60"]
    recipe = compose_recipe("sqn", *run, "checkpoint_best=true")
    parts, keeping = recipe.build(), Keeping()
    agent = Agent(**{name: parts[name] for name in AGENT_PARTS})
    evaluate = lambda: Evaluation([next(means)], [1], greedy=True)  # noqa: E731
    train_agent(agent, parts["env"], recipe.run, evaluate=evaluate, reporters=[keeping])
    assert keeping.found == [(10, 2.0), (20, 5.0), (50, 6.0)]


def test_without_checkpoint_best_no_best_weights_are_written(tmp_path: Path) -> None:
    train(tmp_path / "run", *TINY, "checkpoint_best=false")
    assert not (tmp_path / "run" / "checkpoints" / "best").exists()
