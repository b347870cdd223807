"""Faulty parts of a user: the message names the part, and a checkpoint keeps the steps before a failure."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqn_rl import UniformReplay

Command = Callable[..., Any]

TINY = ["steps=240", "warmup_steps=60", "num_envs=2", "update_ratio=0.25", "batch_size=8", "hidden=[8]"]
TINY += ["log_every=40", "checkpoint_every=80", "eval_episodes=2", "--config-dir", ".", "--trust", "lab"]

LAB = """
import gymnasium
import numpy as np
import torch
from torch import nn
from sqn_rl import BoltzmannActor, FixedTemperature, Reporter, TDLoss, UniformReplay

class ColumnLoss(TDLoss):
    def backup(self, target_q_NBA, next_observation):
        return (lambda q_NBA: q_NBA.amax(-1).mean(0)[:, None]), 0.0

class SumLoss(TDLoss):
    def backup(self, target_q_NBA, next_observation):
        return (lambda q_NBA: q_NBA.amax(-1)), 0.0

class BatchLoss(TDLoss):
    def backup(self, target_q_NBA, next_observation):
        return (lambda q_NBA: q_NBA.amax(-1).mean()), 0.0

class BonusLoss(ColumnLoss):
    def backup(self, target_q_NBA, next_observation):
        return (lambda q_NBA: q_NBA.amax(-1).mean(0)), target_q_NBA.mean()

class RewardLoss(BonusLoss):
    def backup(self, target_q_NBA, next_observation):
        return (lambda q_NBA: q_NBA.amax(-1).mean(0)), 0.0

    def reward(self, batch, q_NBA):
        return batch.reward.mean()

class Sinking(FixedTemperature):
    def refresh(self):
        self.alpha.sub_(0.01)

class Duck:
    def __init__(self, *, directory):
        pass

    def __getattr__(self, name):
        return lambda *_: None

class Stateless:
    def __init__(
        self, *, capacity, num_envs, observation_shape, observation_dtype, frame_stack, returns, seed, device
    ):
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        replay = UniformReplay(**settings)
        self.store, self.draw, self.cut = replay.store, replay.draw, replay.cut
        self.update_priority = replay.update_priority

class Arrays(Stateless):
    def state_dict(self):
        return {"n": np.arange(3)}

    def load_state_dict(self, state):
        pass

class LateHead(nn.Module):
    calls = 0

    def __init__(self, *, in_features, n_actions, layer):
        super().__init__()
        self.q = layer(in_features, n_actions)

    def forward(self, features):
        LateHead.calls += 1
        if LateHead.calls > 60:
            raise LookupError("my own error")
        return self.q(features)

class Sixes(BoltzmannActor):
    calls = 0

    def act(self, *arguments, **options):
        Sixes.calls += 1
        action = super().act(*arguments, **options)
        return action + 5 * (Sixes.calls > 30)

class Homeless:
    def __init__(self, *, policy):
        pass

    def act(self, observation, *, greedy=False, generator=None):
        return torch.zeros(len(observation), dtype=torch.int64)

class Undecided(BoltzmannActor):
    def act(self, observation):
        return super().act(observation)

class Tuples(Stateless):
    def __init__(
        self, *, capacity, num_envs, observation_shape, observation_dtype, frame_stack, returns, seed, device
    ):
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(**settings)
        draw = self.draw
        self.draw = lambda size: (draw(size).observation,)

class Counting(BoltzmannActor):
    def metrics(self):
        return {"calls": torch.tensor(3.0)}

class Listing(BoltzmannActor):
    def metrics(self):
        return {"calls": [3.0]}

class Popping(Reporter):
    def __init__(self, *, directory):
        pass

    def evaluation(self, row):
        row["mean"] = row.pop("env_steps")

    def finished(self, summary):
        summary.clear()

