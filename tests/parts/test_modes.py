"""Dropout and batch norm are in train mode where an update computes, and in eval mode everywhere else."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sqn_rl
from sqn_rl import Dense, FixedTemperature, GymEnv, Periodic, Polyak, evaluate
from sqn_rl.parts.actor.base import NetworkActor
from sqn_rl.plots.film import Play
from sqn_rl.types import Batch

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class ModeSensitive(nn.Module):
    """In train mode this encoder draws, and its buffers change: in place, or replaced by other tensors."""

    def __init__(self, *, observation_shape: tuple[int, ...], layer: Any) -> None:
        super().__init__()
        self.out_features = 6
        self.norm, self.linear = nn.BatchNorm1d(*observation_shape), nn.Linear(*observation_shape, 6)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, observation: Tensor) -> Tensor:
        features = self.linear(self.norm(observation))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * features.detach().mean(0)
        return self.drop(torch.relu(features - self.mean))


ACTORS: dict[str, Callable[..., NetworkActor]] = {
    "BoltzmannActor": partial(sqn_rl.BoltzmannActor, policy="min", temperature=FixedTemperature(alpha=1.0)),
    "EpsilonGreedyActor": partial(
        sqn_rl.EpsilonGreedyActor, policy="q1", start=0.5, end=0.5, over=1.0, steps=1
    ),
    "GreedyActor": partial(sqn_rl.GreedyActor, policy="q1"),
    "PolicyActor": partial(
        sqn_rl.PolicyActor,
        encoder=ModeSensitive,
        layer=Dense,
        n_actions=2,
    ),
}


@pytest.fixture
def q_net(make_q_net: Any) -> Any:
    torch.manual_seed(0)
    return make_q_net(encoder=ModeSensitive, n_actions=2)


@pytest.fixture(params=[name for name in sqn_rl.__all__ if name.endswith("Actor")])
def actor(request: Any, q_net: Any) -> NetworkActor:
    return ACTORS[request.param](q_net=q_net, seed=0)


def learning_network(actor: NetworkActor, q_net: nn.Module) -> nn.Module:
    """The network that is trained; the actor acts with a view of it."""
    return getattr(actor, "policy_net", q_net)


def update_buffers(learning: nn.Module, q_net: Any, observation: Tensor) -> None:
    """Change the buffers as an update does: by a forward pass in train mode."""
    _ = q_net.values(observation) if learning is q_net else learning(observation)


def cart(num_envs: int = 1) -> GymEnv:
    return GymEnv(id="CartPole-v1", num_envs=num_envs, seed=5, training=False)


def by_itself(actor: NetworkActor, q_net: Any, greedy: bool) -> Any:
    return actor.act(X, greedy=greedy, generator=torch.Generator().manual_seed(0)).tolist()


def in_an_evaluation(actor: NetworkActor, q_net: Any, greedy: bool) -> Any:
    return evaluate(actor, cart(2), episodes=3, greedy=greedy, seed=0)


def on_film(actor: NetworkActor, q_net: Any, greedy: bool) -> Any:
    play = Play(actor, q_net, cart(), episodes=1, greedy=greedy, seed=0)
    return [(at.action, at.q.tolist(), at.pi is not None and at.pi.tolist()) for at in play]


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "sampled"])
@pytest.mark.parametrize("play", [by_itself, in_an_evaluation, on_film])
def test_acting_is_in_eval_mode_and_leaves_the_learning_network_unchanged(
    play: Any, actor: NetworkActor, q_net: Any, greedy: bool
) -> None:
    learning = learning_network(actor, q_net)
    update_buffers(learning, q_net, X + 1)
    before, drawing = deepcopy(learning.state_dict()), torch.get_rng_state()
    first = play(actor, q_net, greedy)
    assert play(actor, q_net, greedy) == first
    assert torch.equal(torch.get_rng_state(), drawing)
    torch.testing.assert_close(learning.state_dict(), before, rtol=0, atol=0)
    assert all(module.training for module in learning.modules())


@pytest.mark.parametrize("mode", [True, False])
def test_switching_the_mode_of_an_actor_changes_neither_its_actions_nor_the_q_net(
    actor: NetworkActor, q_net: Any, mode: bool
) -> None:
    expected = actor.act(X, greedy=True)
    nn.Sequential(actor).train(mode)
    assert actor.training is mode
    assert q_net.training
    assert torch.equal(actor.act(X, greedy=True), expected)


def test_the_acting_view_follows_the_parameters_and_buffers_of_the_learner(
    actor: NetworkActor, q_net: Any
) -> None:
    """After changes in place, replaced buffers, and a change of dtype, which replaces all tensors."""
    learning, acting = learning_network(actor, q_net), actor._view[0]
    for _ in range(2):
        update_buffers(learning, q_net, X.to(next(learning.parameters()).dtype))
        for which in ("named_parameters", "named_buffers"):
            there = dict(getattr(acting, which)())
            assert there.keys() == {name for name, _ in getattr(learning, which)()}
            assert all(there[name] is held for name, held in getattr(learning, which)())
        learning.double()


# --- the update ---------------------------------------------------------------------------------------------


def batch() -> Batch:
    zeros = torch.zeros(len(X))
    return Batch(
        observation=X,
        action=zeros.long(),
        reward=zeros,
        next_observation=X + 5,
        terminated=zeros.bool(),
        discount=zeros + 0.9,
        place=zeros.long(),
    )


def test_an_update_is_in_train_mode_and_its_target_networks_in_eval_mode(q_net: Any, make_loss: Any) -> None:
    loss = make_loss(q_net)
    before, targets = deepcopy(q_net.state_dict()), deepcopy(loss.target_q_net.state_dict())
    first, second = (loss.compute(batch()) for _ in range(2))
    assert (first.q != second.q).any()
    assert all(
        (q_net.state_dict()[name] != before[name]).any()
        for name in before
        if "norm.run" in name or "mean" in name
    )
    torch.testing.assert_close(loss.target_q_net.state_dict(), targets, rtol=0, atol=0)
    assert torch.equal(loss.target_q_net.values(X), loss.target_q_net.values(X))


@pytest.mark.parametrize("backup", ["expected", "sampled"])
def test_the_first_update_of_a_resumed_loss_equals_that_of_the_original(
    q_net: Any, make_loss: Any, backup: str
) -> None:
    loss = make_loss(q_net, backup=backup)
    loss.compute(batch())
    resumed = make_loss(deepcopy(q_net), backup=backup)
    resumed.load_state_dict(loss.state_dict())
    resumed.generator.set_state(loss.generator.get_state())
    results = []
    for each in (loss, resumed):
        torch.manual_seed(1)  # for dropout
        results.append(each.compute(batch()).losses["loss_q"].item())
    assert results[0] == results[1]
    torch.testing.assert_close(loss.state_dict(), resumed.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("mode", [True, False])
def test_target_networks_stay_in_eval_mode_in_any_mode_of_the_loss(
    q_net: Any, make_loss: Any, mode: bool
) -> None:
    loss = make_loss(q_net)
    nn.Sequential(loss).train(mode)
    assert {module.training for module in q_net.modules()} == {mode}
    assert not any(module.training for module in loss.target_q_net.modules())


@pytest.mark.parametrize("update", [partial(Polyak, tau=0.25), partial(Periodic, every=1)])
def test_target_updates_copy_the_buffers_of_the_online_network(
    update: Any, q_net: Any, make_loss: Any
) -> None:
    loss = make_loss(q_net)
    step = update(loss=loss).step
    for _ in range(2):
        loss.compute(batch())
        step()
        buffers = dict(loss.target_q_net.named_buffers())
        assert all(torch.equal(buffers[name], online) for name, online in q_net.named_buffers())
        assert all(buffers[name] is not online for name, online in q_net.named_buffers())
    assert {buffer.dtype for buffer in buffers.values()} == {torch.float32, torch.int64}


def test_periodic_updates_copy_buffers_only_at_the_period(q_net: Any, make_loss: Any) -> None:
    loss = make_loss(q_net)
    update = Periodic(loss=loss, every=2)
    loss.compute(batch())
    mean = loss.target_q_net.encoder.parts[0].norm.running_mean
    update.step()
    assert (mean == 0).all()
    update.step()
    assert (mean != 0).all()
