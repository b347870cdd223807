"""Each run has its own state of torch's global generators, whatever else the process draws."""

import ast
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sqn_rl
from sqn_rl import Agent, BoltzmannActor, GymEnv, Plan, Polyak, Reporter, compose, evaluate, load, train
from sqn_rl.training.random_state import RandomState

PACKAGE = Path(sqn_rl.__file__).parent
TINY = ["steps=80", "warmup_steps=20", "hidden=[8]", "batch_size=4", "eval_episodes=1", "compile=never"]


def drawn(state: RandomState, numbers: int = 3) -> list[float]:
    with state:
        return torch.rand(numbers).tolist()


def test_a_random_state_continues_its_stream_and_restores_the_global_generator() -> None:
    expected = torch.rand(6, generator=torch.Generator().manual_seed(7)).tolist()
    state, outside = RandomState(7, "cpu"), torch.get_rng_state()
    first = drawn(state)
    torch.rand(5)
    torch.set_rng_state(outside)
    assert first + drawn(state) == expected
    assert torch.equal(torch.get_rng_state(), outside)


def test_nested_random_states_are_independent() -> None:
    outer, inner = RandomState(1, "cpu"), RandomState(2, "cpu")
    with outer:
        first = torch.rand(1).item()
        assert drawn(inner) == drawn(RandomState(2, "cpu"))
        second = torch.rand(1).item()
    assert [first, second] == drawn(RandomState(1, "cpu"), 2)


def test_an_error_inside_a_random_state_restores_the_global_generator() -> None:
    outside = torch.get_rng_state()
    with pytest.raises(RuntimeError), RandomState(1, "cpu"):
        torch.rand(1) @ torch.rand(2)
    assert torch.equal(torch.get_rng_state(), outside)


def test_other_threads_can_enter_a_random_state_after_an_error_on_entry_or_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    def in_another_thread() -> list[float]:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(drawn, RandomState(1, "cpu")).result(timeout=60)

    broken = RandomState(1, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(RandomState, "_swap", fail)
        with pytest.raises(RuntimeError, match="device lost"):
            broken.__enter__()
    assert in_another_thread() == drawn(RandomState(1, "cpu"))
    broken.__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(RandomState, "_swap", fail)
        with pytest.raises(RuntimeError, match="device lost"):
            broken.__exit__()
    assert in_another_thread() == drawn(RandomState(1, "cpu"))


@pytest.mark.parametrize("inside", [True, False])
def test_a_random_state_continues_from_a_saved_state(inside: bool) -> None:
    state, other = RandomState(1, "cpu"), RandomState(2, "cpu")
    drawn(state)
    with state if inside else RandomState(9, "cpu"):
        saved = state.state_dict()
    for each in (saved, saved[0]):  # older checkpoints have a single tensor
        with other:
            other.load_state_dict(each)
        again = RandomState(3, "cpu")
        with again:
            again.load_state_dict(saved)
        assert drawn(other) == drawn(again)
    assert drawn(state) == drawn_after(1, 3)


def drawn_after(seed: int, numbers: int) -> list[float]:
    state = RandomState(seed, "cpu")
    drawn(state, numbers)
    return drawn(state)


# --- runs ---------------------------------------------------------------------------------------------------


class DropoutEncoder(nn.Module):
    """An encoder with dropout, whose initial weights come from the global generator."""

    def __init__(self, *, observation_shape: tuple[int, ...], layer: Any) -> None:
        super().__init__()
        self.out_features, self.linear = 8, nn.Linear(*observation_shape, 8)
        self.drop, self.norm = nn.Dropout(0.3), nn.BatchNorm1d(8)

    def forward(self, observation: Tensor) -> Tensor:
        return self.drop(torch.relu(self.norm(self.linear(observation))))


class Diary(Reporter):
    """Keeps the rows of a run, without times, and its states; may draw global numbers, as a logger might."""

    def __init__(self, meddles: bool) -> None:
        self.meddles = meddles
        self.rows: list[Any] = []
        self.states: dict[int, Any] = {}

    def metrics(self, row: dict[str, Any]) -> None:
        if self.meddles:
            torch.rand(1), np.random.rand(), random.random()
        self.rows.append(row | {"wall_s": 0})

    episode = evaluation = metrics

    def checkpoint(self, counters: Any, take_state: Callable[[], Any]) -> None:
        self.states[counters.env_steps] = deepcopy(take_state())


@pytest.fixture
def dropout_run(
    make_q_net: Any, make_temperature: Any, make_loss: Any, make_agent: Any
) -> Callable[..., Any]:
    """Trains an agent with dropout and batch norm, from a state if one is given; evaluates on the way."""

    def run(seed: int = 0, state: Any = None, meddles: bool = False) -> tuple[Diary, dict[str, Tensor]]:
        env, diary = GymEnv(id="CartPole-v1", num_envs=2, seed=seed), Diary(meddles)
        with RandomState(seed, "cpu"):
            q_net = make_q_net(encoder=DropoutEncoder, n_actions=2)
            temperature = make_temperature(n_actions=2)
            loss, plain = make_loss(q_net, temperature), make_agent(env, seed=seed)
        actor = BoltzmannActor(q_net=q_net, temperature=temperature, policy="q1", seed=seed)
        agent = Agent(
            actor=actor,
            loss=loss,
            target_update=Polyak(loss=loss, tau=0.05),
            optimizer=torch.optim.Adam,
            replay=plain.replay,
        )
        plan = Plan(
            steps=120, warmup_steps=20, update_ratio=0.5, batch_size=8, seed=seed, log_every=20,
            eval_every=40, checkpoint_every=60,
        )  # fmt: skip

        def games() -> Any:
            return evaluate(
                actor, GymEnv(id="CartPole-v1", num_envs=1, seed=9), episodes=1, greedy=False, seed=1
            )

        train(agent, env, plan, evaluate=games, reporters=[diary], state=state)
        return diary, agent.loss.state_dict()

    return run


def test_a_run_with_dropout_is_reproducible_and_resumes_from_a_checkpoint(dropout_run: Any) -> None:
    diary, weights = dropout_run()
    torch.rand(3)
    again, same_weights = dropout_run(meddles=True)
    assert again.rows == diary.rows
    torch.testing.assert_close(same_weights, weights, rtol=0, atol=0)
    _, resumed = dropout_run(state=diary.states[60])
    torch.testing.assert_close(resumed, weights, rtol=0, atol=0)
    assert dropout_run(seed=1)[0].rows != diary.rows


def test_runs_with_dropout_in_threads_equal_a_run_alone(dropout_run: Any) -> None:
    _, expected = dropout_run()
    with ThreadPoolExecutor(2) as pool:
        for _, weights in pool.map(dropout_run, [0, 0]):
            torch.testing.assert_close(weights, expected, rtol=0, atol=0)


def test_two_runs_in_threads_with_the_same_seed_have_the_weights_of_a_run_alone(tmp_path: Path) -> None:
    def weights(name: str) -> bytes:
        summary = compose("sqn", *TINY, "layers=noisy", f"out={tmp_path / name}").train()
        return next(Path(summary["out"]).glob("checkpoints/*/weights.safetensors")).read_bytes()

    alone = weights("alone")
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(weights, ["one", "two"])) == {alone}


