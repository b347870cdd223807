"""Property 4: on a small MDP the real loss, iterated, reaches the soft-optimal Q, and its backup contracts.

The network is a table. An MLP without hidden layers passes a one-hot state on, and the linear head's
``weight[i, s, a]`` is then Q_i(s, a), its bias being held at zero. The batch holds every (s, a, s'), weighted
by P(s'|s, a), so that L_Q is quadratic with curvature 2 / rows in every entry: a gradient step of rows / 2
solves it.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from sqn_rl.data import Batch
from sqn_rl.losses.sqn import SQNLoss
from sqn_rl.losses.temperature import FixedTemperature
from sqn_rl.nets.dense import Dense
from sqn_rl.nets.linear_head import LinearHead
from sqn_rl.nets.mlp import MLP
from sqn_rl.nets.q_net import QNet
from sqn_rl.targets.periodic import Periodic
from sqn_rl.targets.polyak import Polyak

STATES, ACTIONS, GAMMA = 6, 3, 0.8
TERMINAL = [4, 5]

rng = np.random.default_rng(0)
P = rng.dirichlet(np.full(STATES, 0.5), size=(STATES, ACTIONS))  # [S, A, S']
R = rng.normal(size=(STATES, ACTIONS, STATES))  # [S, A, S']
LIVING = [s for s in range(STATES) if s not in TERMINAL]


def soft_value_iteration(alpha: float) -> np.ndarray:
    """The soft-optimal Q of the living states: Q ← Σ_s' P (R + γ V(s')) with V = α log Σ_a exp(Q/α)."""
    q = np.zeros((STATES, ACTIONS))
    for _ in range(300):  # 0.8³⁰⁰ = 10⁻²⁹
        v = alpha * np.log(np.exp(q / alpha).sum(1))
        v[TERMINAL] = 0  # nothing comes after
        q = (P * (R + GAMMA * v)).sum(2)
    return q[LIVING]


def make_loss(alpha: float = 0.5, **settings: Any) -> SQNLoss:
    q_net = QNet(
        encoder=partial(MLP, hidden=[]),
        head=LinearHead,
        layer=Dense,
        observation_shape=(STATES,),
        n_actions=ACTIONS,
        members=2,
        shared_encoder=False,
    )
    torch.nn.init.zeros_(q_net.head.q.bias).requires_grad_(False)
    torch.nn.init.normal_(q_net.head.q.weight, generator=torch.Generator().manual_seed(0))
    fixed = {"temperature": FixedTemperature(alpha=alpha), "gamma": GAMMA, "backup_entropy": True, "seed": 0}
    return SQNLoss(q_net=q_net, **fixed | settings)


def every_transition() -> tuple[Batch, Tensor]:
    """Each (s, a, s') from a living state once, and P(s'|s, a)."""
    s, a, s_next = (torch.tensor(x).flatten() for x in np.meshgrid(LIVING, range(ACTIONS), range(STATES)))
    one_hot = torch.eye(STATES)
    batch = Batch(
        observation=one_hot[s],
        action=a,
        reward=torch.tensor(R)[s, a, s_next],
        next_observation=one_hot[s_next],
        terminated=torch.isin(s_next, torch.tensor(TERMINAL)),
        discount=torch.full((len(s),), GAMMA),
        place=torch.arange(len(s)),
    )
    return batch, torch.tensor(P)[s, a, s_next]


def iterate(loss: SQNLoss, target_update: Periodic | Polyak, updates: int) -> np.ndarray:
    """The learned Q_i of the living states, ``[2, S, A]``."""
    batch, weight = every_transition()
    optimizer = torch.optim.SGD([loss.q_net.head.q.weight], lr=len(weight) / 2)
    for _ in range(updates):
        optimizer.zero_grad()
        loss.compute(batch, weight).loss_q.backward()
        optimizer.step()
        target_update.step()
    return loss.q_net.head.q.weight.detach().numpy()[:, LIVING]


# The first exact step makes the twins equal in every living state, and a full target update makes the online
# networks equal to their targets: from then on every expectation is the soft value (property 3).
@pytest.mark.parametrize("backup", ["expected", "expected_min", "expected_mean"])
@pytest.mark.parametrize("policy_source", ["q1", "target_q1", "min", "target_min"])
def test_property_4_iterating_the_loss_reaches_the_soft_optimal_q(backup: str, policy_source: str) -> None:
    loss = make_loss(backup=backup, policy_source=policy_source)
    q = iterate(loss, Periodic(loss=loss, every=1), updates=120)  # 0.8¹²⁰ = 2 · 10⁻¹²
    np.testing.assert_allclose(q, np.stack([soft_value_iteration(0.5)] * 2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.05, 5.0])
def test_property_4_at_other_temperatures(alpha: float) -> None:
    loss = make_loss(alpha, backup="expected", policy_source="q1")
    q = iterate(loss, Polyak(loss=loss, tau=1.0), updates=140)
    np.testing.assert_allclose(q, np.stack([soft_value_iteration(alpha)] * 2), rtol=0, atol=1e-9)


def test_property_4_with_targets_that_trail_behind() -> None:
    loss = make_loss(backup="expected_min", policy_source="target_min")
    q = iterate(loss, Polyak(loss=loss, tau=0.5), updates=300)  # each contracts by 1 − .5 (1 − γ) = .9
    np.testing.assert_allclose(q, np.stack([soft_value_iteration(0.5)] * 2), rtol=0, atol=1e-9)


def test_the_entropy_bonus_makes_the_difference() -> None:
    loss = make_loss(backup="expected", policy_source="q1", backup_entropy=False)
    q = iterate(loss, Periodic(loss=loss, every=1), updates=120)
    assert np.abs(q - soft_value_iteration(0.5)).max() > 0.1


# --- the contraction ---------------------------------------------------------------------------------------

tables = arrays(np.float64, (STATES, ACTIONS), elements=st.floats(-20, 20))


def soft_backup(loss: SQNLoss, q_SA: np.ndarray) -> np.ndarray:
    """(T Q)(s, a) = Σ_s' P y, with the y of the real loss when both target networks are Q. ``[S, A]``."""
    with torch.no_grad():
        loss.target_q_net.head.q.weight.copy_(torch.tensor(q_SA))
    batch, weight = every_transition()
    terms = loss.compute(batch, weight)
    y = terms.q[0, torch.arange(len(weight)), batch.action] - terms.td_error[0]
    backed_up = torch.zeros(STATES, ACTIONS)
    backed_up.index_put_((batch.observation.argmax(1), batch.action), weight * y, accumulate=True)
    return backed_up.numpy()[LIVING]


@given(tables, tables, st.floats(0.05, 10))
def test_property_4_the_soft_backup_is_a_gamma_contraction_in_the_sup_norm(
    q_SA: np.ndarray, other_SA: np.ndarray, alpha: float
) -> None:
    loss = make_loss(alpha, backup="expected_min", policy_source="target_min")
    apart = np.abs(soft_backup(loss, q_SA) - soft_backup(loss, other_SA)).max()
    assert apart <= GAMMA * np.abs(q_SA - other_SA).max() + 1e-12


@given(tables, st.floats(0.05, 10), st.floats(-20, 20))
def test_property_4_a_constant_contracts_by_gamma_times_the_chance_to_live_on(
    q_SA: np.ndarray, alpha: float, shift: float
) -> None:
    loss = make_loss(alpha, backup="expected_min", policy_source="target_min")
    moved = soft_backup(loss, q_SA + shift) - soft_backup(loss, q_SA)
    lives_on = P[LIVING][:, :, LIVING].sum(2)
    np.testing.assert_allclose(moved, GAMMA * lives_on * shift, rtol=0, atol=1e-12)
