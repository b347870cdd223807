"""One update of the agent: a step on every loss, then α and target networks; or an error and no change."""

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from sqn_rl import Adam
from sqn_rl.errors import NumericsError, WiringError
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.target_update.polyak import Polyak
from sqn_rl.training.agent import Agent
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
STATES, ACTIONS, B, LR, LR_ALPHA, TAU = 8, 3, 4, 0.5, 0.25, 0.1
LOSSES = ["dqn", "double_dqn", "sqn", "munchausen", "discrete_sac"]
for_every_loss = pytest.mark.parametrize("name", LOSSES)


class Told:
    """A stub of a replay or an actor: records what it receives in an update, and returns fixed metrics."""

    def __init__(self, **metrics: float) -> None:
        self.priorities: list[tuple[Tensor, Tensor]] = []
        self.env_steps: list[int] = []
        self._metrics = metrics

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        self.priorities.append((index, priority))

    def anneal(self, env_steps: int) -> None:
        self.env_steps.append(env_steps)

    def metrics(self) -> dict[str, float]:
        return self._metrics


def make_batch(**columns: Tensor) -> Batch:
    torch.manual_seed(2)
    batch = Batch(
        observation=torch.arange(B),
        action=torch.randint(ACTIONS, (B,)),
        reward=torch.randn(B),
        next_observation=torch.arange(B, STATES),
        terminated=torch.arange(B) == 0,
        discount=torch.full((B,), 0.5),
        place=torch.tensor([7, 1, 5, 3]),
        weight=torch.rand(B),
    )
    return batch._replace(**columns)


@pytest.fixture
def make(make_loss, make_temperature) -> Callable[..., TDLoss]:
    def from_tables(name: str, **settings: Any) -> TDLoss:
        torch.manual_seed(1)
        logits, tables = torch.randn(STATES, ACTIONS), torch.randn(2, 2, STATES, ACTIONS)
        defaults = {"temperature": make_temperature(lr=LR_ALPHA), "logits": logits}
        return make_loss(name, *tables, **defaults | settings)

    return from_tables


def agent_of(loss: TDLoss, **settings: Any) -> Agent:
    parts = {"actor": Told(), "replay": Told(), "target_update": Polyak(loss=loss, tau=TAU)}
    return Agent(loss=loss, **{"optimizer": partial(torch.optim.SGD, lr=LR)} | parts | settings)


@for_every_loss
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_update_is_one_gradient_step_on_every_loss(make, name: str, weight_decay: float) -> None:
    loss, batch = make(name), make_batch()
    agent = agent_of(loss, optimizer=partial(torch.optim.SGD, lr=LR, weight_decay=weight_decay))
    for _ in range(2):  # the second update must not add to the gradients of the first
        before = {key: value.clone() for key, value in loss.state_dict().items()}
        twin = make(name)
        twin.load_state_dict(before)
        wanted_terms = twin.compute(batch)
        for term in wanted_terms.losses.values():  # each has its own parameters
            term.backward()
        gradients = {key: parameter.grad for key, parameter in twin.named_parameters()}
        terms = agent.update(batch)
        assert_close(terms.td_error, wanted_terms.td_error)
        trained = {"q_net.table", "temperature.parameter"} | (
            {"policy_net.table"} if name == "discrete_sac" else set()
        )
        assert {key for key, gradient in gradients.items() if gradient is not None} == trained
        for key in trained - {"temperature.parameter"}:
            step = LR * (gradients[key] + weight_decay * before[key])
            assert_close(loss.get_parameter(key).detach(), before[key] - step)
        # α has its own learning rate, and does not decay
        log_alpha = before["temperature.parameter"] - LR_ALPHA * gradients["temperature.parameter"]
        assert_close(loss.temperature.parameter.detach(), log_alpha)
        assert_close(loss.temperature.alpha, log_alpha.exp())
        target = (1 - TAU) * before["target_q_net.table"] + TAU * loss.q_net.table.detach()
        assert_close(loss.target_q_net.table, target)


@for_every_loss
@pytest.mark.parametrize("lr", [LR, LR_ALPHA])
def test_the_optimizer_has_each_trainable_parameter_once_and_no_target_network(
    make, name: str, lr: float
) -> None:
    loss = make(name)
    groups = agent_of(loss, optimizer=partial(torch.optim.SGD, lr=lr)).optimizer.param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    learned = [key for key, parameter in loss.named_parameters() if parameter.requires_grad]
    assert not any(key.startswith("target") for key in learned)
    assert sorted(held) == sorted(id(loss.get_parameter(key)) for key in learned)
    assert len(groups) == (1 if lr == LR_ALPHA else 2)  # with equal rates, one group has all


@for_every_loss
def test_the_replay_receives_the_td_errors_of_the_drawn_transitions(make, name: str) -> None:
    agent = agent_of(make(name))
    terms = agent.update(make_batch())
    ((place, priority),) = agent.replay.priorities
    assert place.tolist() == [7, 1, 5, 3]
    assert torch.equal(priority, terms.td_error)
    assert priority.shape == (2, B)


@pytest.mark.parametrize("name", ["dqn", "double_dqn"])
def test_without_a_temperature_the_q_update_of_a_hard_loss_is_the_same(make, name: str) -> None:
    loss, warm = make(name, temperature=None), make(name)
    agent, before = agent_of(loss), loss.q_net.table.detach().clone()
    assert agent.temperature is None
    agent.update(make_batch())
    agent_of(warm).update(make_batch())
    assert torch.equal(loss.q_net.table, warm.q_net.table)
    assert not torch.equal(loss.q_net.table, before)


class Returns(Told):
    """A stub of a replay with returns that have these attributes."""

    def __init__(self, **returns: Any) -> None:
        super().__init__()
        self.returns = SimpleNamespace(**returns)


