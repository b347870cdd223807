"""Properties of every loss with every head: where gradients flow, reported terms, importance weights."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sqn_rl.parts.distributions import Categorical, Distribution, Quantile
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.rescaling import Rescaled, rescale
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
B, STATES, ACTIONS, NETWORKS, K = 8, 16, 3, 2, 5
LOSSES = ["dqn", "double_dqn", "sqn", "munchausen", "discrete_sac"]
SOFT = LOSSES[2:]
HEADS = ["scalar", "categorical", "quantile", "rescaled"]
for_every_loss = pytest.mark.parametrize("name", LOSSES)
for_every_head = pytest.mark.parametrize("head", HEADS)


def make_distribution(head: str) -> Distribution | None:
    if head == "categorical":
        return Categorical(v_min=-3, v_max=3, atoms=K)
    if head == "rescaled":
        return Rescaled(epsilon=0.01)
    return Quantile(quantiles=K, kappa=1.0) if head == "quantile" else None


@pytest.fixture
def make(make_loss) -> Callable[..., TDLoss]:
    """A loss with a head, whose networks all differ."""

    def with_head(name: str, head: str = "scalar", **settings: Any) -> TDLoss:
        torch.manual_seed(1)
        numbers = {"scalar": (), "rescaled": (1,)}.get(head, (K,))
        shape = (2, NETWORKS, STATES, ACTIONS, *numbers)
        logits = torch.randn(STATES, ACTIONS)
        tables = torch.randn(shape)
        return make_loss(name, *tables, distribution=make_distribution(head), logits=logits, **settings)

    return with_head


def make_batch(**columns: Tensor) -> Batch:
    """Transitions of one to three steps, between states that occur once; every fourth is terminated."""
    torch.manual_seed(2)
    batch = Batch(
        observation=torch.arange(B),
        action=torch.randint(ACTIONS, (B,)),
        reward=torch.randn(B),
        next_observation=torch.arange(B, STATES),
        terminated=torch.arange(B) % 4 == 0,
        discount=0.5 ** (1.0 + torch.arange(B) % 3),
        place=torch.arange(B),
    )
    return batch._replace(**columns)


# --- where gradients go ------------------------------------------------------------------------------------


@for_every_loss
@for_every_head
def test_property_8_loss_q_trains_the_predictions_for_the_actions_taken_and_nothing_else(
    make, name: str, head: str
) -> None:
    """No gradient reaches the policy in the target or in the reward, the target networks, or α."""
    loss, batch = make(name, head), make_batch()
    loss.target_q_net.requires_grad_()  # so that a leak would show
    loss.temperature.alpha.requires_grad_()
    loss.compute(batch).losses["loss_q"].backward()
    grad_NSA = loss.q_net.table.grad.reshape(NETWORKS, STATES, ACTIONS, -1).abs().amax(-1)
    trained_NSA = torch.zeros(NETWORKS, STATES, ACTIONS, dtype=torch.bool)
    trained_NSA[:, batch.observation, batch.action] = True
    assert torch.equal(grad_NSA > 0, trained_NSA)
    others = dict(loss.named_parameters()) | {"alpha": loss.temperature.alpha}
    del others["q_net.table"]
    assert {key for key, parameter in others.items() if parameter.grad is not None} == set()


@for_every_head
def test_the_gradient_of_loss_q_equals_finite_differences_with_a_fixed_target(make, head: str) -> None:
    loss, batch, h = make("sqn", head), make_batch(), 1e-6
    terms = loss.compute(batch)
    terms.losses["loss_q"].backward()
    target, table = loss.target(batch, terms.q), loss.q_net.table.data
    predictions = loss.q_net.table.grad[:, 3, batch.action[3]]  # of the fourth transition
    for entry in torch.ones_like(predictions).nonzero().tolist():
        ends, place = [], (entry[0], 3, batch.action[3], *entry[1:])
        for step in (-h, 2 * h):
            table[place] += step
            prediction = loss.q_net.predict(batch.observation)
            loss_NB, _ = loss.q_net.distribution.loss(prediction, batch.action, target)
            ends.append(loss_NB.sum().item() / B)
        table[place] -= h
        assert predictions[tuple(entry)].item() == pytest.approx((ends[1] - ends[0]) / (2 * h), abs=1e-8)


@for_every_loss
@for_every_head
def test_loss_alpha_trains_the_temperature_and_nothing_else(make, name: str, head: str) -> None:
    loss = make(name, head)
    terms = loss.compute(make_batch())
    terms.losses["loss_alpha"].backward()
    # d/d log α of α (H − H̄) is itself
    assert_close(loss.temperature.parameter.grad, terms.losses["loss_alpha"].detach())
    trained = {key for key, parameter in loss.named_parameters() if parameter.grad is not None}
    assert trained == {"temperature.parameter"}


@for_every_loss
@for_every_head
def test_reported_terms_are_detached_and_come_from_the_online_networks(make, name: str, head: str) -> None:
    loss, batch = make(name, head), make_batch()
    terms = loss.compute(batch)
    assert not any(reported.requires_grad for reported in (terms.td_error, terms.q, terms.log_pi))
    assert_close(terms.q, loss.q_net.values(batch.observation).detach())
    wanted = loss.policy_net.table[0, :B] if name == "discrete_sac" else terms.q[0] / loss.temperature.alpha
    assert_close(terms.log_pi, wanted.detach().log_softmax(-1))
    target = loss.target(batch, terms.q)
    mean_B = {
        "scalar": lambda: target,
        "categorical": lambda: target @ loss.q_net.distribution.support,
        "quantile": lambda: target.mean(-1),
        "rescaled": lambda: target,
    }[head]()
    unit = partial(rescale, epsilon=0.01) if head == "rescaled" else torch.Tensor.clone
    assert_close(terms.td_error, unit(terms.q[:, torch.arange(B), batch.action]) - unit(mean_B))


@for_every_loss
@for_every_head
@pytest.mark.parametrize("where", ["reward", "q_net", "target_q_net"])
def test_nan_inputs_make_loss_q_nan_without_raising(make, name: str, head: str, where: str) -> None:
    settings = {"backup": "sampled"} if name in SOFT else {}
    loss, batch = make(name, head, **settings), make_batch()
    if where == "reward":
        batch.reward[0] = torch.nan
    else:
        getattr(loss, where).table.data.fill_(torch.nan)
    assert loss.compute(batch).losses["loss_q"].isnan()


# --- importance weights ------------------------------------------------------------------------------------


@for_every_loss
@for_every_head
def test_loss_q_is_linear_in_the_importance_weights(make, name: str, head: str) -> None:
    def loss_q(weight_B: Tensor | None) -> Tensor:
        return make(name, head).compute(make_batch(weight=weight_B)).losses["loss_q"].detach()

    weight_B = torch.linspace(0, 1, B) ** 2
    alone = torch.stack([loss_q(row_B) for row_B in torch.eye(B)])  # each as if the others had no weight
    assert (alone > 0).all()
    assert_close(loss_q(weight_B), weight_B @ alone)
    assert_close(loss_q(None), alone.sum())
    others = [make(name, head).compute(make_batch(weight=w)).losses for w in (None, weight_B)]
    for unweighted in set(others[0]) - {"loss_q"}:  # the losses of policy and temperature average over states
        assert torch.equal(others[0][unweighted], others[1][unweighted])