def test_training_and_evaluating_do_not_change_the_global_generators(tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    experiment = compose("sqn", *TINY, f"out={tmp_path / 'run'}")
    experiment.train()
    load(tmp_path / "run").evaluate(episodes=1, greedy=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_initial_weights_are_those_of_torch_manual_seed() -> None:
    """The weights of the first layer, of the first network."""
    weight = compose("sqn", *TINY, "seed=3").recipe.build(last="q_net")["q_net"].encoder.layers[0].weight
    torch.manual_seed(3)
    assert torch.equal(weight.detach(), torch.empty_like(weight).uniform_(-0.5, 0.5))


# --- the source ---------------------------------------------------------------------------------------------

GLOBAL_NUMPY = {"default_rng", "SeedSequence", "Generator"}
DRAWS = {"rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal"}
IN_PLACE = {"uniform_", "normal_", "exponential_", "random_", "bernoulli_"}


def draws_without_a_generator(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(name.name == "random" for name in node.names):
            yield "random"
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, owner = node.func.attr, ast.unparse(node.func.value)
        given = {keyword.arg for keyword in node.keywords}
        if owner == "np.random" and name not in GLOBAL_NUMPY:
            yield f"{owner}.{name}"
        if ((owner == "torch" and name in DRAWS) or name in IN_PLACE) and "generator" not in given:
            yield name
        if (owner, name) in {("torch", "manual_seed"), ("torch", "seed"), ("torch", "set_rng_state")}:
            yield f"{owner}.{name}"


def test_the_package_draws_only_initial_weights_from_a_global_generator() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): sorted(draws)
        for path in PACKAGE.rglob("*.py")
        if (draws := [*draws_without_a_generator(ast.parse(path.read_text()))])
    }
    assert found == {"parts/layers/dense.py": ["uniform_", "uniform_"]}
