"""Fixtures that run the console scripts in this process and an empty folder, and a user's parts."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class RunFiles(NamedTuple):
    """The files of a run directory."""

    path: Path

    def rows(self, name: str, *without: str) -> list[dict[str, Any]]:
        """The rows of ``metrics``, ``episodes`` or ``evaluations``, ``without`` some columns."""
        rows = [json.loads(line) for line in (self.path / f"{name}.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key not in without} for row in rows]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.path / "summary.json").read_text())

    @property
    def weights(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("*/weights.safetensors"))


class Done(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str
    runs: list[RunFiles]
    """All runs in the folder after the command, oldest first."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory."""
    for variable in ("SQN_RL_PATH", "SQN_RL_TRUST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def command(folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``command("run", "steps=300")`` is ``sqn-run steps=300``."""

    def run(name: str, *arguments: str) -> Done:
        code = importlib.import_module(f"sqn_rl.cli.{name}").main(arguments)
        out, err = capfd.readouterr()
        recipes = sorted(folder.rglob("recipe.yaml"), key=lambda path: path.stat().st_mtime_ns)
        return Done(code, out, err, [RunFiles(path.parent) for path in recipes])

    return run


USERS_PARTS = '''
import ctypes
import os
import signal

import gymnasium
import numpy as np
import torch
from sqn_rl import SQNLoss
from torch import nn


class Head(nn.Module):
    def __init__(self, *, in_features, n_actions, layer):
        super().__init__()
        self.q = layer(in_features, n_actions)

    def forward(self, features):
        return self.q(features)


class WideHead(Head):
    def __init__(self, *, in_features, n_actions, layer):
        super().__init__(in_features=in_features, n_actions=n_actions + 1, layer=layer)


class TornHead(Head):
    def forward(self, features):
        return self.q(features).reshape(-1, 7)


class BrokenHead(Head):
    def __init__(self, *, in_features, n_actions, layer):
        super().__init__(in_features=in_features, n_actions=self.actions, layer=layer)


class HungryHead(Head):
    def __init__(self, *, in_features, n_actions, layer, width):
        super().__init__(in_features=in_features, n_actions=n_actions, layer=layer)


class Encoder(nn.Module):
    """Does not declare the width of its features."""

    def __init__(self, *, observation_shape, layer):
        super().__init__()
        self.layer = layer(observation_shape[0], 8)

    def forward(self, observation):
        return self.layer(observation)


class Loss(SQNLoss):
    """Reads a key that no part writes."""

    @property
    def in_keys(self):
        return [*super().in_keys, ("next", "value_prefix")]


class DicingLoss(SQNLoss):
    """Has a random generator whose state is in no checkpoint."""

    def __init__(self, *, q_net, temperature, gamma, backup, policy_source, backup_entropy, seed):
        fields = {"backup": backup, "policy_source": policy_source, "backup_entropy": backup_entropy}
        super().__init__(q_net=q_net, temperature=temperature, gamma=gamma, seed=seed, **fields)
        self.dice = [np.random.default_rng(seed)]


class Task(gymnasium.Env):
    """Does what ``happens`` says at step ``at``, or in the method ``where``."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, happens="nothing", at=60, actions=2, where="step"):
        self.action_space = gymnasium.spaces.Discrete(actions) if actions else self.observation_space
        self.happens, self.at, self.steps, self.where = happens, at, 0, where
        if happens == "exit_at_once":
            raise SystemExit(0)
        if where == "__init__":
            self.raise_signals()

    def raise_signals(self):
        for name in self.happens.split("+"):
            signal.raise_signal(signal.Signals[name])

    def reset(self, *, seed=None, options=None):
        if self.where == "reset" and self.steps >= self.at:
            self.raise_signals()
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == self.at and self.happens == "exit":
            os._exit(0)
        if self.steps == self.at and self.happens == "exit_in_C":
            ctypes.CDLL(None)._exit(0)
        if self.steps == self.at and self.happens == "an_error":
            raise RuntimeError("the robot fell over")
        if self.steps == self.at and self.happens.startswith("SIG") and self.where == "step":
            self.raise_signals()
        reward = np.nan if self.steps >= self.at and self.happens == "NaN_rewards" else 1.0
        late = self.steps % 20 == 0 and self.happens != "never_ends"
        return np.zeros(3, np.float32), reward, False, late, {}


gymnasium.register("users/Task-v0", Task)
'''


@pytest.fixture(scope="session")
def users_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's configuration tree: a module, and a part for each head, encoder and loss in it."""
    tree = tmp_path_factory.mktemp("users")
    (tree / "users_parts.py").write_text(USERS_PARTS)
    for part in re.findall(r"class (\w+)", USERS_PARTS):
        slot = next((slot for slot in ("head", "encoder", "loss") if part.lower().endswith(slot)), None)
        if slot:
            path = tree / "components" / slot / f"{part.lower()}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            fields = "backup: expected\npolicy_source: q1\nbackup_entropy: true\n" if slot == "loss" else ""
            path.write_text(f"# The user's.\n_target_: users_parts.{part}\n{fields}")
    return tree


@pytest.fixture
def trusting(users_tree: Path) -> list[str]:
    """The options that add the user's tree and trust its module."""
    return ["--config-dir", str(users_tree), "--trust", "users_parts"]
