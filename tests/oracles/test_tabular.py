"""Property 4: on a small MDP the iterated losses reach the solution of dynamic programming, and contract.

The network is a table, and the batch holds every (s, a, s'), weighted by P(s'|s, a), so that L_Q is quadratic
with curvature 2 / rows in every entry: a gradient step of rows / 2 solves it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.target_update.periodic import Periodic
from sqn_rl.parts.target_update.polyak import Polyak
from sqn_rl.parts.temperature.fixed import FixedTemperature
from sqn_rl.types import Batch

STATES, ACTIONS, GAMMA = 6, 3, 0.8
TERMINAL = [4, 5]

rng = np.random.default_rng(0)
P = rng.dirichlet(np.full(STATES, 0.5), size=(STATES, ACTIONS))  # [S, A, S']
R = rng.normal(size=(STATES, ACTIONS, STATES))  # [S, A, S']
LIVING = [s for s in range(STATES) if s not in TERMINAL]

Table = np.ndarray  # [S, A], or [S]


def bellman(v: Table) -> Table:
    """Q = Σ_s' P (R + γ v(s')), where nothing comes after a terminal state."""
    return (P * (R + GAMMA * np.where(np.isin(np.arange(STATES), TERMINAL), 0, v))).sum(2)


def value_iteration(value: Callable[[Table], Table]) -> Table:
    """The Q of the living states that ``Q ← r + γ P value(Q)`` converges to."""
    q = np.zeros((STATES, ACTIONS))
    for _ in range(300):  # 0.8³⁰⁰ = 10⁻²⁹
        q = bellman(value(q))
    return q[LIVING]


def softmax(x: Table) -> Table:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def soft(alpha: float) -> Callable[[Table], Table]:
    """V = α log Σ_a exp(Q / α)."""
    return lambda q: alpha * np.log(np.exp(q / alpha).sum(1))


@pytest.fixture(scope="module")
def make(make_loss) -> Callable[..., TDLoss]:
    """A loss by its part's name, with this α; from random networks, two by default."""

    def with_alpha(name: str = "sqn", alpha: float = 0.5, networks: int = 2, **settings: Any) -> TDLoss:
        table = torch.randn(networks, STATES, ACTIONS, generator=torch.Generator().manual_seed(0))
        return make_loss(name, table, temperature=FixedTemperature(alpha=alpha), gamma=GAMMA, **settings)

    return with_alpha


def every_transition() -> Batch:
    """Each (s, a, s') from a living state once, weighted by P(s'|s, a)."""
    s, a, s_next = (torch.tensor(x).flatten() for x in np.meshgrid(LIVING, range(ACTIONS), range(STATES)))
    return Batch(
        observation=s,
        action=a,
        reward=torch.tensor(R)[s, a, s_next],
        next_observation=s_next,
        terminated=torch.isin(s_next, torch.tensor(TERMINAL)),
        discount=torch.full((len(s),), GAMMA),
        place=torch.arange(len(s)),
        weight=torch.tensor(P)[s, a, s_next],
    )


def iterate(loss: TDLoss, target_update: Periodic | Polyak, updates: int) -> Iterator[np.ndarray]:
    """The learned Q_i of the living states after each update, ``[N, S, A]``."""
    batch = every_transition()
    groups = [{"params": [loss.q_net.table], "lr": len(batch.action) / 2}]
    if hasattr(loss, "policy_net"):  # each living state has its part of the mean
        groups.append({"params": list(loss.policy_net.parameters()), "lr": len(LIVING)})
    optimizer = torch.optim.SGD(groups)
    for _ in range(updates):
        optimizer.zero_grad()
        sum(loss.compute(batch).losses.values()).backward()
        optimizer.step()
        target_update.step()
        yield loss.q_net.table.detach().numpy()[:, LIVING].copy()


def converged(loss: TDLoss, updates: int) -> np.ndarray:
    *_, q = iterate(loss, Periodic(loss=loss, every=1), updates)
    return q


