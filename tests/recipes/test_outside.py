"""External parts: each is one class and one YAML file in a user's folder; no file of sqn_rl changes."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sqn_rl.cli import list as sqn_list
from sqn_rl.cli import run as sqn_run
from sqn_rl.recipe.compose import compose_recipe

MODULE = "outside_parts"

CLASSES = '''
import gymnasium
import numpy as np
import torch
from sqn_rl import GamesEnv, Played, TDLoss
from torch import nn


class Encoder(nn.Module):
    """Convolutions over the observation, written for a single network."""

    def __init__(self, *, observation_shape, channels):
        super().__init__()
        (length,) = observation_shape
        self.convolution = nn.Conv1d(1, channels, 2)
        self.norm = nn.LayerNorm(channels * (length - 1))
        self.out_features = channels * (length - 1)

    def forward(self, observation):
        return self.norm(torch.relu(self.convolution(observation.unsqueeze(1))).flatten(1))


class Head(nn.Module):
    def __init__(self, *, in_features, n_actions, width):
        super().__init__()
        self.hidden, self.q = nn.Linear(in_features, width), nn.Linear(width, n_actions)

    def forward(self, features):
        return self.q(torch.tanh(self.hidden(features)))


class Loss(TDLoss):
    """Expected SARSA of a policy that is uniform with some probability."""

    def __init__(self, *, q_net, temperature, gamma, seed, uniform):
        super().__init__(q_net=q_net, temperature=temperature, gamma=gamma, seed=seed)
        self.uniform = uniform

    def backup(self, target_q_NBA, next_observation):
        def value(q_NBA):
            q_BA = q_NBA.amin(0)
            return self.uniform * q_BA.mean(-1) + (1 - self.uniform) * q_BA.amax(-1)

        return value, 0.0


class Corridor(gymnasium.Env):
    """The episode ends at the right end."""

    observation_space = gymnasium.spaces.Box(0, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return self.observation(), {}

    def step(self, action):
        self.at = max(0, self.at + (1 if action else -1))
        return self.observation(), -1.0, self.at == self.length, False, {}

    def observation(self):
        return np.full(4, self.at / self.length, np.float32)


gymnasium.register("outside/Corridor-v0", Corridor, max_episode_steps=30)


class Corridors(GamesEnv):
    """The same without Gymnasium."""

    def __init__(self, *, length, num_envs, seed, training=True):
        super().__init__(
            name="corridors",
            n_actions=2,
            observation_shape=(4,),
            observation_dtype=torch.float32,
            frame_skip=1,
            num_envs=num_envs,
            seed=seed,
        )
        self.length, self.at, self.steps = length, [0] * num_envs, [0] * num_envs

    def _restart_one(self, i, seed):
        self.at[i] = self.steps[i] = 0
        return np.zeros(4, np.float32)

    def _play_one(self, i, action):
        self.at[i], self.steps[i] = max(0, self.at[i] + (1 if action else -1)), self.steps[i] + 1
        over, late = self.at[i] == self.length, self.steps[i] == 30
        return Played(np.full(4, self.at[i] / self.length, np.float32), -1.0, -1.0, over, late, over or late)
'''

TASK = "defaults: [/task@_global_: classic_control, _self_]\n"
FILES = {
    "encoder/mine": f"_target_: {MODULE}.Encoder\nchannels: 3\n",
    "head/mine": f"_target_: {MODULE}.Head\nwidth: 8\n",
    "loss/mine": f"_target_: {MODULE}.Loss\nuniform: 0.1\n",
    "env/mine": f"{TASK}_target_: sqn_rl.GymEnv\nid: outside/Corridor-v0\nkwargs: {{length: 3}}\n",
    "env/mine_too": f"{TASK}_target_: {MODULE}.Corridors\nlength: 3\n",
}
MINE = ["encoder=mine", "head=mine", "loss=mine"]
TINY = ["steps=400", "warmup_steps=100", "update_ratio=0.2", "batch_size=8", "num_envs=2", "eval_episodes=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder."""
    folder = tmp_path_factory.mktemp("users")
    for name, text in FILES.items():
        path = folder / "components" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Mine, the {name.partition('/')[0]}.\n{text}")
    (folder / f"{MODULE}.py").write_text(CLASSES)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is another; environment variables name the folder and trust its module."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SQN_RL_PATH", str(folder))
    monkeypatch.setenv("SQN_RL_TRUST", MODULE)