def test_a_loss_whose_gamma_differs_from_that_of_the_returns_is_refused(make) -> None:
    agent_of(make("sqn", gamma=0.9), replay=Returns(gamma=0.9))
    with pytest.raises(WiringError, match=r"loss: gamma = 0\.9: expected 0\.99"):
        agent_of(make("sqn", gamma=0.9), replay=Returns(gamma=0.99))


def test_an_actor_whose_temperature_is_not_that_of_the_loss_is_refused(make, make_temperature) -> None:
    loss, actor = make("sqn"), Told()
    for actor.temperature in (None, loss.temperature):
        agent_of(loss, actor=actor)
    actor.temperature = make_temperature()
    agent_of(make("dqn", temperature=None), actor=actor)  # the temperature only shapes exploration
    with pytest.raises(WiringError, match="actor: its temperature is not the loss's"):
        agent_of(loss, actor=actor)


def test_paths_are_refused_by_a_loss_that_does_not_read_them(make) -> None:
    for name in ("sqn", "dqn", "munchausen", "discrete_sac"):
        agent_of(make(name), replay=Returns(gives_paths=True))
    loss = make("sqn")
    loss.reads_paths = False
    agent_of(loss, replay=Returns(gives_paths=False))
    with pytest.raises(WiringError, match="gives paths, which SQNLoss does not read"):
        agent_of(loss, replay=Returns(gives_paths=True))


@pytest.mark.parametrize(
    ("name", "settings", "soft"),
    [
        ("sqn", {}, True),
        ("sqn", {"backup_entropy": False}, False),
        ("munchausen", {}, True),
        ("munchausen", {"backup_entropy": False}, False),
        ("discrete_sac", {}, True),
        ("dqn", {}, False),
        ("double_dqn", {}, False),
    ],
)
def test_soft_returns_are_refused_where_the_target_has_no_entropy(
    make, name: str, settings: dict[str, Any], soft: bool
) -> None:
    loss = make(name, **settings)
    agent_of(loss, replay=Returns(soft=False))
    if soft:
        agent_of(loss, replay=Returns(soft=True))
        return
    with pytest.raises(WiringError, match=r"returns.soft = true: .* set it to false") as raised:
        agent_of(loss, replay=Returns(soft=True))
    producer = "loss.backup_entropy" if settings else "loss"
    assert (raised.value.consumer, raised.value.producer) == ("returns.soft", producer)


def nan_in(key: str) -> Callable[[TDLoss], Batch]:
    def spoil(loss: TDLoss) -> Batch:
        loss.state_dict()[key].flatten()[0] = math.nan
        return make_batch()

    return spoil


def overflow(loss: TDLoss) -> Batch:
    """Make the gradient infinite while the losses are finite."""
    loss.q_net.table.register_hook(lambda gradient: gradient * math.inf)
    return make_batch()


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        *[(name, lambda _: make_batch(reward=torch.full((B,), math.nan)), "loss_q = nan") for name in LOSSES],
        ("sqn", lambda _: make_batch(reward=torch.tensor([1.0, 1, -math.inf, 1])), "loss_q = inf"),
        ("dqn", nan_in("q_net.table"), "loss_q = nan"),
        ("sqn", overflow, "gradient norm = nan"),
        ("discrete_sac", nan_in("policy_net.table"), "loss_policy = nan"),
        ("sqn", nan_in("temperature.parameter"), "loss_alpha = nan"),
        ("discrete_sac", nan_in("temperature.alpha"), "loss_policy = nan"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_is_refused_before_the_step(
    make, name: str, spoil: Callable[[TDLoss], Batch], message: str
) -> None:
    loss = make(name)
    agent, batch = agent_of(loss, optimizer=partial(torch.optim.Adam, lr=LR)), spoil(loss)
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    with pytest.raises(NumericsError, match=message):
        agent.update(batch)
    for key, value in loss.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0, equal_nan=True)
    assert not agent.optimizer.state
    assert not agent.replay.priorities


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop, Adam])
def test_every_tensor_that_a_step_changes_must_be_finite(make, optimizer: type[Optimizer]) -> None:
    loss = make("sqn")
    agent = agent_of(loss, optimizer=partial(optimizer, lr=LR))
    agent.update(make_batch())
    agent.require_sound()
    names = {parameter: name for name, parameter in loss.named_parameters()}
    learned = {f"weights: {name}": tensor for name, tensor in loss.state_dict().items()}
    for parameter, state in agent.optimizer.state.items():
        learned |= {f"optimizer: {name} of {names[parameter]}": tensor for name, tensor in state.items()}
    assert {"weights: temperature.alpha", "weights: temperature.parameter"} < learned.keys()
    for name, tensor in learned.items():
        for bad in (math.nan, math.inf):
            before = tensor.detach().clone()
            tensor.detach().flatten()[0] = bad
            with pytest.raises(NumericsError, match=f"^{name}: 1 of {tensor.numel()} not finite\n"):
                agent.require_sound()
            tensor.detach().copy_(before)
    agent.require_sound()


def test_an_agent_anneals_its_parts_and_collects_their_metrics(make) -> None:
    agent = agent_of(make("sqn"), actor=Told(epsilon=0.1), replay=Told(beta=0.4))
    agent.anneal(30)
    assert agent.actor.env_steps == agent.replay.env_steps == [30]
    assert agent.metrics() == {"alpha": 0.75, "target_entropy": 0.5, "epsilon": 0.1, "beta": 0.4}
    bare = agent_of(make("dqn", temperature=None), actor=object(), replay=object())
    bare.anneal(30)
    assert bare.metrics() == {}
