"""``sqn-eject``: the file of a recipe trains the same agent, or the recipe is refused with the reason."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from torch import Tensor, nn
from torch.testing import assert_close

from sqn_rl import Agent, RecipeError, functional
from sqn_rl.cli.eject import main
from sqn_rl.parts.env.opening import close
from sqn_rl.parts.layers.dense import Dense
from sqn_rl.parts.q_net.per_network import PerNetwork
from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.eject.single_file import PATH_BACKUPS, SUPPORTED, _call, eject
from sqn_rl.recipe.provenance import override
from sqn_rl.training.agent import AGENT_PARTS
from sqn_rl.types import Step

SMALL = ("hidden=[24,16]", "batch_size=16", "replay_capacity=4000", "steps=400", "warmup_steps=100")
UPDATES, FEW, ROWS = 50, 10, 100

REFUSED = {
    "discrete_sac": "actor=policy",
    "r2d2": "head=rescaled",
    "rainbow": "layers=noisy",
    "sqn_apex": "collect=ray",
    "sqn_categorical": "head=categorical",
    "sqn_impala": "env=atari",
    "sqn_noisy": "layers=noisy",
    "sqn_quantile": "head=quantile",
    "sqn_r2d2": "head=rescaled",
    "sqn_rainbow": "layers=noisy",
}
"""The recipes that cannot be ejected, and the part that is the reason."""

TIMED = "env.wrappers=[{TimeLimit: {max_episode_steps: 200}},{TimeAwareObservation: {normalize_time: false}}]"

VARIANTS = [
    *([f"loss.backup={name}"] for name in functional.BACKUPS),
    *([f"loss.policy_source={name}"] for name in ("target_q1", "min", "target_min", "mean", "target_mean")),
    ["loss.backup_entropy=false", "q_net=single"],
    ["q_net=twin_shared", "head=dueling"],
    ["temperature=annealed", "eval_every=200"],
    ["temperature.optimise=alpha", "optimizer=sgd"],
    ["optimizer._target_=torch.optim.AdamW"],
    ["temperature.target_entropy=null", "temperature.target_entropy_fraction=0.3", "optimizer=adamw"],
    ["actor.policy=min", "returns=n_step", "returns.soft=true", "replay=prioritized", "replay.td_error=max"],
    ["loss=munchausen", "loss.policy_source=min", "returns=n_step", "returns.n=5"],
    *(["returns=tree_backup", f"loss.backup={name}", "returns.lmbda=0.7"] for name in PATH_BACKUPS),
    ["returns=tree_backup", "loss=munchausen", "loss.policy_source=target_q1", "replay=prioritized"],
    ["returns=tree_backup", "returns.n=1"],
    [
        "loss=dqn",
        "actor=epsilon_greedy",
        "actor.policy=mean",
        "target_update=periodic",
        "target_update.every=7",
    ],
    ["loss=double_dqn", "temperature=fixed", "actor=greedy", "optimizer=rmsprop"],
    ["env=minatar", "replay=prioritized"],
    ["env=minatar", "encoder=mlp", "env.game=freeway", "env.minimal_actions=false"],
    ["env=atari_ram", "env.game=ms_pacman", "env.max_frames=null"],
    ["env=gym", "env.id=FrozenLake-v1", "env.kwargs.is_slippery=false"],
    ["env=acrobot", TIMED],
]
"""Overrides of the recipe sqn: supported parts and settings that no recipe uses."""


def ejected(name: str, *overrides: str) -> dict[str, Any]:
    """The names that the file of a recipe defines."""
    recipe = compose_recipe(name, *SMALL, *overrides)
    source = eject(recipe, f"recipe={name}")
    check(source)
    namespace: dict[str, Any] = {"__name__": "ejected"}
    exec(compile(source, "ejected.py", "exec"), namespace)
    kind = torch.get_default_dtype()
    namespace["tensor"] = lambda array: torch.as_tensor(np.asarray(array), dtype=kind)
    return namespace


def check(source: str) -> None:
    lines, tree = source.splitlines(), ast.parse(source)
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 120
    assert not re.search(r"^#:|\$|[ \t]$|\n\n\n\n", source, re.MULTILINE)
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {
        "copy",
        "math",
        "collections",
        "typing",
        "gymnasium",
        "numpy",
        "torch",
        "ale_py",
        "minatar",
    }
    defined = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    used = {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert {name for name in defined if name.isupper()} <= used  # every setting is read


@pytest.mark.parametrize("name", Catalogue().names(RECIPE))
def test_an_ejected_recipe_trains_the_same_agent_or_the_recipe_is_refused(name: str) -> None:
    if name not in REFUSED:
        compare(name)
        return
    with pytest.raises(RecipeError, match=REFUSED[name]) as error:
        eject(compose_recipe(name), "")
    assert error.value.hint.startswith("it writes ")


@pytest.mark.parametrize("overrides", VARIANTS, ids=" ".join)
def test_other_ejected_parts_and_settings_train_the_same_agent(overrides: list[str]) -> None:
    compare("sqn", *overrides, updates=FEW)


def test_every_supported_class_is_in_a_compared_recipe_or_variant() -> None:
    names = [name for name in Catalogue().names(RECIPE) if name not in REFUSED]
    recipes = [compose_recipe(name) for name in names]
    recipes += [compose_recipe("sqn", *overrides) for overrides in VARIANTS]
    for slot, classes in SUPPORTED.items():
        assert {recipe.config[slot]["_target_"].removeprefix("sqn_rl.") for recipe in recipes} >= {
            *classes
        }, slot


@pytest.mark.parametrize("override", ["precision=bf16", "env.life_loss=true"])
def test_a_setting_that_eject_does_not_support_is_refused(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(RecipeError, match=key):
        eject(compose_recipe("sqn", "env=atari_ram", override), "")


@pytest.mark.parametrize(
    "overrides", [["loss.backup=sampled"], ["loss=dqn", "actor=epsilon_greedy"]], ids=" ".join
)
def test_an_unsupported_tree_backup_is_refused(overrides: list[str]) -> None:
    with pytest.raises(RecipeError, match="no such tree backup") as error:
        eject(compose_recipe("sqn", "returns=tree_backup", *overrides), "")
    assert "loss.backup=expected,expected_min" in error.value.hint


def test_stacked_observations_are_refused() -> None:
    with pytest.raises(RecipeError, match="no stacks of observations"):
        eject(compose_recipe("sqn", "env.frame_stack=2"), "")


@pytest.mark.parametrize(
    "text", ["plain", "two\nlines", 'a "quote" and a \\', "é\u2028\x7f", "\U0001f600"], ids=ascii
)
def test_any_string_is_written_as_a_valid_python_literal(text: str) -> None:
    gymnasium.register("EjectedText-v0", lambda text, **others: CartPoleEnv(**others))
    try:
        settings = ["env=gym", "env.id=EjectedText-v0", override("env.kwargs.text", text)]
        source = eject(compose_recipe("sqn", *settings), "")
    finally:
        del gymnasium.registry["EjectedText-v0"]
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    given = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "text"]
    assert [each.value for each in given if isinstance(each, ast.Constant)] == [text]
    assert text != "plain" or 'text="plain"' in source


def test_arguments_named_like_python_keywords_are_passed() -> None:
    kwargs = {"lambda": 1, "plain": 2, "a b": 3}
    names = {"gym": SimpleNamespace(make=lambda id, **given: (id, given))}
    exec(_call("gym.make", "'X-v0'", kwargs), names)
    assert names["env"] == ("X-v0", kwargs)


def test_overrides_may_follow_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["head=dueling", "--trust", "math", "lr=0.25"]) == 0
    assert "LR = 0.25" in capsys.readouterr().out


@pytest.mark.parametrize("env", ["recall", "cartpole_masked"])
def test_an_environment_of_sqn_rl_is_refused(env: str) -> None:
    with pytest.raises(RecipeError, match=f"writes no env={env}"):
        eject(compose_recipe("sqn", f"env={env}"), "")


def test_a_full_ejected_replay_draws_the_same_transitions() -> None:
    for returns in ("n_step", "tree_backup"):
        replays = Pair("sqn_dueling_per", "replay_capacity=200", f"returns={returns}", "returns.n=4")
        for _ in range(8):
            replays.store(17)
            batch = replays.recipe.replay.draw(64)
            replays.same_columns(replays.ejected_batch(batch), batch)


def compare(name: str, *overrides: str, updates: int = UPDATES) -> None:
    """Train both with the same batches from the same weights, in double precision, and act with both."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng():
            pair = Pair(name, *overrides)
            pair.store(ROWS)
            pair.train(updates)
            pair.act()
    finally:
        torch.set_default_dtype(torch.float32)