@pytest.mark.parametrize("q_net", ["twin", "twin_shared", "single"])
@pytest.mark.parametrize("env", ["mine", "mine_too"])
def test_external_parts_train_together_with_each_q_net(
    env: str, q_net: str, capfd: pytest.CaptureFixture[str]
) -> None:
    often = ["checkpoint_every=100", "checkpoint_keep=9"]
    code = sqn_run.main([f"env={env}", f"q_net={q_net}", *MINE, *TINY, *often, "out=run"])
    assert (code, capfd.readouterr().err) == (0, "")
    (*_, row) = map(json.loads, Path("run", "metrics.jsonl").read_text().splitlines())
    assert row["updates"] == 60
    assert all(map(math.isfinite, row.values())), row
    first, *_, last = map(load_file, sorted(Path("run", "checkpoints").glob("*/weights.safetensors")))
    learned = [key for key in first if key.startswith("q_net.")]
    assert len(learned) == {"twin": 2 * 8, "twin_shared": 4 + 2 * 4, "single": 8}[q_net]
    assert not any(torch.equal(first[key], last[key]) for key in learned)


@pytest.mark.parametrize(
    "parts", [["encoder=mine"], ["head=mine"], ["loss=mine"], ["env=mine"], ["env=mine_too"]]
)
def test_each_external_part_trains_with_built_in_parts(
    parts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sqn_run.main([*parts, *TINY, "hidden=[16]", "out=run"]) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "others",
    [
        ["layers=noisy", "returns=n_step", "replay=prioritized"],
        ["head=categorical", "layers=noisy"],
        ["actor=policy", "loss=discrete_sac"],
        ["actor=epsilon_greedy", "temperature=none"],
    ],
)
def test_external_parts_train_with_alternative_built_in_parts(
    others: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert sqn_run.main(["env=mine", *MINE, *others, *TINY, "out=run"]) == 0
    assert capfd.readouterr().err == ""


def test_external_parts_need_config_dir_and_trust_on_the_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SQN_RL_PATH")
    monkeypatch.delenv("SQN_RL_TRUST")
    options = ["--config-dir", str(folder), "--trust", MODULE]
    assert sqn_run.main([*options, "env=mine", *MINE, *TINY, "out=run"]) == 0
    capfd.readouterr()
    assert sqn_run.main(["--config-dir", str(folder), "env=mine", *MINE, *TINY, "out=other"]) == 2
    assert f"say so with --trust {MODULE}" in capfd.readouterr().err


def test_external_parts_are_listed_by_sqn_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert sqn_list.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "encoder=mine  Mine, the encoder.  channels=3  works with everything",
        "head=mine  Mine, the head.  width=8  works with everything",
        "loss=mine  Mine, the loss.  uniform=0.1  works with everything",
        "env=mine  Mine, the env.  id=outside/Corridor-v0 kwargs={length: 3}  works with everything",
        "env=mine_too  Mine, the env.  length=3  works with everything",
    ):
        assert line in lines


@pytest.mark.parametrize("parts", [["encoder=mine"], ["head=mine"], ["encoder=mine", "head=mine"]])
def test_twin_networks_of_plain_modules_share_no_parameters(parts: list[str]) -> None:
    q_net = compose_recipe("sqn", "env=mine", *parts).build()["q_net"]
    q_NBA = q_net.values(torch.rand(5, 4, generator=torch.Generator().manual_seed(1)))
    assert q_NBA.shape == (2, 5, 2)
    assert not torch.allclose(*q_NBA)  # each has its own, independently drawn parameters

    def reached(network: int) -> dict[str, torch.Tensor]:
        names, parameters = zip(*q_net.named_parameters(), strict=True)
        gradients = torch.autograd.grad(
            q_NBA[network].sum(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return {name: gradient != 0 for name, gradient in zip(names, gradients, strict=True)}

    one, two = reached(0), reached(1)
    assert not any((one[name] & two[name]).any() for name in one)
    assert all((one[name] | two[name]).any() for name in one)