class Corridor(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 1, (2,)), gymnasium.spaces.Discrete(2)
"""

PARTS = {
    "loss": {
        **{"column": "ColumnLoss", "sum": "SumLoss", "batch": "BatchLoss"},
        **{"bonus": "BonusLoss", "reward": "RewardLoss"},
    },
    "temperature": {"sinking": "Sinking"},
    "replay": {"stateless": "Stateless", "arrays": "Arrays", "tuples": "Tuples"},
    "head": {"late": "LateHead"},
    "actor": {
        **{"sixes": "Sixes", "counting": "Counting", "listing": "Listing"},
        **{"homeless": "Homeless", "undecided": "Undecided"},
    },
    "logger": {"popping": "Popping", "duck": "Duck"},
    "env": {"corridor": "Corridor"},
}
FIELDS = {"replay": "capacity: 1000\n", "actor": "policy: mean\n", "temperature": "alpha: 0.1\n"}


@pytest.fixture(autouse=True)
def _lab(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    Path("lab.py").write_text(LAB)
    for slot, parts in PARTS.items():
        Path("components", slot).mkdir(parents=True)
        for name, kind in parts.items():
            head = "defaults: [/task@_global_: classic_control, _self_]\n" if slot == "env" else ""
            text = f"{head}_target_: lab.{kind}\n{FIELDS.get(slot, '')}"
            Path("components", slot, f"{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe=dqn loss=column", "ColumnLoss: the function of backup gives [8, 1]; expected [8], a number"),
        ("recipe=dqn q_net=twin loss=sum", "SumLoss: the function of backup gives [2, 8]; expected [8], a"),
        ("recipe=dqn loss=sum head=categorical", "loss=sum: SumLoss: the function of backup gives [1, 8]"),
        ("recipe=dqn loss=batch", "loss=batch: BatchLoss: the function of backup gives []; expected [8]"),
        ("recipe=dqn loss=batch head=quantile", "loss=batch: BatchLoss: the function of backup gives []"),
        ("recipe=dqn loss=bonus", "loss=bonus: BonusLoss: the bonus of backup gives []; expected [8]"),
        ("recipe=dqn loss=reward", "loss=reward: RewardLoss: reward gives []; expected [8], a number"),
        ("logger=duck", "logger=duck: Duck is not derived from sqn_rl.Reporter, as loggers must be"),
        ("actor=listing", "actor=listing: Listing.metrics() gives calls, a list; expected numbers by name"),
        ("actor=homeless", "actor=homeless: Homeless has no `device`; see docs/walkthroughs/own_parts.md"),
        ("actor=undecided", "actor=undecided: Undecided.act takes no `generator`; see docs"),
        ("replay=tuples", "replay=tuples: Tuples.draw gives a tuple; expected a sqn_rl.Batch; see docs"),
        ("env=corridor", "env=corridor: expected a subclass of sqn_rl.BatchedEnv; Corridor is none"),
    ],
)
def test_a_faulty_part_is_refused_before_the_run_begins(
    override: str, message: str, command: Command
) -> None:
    done = command("run", *TINY, *override.split(), "out=run")
    assert (done.code, Path("run").exists()) == (2, False)
    assert message in done.err


def test_a_temperature_that_sinks_to_0_stops_the_run_and_keeps_the_checkpoint_before(
    command: Command,
) -> None:
    done = command("run", *TINY, "temperature=sinking", "compile=never", "out=run")
    assert done.code == 4
    assert "temperature: Sinking gives alpha = -" in done.err
    assert [path.name for path in sorted(Path("run/checkpoints").glob("0*"))] == ["0000000080"]


def test_a_metric_may_be_a_tensor(command: Command) -> None:
    assert command("run", *TINY, "actor=counting", "out=run").code == 0
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert {row["calls"] for row in rows} == {3.0}


def test_a_reporter_that_mutates_its_arguments_changes_no_results(command: Command) -> None:
    assert command("run", *TINY, "logger=popping", "out=run").code == 0
    (row,) = [json.loads(line) for line in Path("run/evaluations.jsonl").read_text().splitlines()]
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["evaluation"] == row
    assert summary["status"] == "done"


@pytest.mark.parametrize("override", ["head=late", "actor=sixes"])
def test_a_part_that_fails_during_training_leaves_a_checkpoint_of_the_last_step(
    override: str, command: Command
) -> None:
    if override == "head=late":
        with pytest.raises(LookupError, match="my own error"):  # with the traceback of the user's code
            command("run", *TINY, override, "out=run")
    else:
        done = command("run", *TINY, override, "out=run")
        assert done.code == 1
        assert "actor: Sixes gives an invalid action: action = [" in done.err
    newest = max(path.name for path in Path("run/checkpoints").glob("0*"))
    steps = json.loads(Path("run/summary.json").read_text())["env_steps"]
    assert int(newest) == steps > 80
    assert steps % 80


def test_a_state_dict_with_a_numpy_array_is_refused_with_its_key(command: Command) -> None:
    done = command("run", *TINY, "replay=arrays", "out=run")
    assert done.code != 0
    assert "replay/n: a ndarray in a state_dict; expected tensors" in done.err


def contents() -> dict[Path, bytes]:
    files = (path for path in Path("run").rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def test_a_refused_extension_of_a_finished_run_changes_no_file(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("my own error")

    assert command("run", *TINY, "logger=tensorboard", "out=run").code == 0
    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(UniformReplay, "load_state_dict", fail)
        for more in ([], ["steps=400"]):
            done = command("resume", "run", *more)
            assert (done.code, contents()) == (2 if more else 0, before)
    assert "not the state of this recipe: LookupError: my own error" in done.err
    assert command("resume", "run", "steps=400").code == 0
    assert json.loads(Path("run/summary.json").read_text())["env_steps"] == 400


def test_a_part_without_a_state_dict_is_noted_and_its_run_cannot_be_extended(command: Command) -> None:
    done = command("run", *TINY, "replay=stateless", "out=run")
    lacks = "Stateless has no state_dict and load_state_dict"
    assert f"replay: {lacks}, so this run cannot be resumed" in done.out
    before = contents()
    done = command("resume", "run", "steps=400", *TINY[-4:])
    assert (done.code, contents()) == (2, before)
    assert lacks in done.err