class Pair:
    """A recipe's agent, and that of its file, with the same weights and transitions."""

    def __init__(self, name: str, *overrides: str) -> None:
        self.file = SimpleNamespace(**ejected(name, *overrides))
        recipe = compose_recipe(name, *SMALL, *overrides)
        parts = recipe.build()
        close(parts["env"])
        self.shape, self.n_actions = parts["env"].observation_shape, parts["env"].n_actions
        self.dtype, self.num_envs = parts["env"].observation_dtype, recipe.run.num_envs
        self.batch_size = recipe.run.batch_size
        parts["loss"].to(torch.get_default_dtype())
        self.recipe = Agent(**{slot: parts[slot] for slot in AGENT_PARTS})
        self.agent = self.file.Agent(self.shape, self.n_actions)
        bonus = [self.agent.entropy_bonus] if hasattr(self.agent, "entropy_bonus") else []
        self.replay = self.file.Replay(self.shape, *bonus)
        for own, there in self.networks():
            for ours, theirs in zip(own, there, strict=True):
                ours.data.copy_(theirs)
        self.random = np.random.default_rng(0)

    def networks(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """The parameters of each network, in the file and in the recipe."""
        loss = self.recipe.loss
        for q, q_net in ((self.agent.q, loss.q_net), (self.agent.target_q, loss.target_q_net)):
            for i, head in enumerate(q.heads):
                body = q.encoders[min(i, len(q.encoders) - 1)]
                own = [each for part in (body, head) for each in part.parameters()]
                there = [each for part in (q_net.encoder, q_net.head) for each in parameters(part, i)]
                yield own, there

    def store(self, rows: int) -> None:
        """Store so many random rows in both replays."""
        n, shape = self.num_envs, (self.num_envs, *self.shape)
        for _ in range(rows):
            now, successor = (self.random.integers(0, 256, shape) for _ in range(2))
            if self.dtype == torch.bool:
                now, successor = now > 128, successor > 128
            elif self.dtype == torch.float32:
                now, successor = now / 128 - 1, successor / 128 - 1
            now, successor = (torch.as_tensor(each).to(self.dtype) for each in (now, successor))
            now = self.following if hasattr(self, "following") else now
            action = torch.as_tensor(self.random.integers(self.n_actions, size=n))
            reward = torch.as_tensor(self.random.normal(size=n), dtype=torch.float32)
            terminated, truncated = (torch.as_tensor(self.random.random(n) < 0.1) for _ in range(2))
            truncated &= ~terminated
            ended = terminated | truncated
            fresh = torch.as_tensor(self.random.integers(0, 2, shape)).to(self.dtype)
            self.following = torch.where(ended.reshape(n, *[1] * len(self.shape)), fresh, successor)
            step = Step(self.following, successor, reward, terminated, truncated, ended, reward.double())
            self.recipe.replay.store(now, action, step)
            self.replay.store(
                *(each.numpy() for each in (now, action, reward, successor, terminated, truncated))
            )

    def ejected_batch(self, batch: Any) -> Any:
        """The file's batch of the transitions of a batch from the recipe's replay."""
        ring = self.recipe.replay.ring
        row, env = np.divmod(batch.place.numpy(), self.num_envs)
        rows = ring.places // self.num_envs
        row = ring.row_count - 1 - (ring.row_count - 1 - row) % rows  # counted from the first ever stored
        index = row % self.replay.rows * self.num_envs + env
        weight = np.ones(len(row)) if batch.weight is None else batch.weight.numpy()
        return self.replay.batch(index, weight)

    @staticmethod
    def columns(batch: Any) -> dict[str, Tensor]:
        """A batch from the recipe's replay, in the file's columns, in double precision."""
        path = batch if batch.path is None else batch.path
        discount = batch.discount * ~batch.terminated if batch.path is None else path.discount
        weight = torch.ones_like(batch.discount) if batch.weight is None else batch.weight
        columns = {"observation": batch.observation, "reward": path.reward, "discount": discount}
        columns |= {"next_observation": path.next_observation, "weight": weight}
        columns |= {} if batch.path is None else {"trace": path.trace}
        actions = {"action": batch.action} | ({} if batch.path is None else {"next_action": path.next_action})
        return actions | {name: column.double() for name, column in columns.items()}

    def same_columns(self, own: Any, batch: Any) -> None:
        for name, theirs in self.columns(batch).items():
            ours = getattr(own, name)
            if name in ("trace", "next_action"):  # the last step has no successor
                ours, theirs = ours[:, :-1], theirs[:, :-1]
            if name == "next_action":
                ours, theirs = (each * (batch.path.trace[:, :-1] > 0) for each in (ours, theirs))
            assert_close(ours.double(), theirs.double(), rtol=1e-6, atol=1e-6)

    def train(self, updates: int) -> None:
        """So many updates of both, with the same batches and the same noise."""
        for number in range(updates):
            replay, prioritized = self.recipe.replay, hasattr(self.replay, "mass")
            if prioritized:
                replay.anneal(number)
                self.replay.beta = replay.sampler.beta
                same = torch.Generator().set_state(replay.sampler.generator.get_state())
                uniform = torch.rand(self.batch_size, dtype=torch.float64, generator=same).numpy()
                self.replay.rng = SimpleNamespace(random=lambda size, numbers=uniform: numbers[:size])
            batch = replay.draw(self.batch_size)
            own = self.replay.sample() if prioritized else self.ejected_batch(batch)
            if number < 3:
                self.same_columns(own, batch)
            own = self.file.Batch(**self.columns(batch), index=own.index)
            if hasattr(self.agent, "target_entropy") and hasattr(self.recipe.temperature, "anneal"):
                self.recipe.temperature.anneal(4 * number)
                self.agent.target_entropy = self.recipe.temperature.target_entropy
            torch.manual_seed(number)
            self.recipe.loss.generator.manual_seed(number)
            td_error = self.agent.update(own)
            terms = self.recipe.update(batch)
            assert_close(td_error, terms.td_error, rtol=1e-5, atol=1e-6)
            if prioritized:
                self.replay.update_priority(own.index, td_error)
        moved = 0.0
        for own, there in self.networks():
            for ours, theirs in zip(own, there, strict=True):
                assert_close(ours.detach(), theirs.detach(), rtol=1e-5, atol=1e-6)
                moved += theirs.abs().sum().item()
        assert moved > 0
        if (temperature := self.recipe.temperature) is not None and hasattr(self.agent, "alpha"):
            assert float(self.agent.alpha) == pytest.approx(temperature.alpha.item(), rel=1e-5)

    def act(self) -> None:
        """Both act alike: the same greedy actions, and the same frequencies of sampled actions."""
        actor, (observation, *_) = self.recipe.actor, self.recipe.replay.draw(64)
        assert (self.agent.act(observation, greedy=True) == actor.act(observation, greedy=True).numpy()).all()
        if hasattr(self.agent, "epsilon"):
            self.agent.epsilon = actor.epsilon.fill_(0.3).item()
        times = 4000
        action = self.agent.act(observation[:1].expand(times, *self.shape))
        often = np.bincount(action, minlength=self.n_actions) / times
        expected = actor.probabilities(actor.mean_scores(observation[:1]))[0].detach().numpy()
        np.testing.assert_allclose(often, expected, atol=0.04)


def parameters(part: nn.Module, network: int) -> Iterator[Tensor]:
    """The parameters of one network, as views in the shapes that PyTorch's layers have."""
    if isinstance(part, PerNetwork):
        part = part.parts[network]
    for module in part.modules():
        if isinstance(module, Dense):
            own = network if module.members > 1 else 0
            yield from (module.weight[own].T, module.bias[own].flatten())
        elif isinstance(module, nn.Conv2d):
            yield from (module.weight, module.bias)


RUN = {
    "a.py": ["recipe=sqn_dueling_per", "env=cartpole"],
    "b.py": ["recipe=sqn_nstep", "env=minatar", "env.max_episode_steps=30", "eval_every=100"],
    "c.py": ["recipe=dqn", "env=atari_ram", "env.max_frames=200", "seed=3", "eval_episodes=1"],
    "d.py": ["recipe=sqn", "env=acrobot", TIMED],
    "e.py": ["recipe=sqn", "env=gym", "env.id=FrozenLake-v1", "temperature=annealed", "returns=n_step"],
}


def test_ejected_files_train_as_scripts_without_warnings(tmp_path: Path) -> None:
    budget = ["steps=240", "warmup_steps=100", "update_ratio=0.29", "eval_episodes=2", "log_every=40"]
    for file, arguments in RUN.items():
        source = eject(compose_recipe("sqn", *budget, "hidden=[16]", *arguments), " ".join(arguments))
        (tmp_path / file).write_text(source, encoding="utf-8")
    code = "import runpy, sys; [runpy.run_path(each, run_name='__main__') for each in sys.argv[1:]]"
    command = [sys.executable, "-P", "-W", "error", "-c", code, *RUN]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.findall(r" 240 steps +(\d+) updates  evaluation", done.stdout) == ["40"] * len(RUN)
    assert len(re.findall(r"evaluation [\d.-]+ ± [\d.]+ over 2 episodes", done.stdout)) == len(RUN) - 1
    assert len(re.findall(r"evaluation [\d.-]+ in one episode", done.stdout)) == 1
    assert (tmp_path / "q_networks.pt").is_file()