def assert_equal(actual: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(actual, np.broadcast_to(wanted, actual.shape), rtol=0, atol=1e-9)


# --- SQN ---------------------------------------------------------------------------------------------------


# The first exact step makes the twins equal in every living state, and a full target update makes the online
# networks equal to their targets: from then on every expectation is the soft value (property 3).
@pytest.mark.parametrize("backup", ["expected", "expected_min", "expected_mean"])
@pytest.mark.parametrize("policy_source", ["q1", "target_q1", "min", "target_min", "mean", "target_mean"])
def test_property_4_iterating_the_loss_reaches_the_soft_optimal_q(
    make, backup: str, policy_source: str
) -> None:
    loss = make(backup=backup, policy_source=policy_source)
    assert_equal(converged(loss, 120), value_iteration(soft(0.5)))  # 0.8¹²⁰ = 2 · 10⁻¹²


@pytest.mark.parametrize("alpha", [0.05, 5.0])
def test_property_4_at_other_temperatures_the_limit_is_the_soft_optimal_q(make, alpha: float) -> None:
    loss = make(alpha=alpha)
    *_, q = iterate(loss, Polyak(loss=loss, tau=1.0), 140)
    assert_equal(q, value_iteration(soft(alpha)))


def test_property_4_with_polyak_targets_the_limit_is_the_soft_optimal_q(make) -> None:
    loss = make(backup="expected_min", policy_source="target_min")
    *_, q = iterate(loss, Polyak(loss=loss, tau=0.5), 300)  # each contracts by 1 − .5 (1 − γ) = .9
    assert_equal(q, value_iteration(soft(0.5)))


def test_without_the_entropy_bonus_the_limit_is_not_the_soft_optimal_q(make) -> None:
    q = converged(make(backup_entropy=False), 120)
    assert np.abs(q - value_iteration(soft(0.5))).max() > 0.1


# --- the others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dqn", "double_dqn"])
def test_dqn_and_double_dqn_reach_the_optimal_q(make, name: str) -> None:
    assert_equal(converged(make(name), 120), value_iteration(lambda q: q.max(1)))


def test_discrete_sac_reaches_the_soft_optimal_q_and_its_softmax(make) -> None:
    loss, wanted = make("discrete_sac", alpha=1.0), value_iteration(soft(1.0))
    assert_equal(converged(loss, 500), wanted)
    assert_equal(loss.policy_net.table[0].detach().softmax(-1).numpy()[LIVING], softmax(wanted))


@pytest.mark.parametrize("m", [0.5, 0.9, 1.0])
def test_munchausen_is_mirror_descent_value_iteration(make, m: float) -> None:
    """Its policies are those of MD-VI, step by step (Vieillard et al. 2020, theorem 1).

    π_{k+1} = argmax Σ π Q' − m α KL(π ‖ π_k) + (1 − m) α H(π), which is ∝ π_k^m exp(Q'_k / α), and
    Q'_{k+1} = r + γ P (Σ π_{k+1} Q'_k − m α KL(π_{k+1} ‖ π_k) + (1 − m) α H(π_{k+1})),
    from a uniform π_0 and Q'_0 = Q_0 − m α log π_0.
    """
    alpha = 0.5
    settings = {"policy_source": "target_q1", "m": m, "lowest": -1e9}
    loss = make("munchausen", alpha, networks=1, **settings)
    mirror_q = loss.q_net.table.detach().numpy()[0] + m * alpha * np.log(ACTIONS)
    pi = np.full((STATES, ACTIONS), 1 / ACTIONS)
    for q in iterate(loss, Periodic(loss=loss, every=1), 25):
        last_pi, pi = pi, softmax(m * np.log(pi) + mirror_q / alpha)
        kl, entropy = (pi * np.log(pi / last_pi)).sum(1), -(pi * np.log(pi)).sum(1)
        living_q = bellman((pi * mirror_q).sum(1) - m * alpha * kl + (1 - m) * alpha * entropy)[LIVING]
        mirror_q[LIVING] = living_q
        assert_equal(softmax(q[0] / alpha), softmax(m * np.log(pi[LIVING]) + living_q / alpha))
        pi[TERMINAL] = 1 / ACTIONS  # never updated, and never looked at


def test_munchausen_converges_to_the_soft_policy_of_the_reduced_temperature(make) -> None:
    """The KL vanishes there: what stays is an entropy bonus of (1 − m) α."""
    loss = make("munchausen", 0.8, policy_source="target_q1", m=0.25, lowest=-1e9)
    q = converged(loss, 140)
    assert_equal(softmax(q[0] / 0.8), softmax(value_iteration(soft(0.6)) / 0.6))


# --- the contraction ---------------------------------------------------------------------------------------

tables = arrays(np.float64, (STATES, ACTIONS), elements=st.floats(-20, 20))


twin_tables = arrays(np.float64, (2, STATES, ACTIONS), elements=st.floats(-20, 20))


def soft_backup(loss: TDLoss, q_NSA: np.ndarray) -> np.ndarray:
    """(T Q)(s, a) = Σ_s' P y, with the y of the real loss when the target networks are Q. ``[S, A]``."""
    loss.target_q_net.table.data.copy_(torch.tensor(q_NSA))
    batch = every_transition()
    y = loss.target(batch, loss.q_net.values(batch.observation))
    backed_up = torch.zeros(STATES, ACTIONS)
    backed_up.index_put_((batch.observation, batch.action), batch.weight * y, accumulate=True)
    return backed_up.numpy()[LIVING]


@pytest.mark.parametrize(
    ("backup", "policy_source"), [("expected_min", "target_min"), ("expected_mean", "target_mean")]
)
@given(twin_tables, twin_tables, st.floats(0.05, 10))
def test_property_4_the_soft_backup_is_a_gamma_contraction_in_the_sup_norm(
    make, backup: str, policy_source: str, q_NSA: np.ndarray, other_NSA: np.ndarray, alpha: float
) -> None:
    loss = make(alpha=alpha, backup=backup, policy_source=policy_source)
    apart = np.abs(soft_backup(loss, q_NSA) - soft_backup(loss, other_NSA)).max()
    assert apart <= GAMMA * np.abs(q_NSA - other_NSA).max() + 1e-12


@given(tables, st.floats(0.05, 10), st.floats(-20, 20))
def test_property_4_a_constant_shrinks_by_gamma_times_the_survival_probability(
    make, q_SA: np.ndarray, alpha: float, shift: float
) -> None:
    loss = make(alpha=alpha, backup="expected_min", policy_source="target_min")
    moved = soft_backup(loss, q_SA + shift) - soft_backup(loss, q_SA)
    lives_on = P[LIVING][:, :, LIVING].sum(2)
    np.testing.assert_allclose(moved, GAMMA * lives_on * shift, rtol=0, atol=1e-12)
