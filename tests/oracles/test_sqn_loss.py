"""SQN's loss, on tables, against the equations written out in loops.

The oracle shares no code with the package: ``policy`` and ``targets`` are the equations in plain Python.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from sqn_rl.parts.loss.sqn import SQNLoss
from sqn_rl.parts.temperature.fixed import FixedTemperature
from sqn_rl.types import Batch

LN2 = math.log(2)
ALPHA, GAMMA = 0.75, 0.5  # those of the fixtures
B, ACTIONS, TWINS = 12, range(3), range(2)
STATES = 2 * B
BACKUPS = ["expected", "expected_min", "sampled", "expected_mean", "own", "max"]
SOURCES = ["q1", "target_q1", "min", "target_min", "mean", "target_mean"]

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
for_every_target = pytest.mark.parametrize(
    ("backup", "policy_source", "backup_entropy"), list(product(BACKUPS, SOURCES, [True, False]))
)


@pytest.fixture
def make_sqn(make_loss: Callable[..., SQNLoss]) -> Callable[..., SQNLoss]:
    """Twins whose four networks all differ, so that no two of them can be mistaken for each other."""

    def make(**settings: Any) -> SQNLoss:
        torch.manual_seed(1)
        return make_loss("sqn", *torch.randn(2, len(TWINS), STATES, len(ACTIONS)), **settings)

    return make


def make_batch(**columns: Tensor) -> Batch:
    """Transitions of one to four steps, between states that occur once; every third is terminated."""
    torch.manual_seed(2)
    batch = Batch(
        observation=torch.arange(B),
        action=torch.randint(len(ACTIONS), (B,)),
        reward=torch.randn(B),
        next_observation=torch.arange(B, STATES),
        terminated=torch.arange(B) % 3 == 0,
        discount=GAMMA ** (1.0 + torch.arange(B) % 4),
        place=torch.arange(B),
    )
    return batch._replace(**columns)


def next_value(loss: SQNLoss, next_observation: Tensor) -> Tensor:
    """v(s'): the target of a step without reward and discount."""
    n = len(next_observation)
    nothing_else = {
        "reward": torch.zeros(n),
        "terminated": torch.zeros(n, dtype=torch.bool),
        "discount": torch.ones(n),
    }
    batch = make_batch(next_observation=next_observation, **nothing_else)
    return loss.target(batch, loss.q_net.values(batch.observation))


def policy(q: list[float], alpha: float = ALPHA) -> list[float]:
    """softmax(Q / α)  (eq. 20)."""
    total = sum(math.exp(x / alpha) for x in q)
    return [math.exp(x / alpha) / total for x in q]


def entropy(pi: list[float]) -> float:
    return -sum(p * math.log(p) for p in pi)


def backup_policy(q: list[list[float]], target_q: list[list[float]], source: str) -> list[float]:
    """π(·|s') in the target, from Q_i(s') and Q̄_i(s') of one state: ``[twin][action]``."""
    values = {
        "q1": q[0],
        "target_q1": target_q[0],
        "min": [min(q[0][a], q[1][a]) for a in ACTIONS],
        "target_min": [min(target_q[0][a], target_q[1][a]) for a in ACTIONS],
        "mean": [(q[0][a] + q[1][a]) / 2 for a in ACTIONS],
        "target_mean": [(target_q[0][a] + target_q[1][a]) / 2 for a in ACTIONS],
    }
    return policy(values[source])


def targets(
    loss: SQNLoss, batch: Batch, backup: str, source: str, bonus: bool, twin: int = 0
) -> list[list[float]]:
    """y of every transition  (lines 11 and 12): one value, or for ``sampled`` one for each a' to draw."""
    online, target = (net.values(batch.next_observation) for net in (loss.q_net, loss.target_q_net))
    ys = []
    for b in range(len(batch.reward)):
        q, target_q = online[:, b].tolist(), target[:, b].tolist()
        pi = backup_policy(q, target_q, source)
        low = [min(target_q[0][a], target_q[1][a]) for a in ACTIONS]
        values = {
            "expected": [min(sum(pi[a] * target_q[i][a] for a in ACTIONS) for i in TWINS)],
            "expected_min": [sum(pi[a] * low[a] for a in ACTIONS)],
            "expected_mean": [sum(pi[a] * (target_q[0][a] + target_q[1][a]) / 2 for a in ACTIONS)],
            "own": [sum(pi[a] * target_q[twin][a] for a in ACTIONS)],
            "max": [min(max(target_q[0]), max(target_q[1]))],
            "sampled": low,
        }
        soft = [v + (ALPHA * entropy(pi) if bonus else 0) for v in values[backup]]
        r, discount = batch.reward[b].item(), 0 if batch.terminated[b] else batch.discount[b].item()
        ys.append([r + discount * v for v in soft])
    return ys


def target_used(loss: SQNLoss, batch: Batch) -> Tensor:
    """The y that the loss has used, ``[N, B]``: Q_i(s, a) − δ_i."""
    terms, rows = loss.compute(batch), torch.arange(len(batch.reward))
    return terms.q[:, rows, batch.action] - terms.td_error


# --- one batch, worked by hand -----------------------------------------------------------------------------


def test_two_transitions_worked_by_hand(make_loss, make_temperature) -> None:
    q_NSA, target_q_NSA = torch.zeros(2, 2, 2, 3)  # two transitions from state 0 to state 1
    # both softmaxes, α = 2: π = [1/2, 1/4, 1/4], H = 3/2 ln 2
    q_NSA[0] = 2 * torch.tensor([2.0, 1.0, 1.0]).log()
    q_NSA[1, 0] = torch.tensor([9.0, 3.0, 9.0])
    target_q_NSA[:, 1] = torch.tensor([[8.0, 0.0, 0.0], [0.0, 8.0, 4.0]])
    temperature = make_temperature(initial=2.0, target_entropy=LN2)
    batch = Batch(
        observation=torch.tensor([0, 0]),
        action=torch.tensor([1, 1]),
        reward=torch.tensor([1.0, -1.0]),
        next_observation=torch.tensor([1, 1]),
        terminated=torch.tensor([False, True]),
        discount=torch.tensor([0.5, 0.5]),
        place=torch.arange(2),
    )
    terms = make_loss("sqn", q_NSA, target_q_NSA, temperature=temperature).compute(batch)
    # v(s') = min(8/2, 8/4 + 4/4) + 2 H = 3 + 3 ln 2;  y = 1 + v(s')/2;  and −1 for the terminated one
    y = 2.5 + 1.5 * LN2
    # Q_1(s, 1) = 2 ln 1 = 0 and Q_2(s, 1) = 3
    assert_close(terms.td_error, torch.tensor([[-y, 1], [3 - y, 4]]))
    assert_close(terms.losses["loss_q"], torch.tensor((y**2 + 1) / 2 + ((3 - y) ** 2 + 16) / 2))
    assert_close(terms.losses["loss_alpha"], torch.tensor(LN2))  # 2 (3/2 ln 2 − ln 2)
    assert_close(terms.log_pi[0].exp(), torch.tensor([1 / 2, 1 / 4, 1 / 4]))


# --- against the loops -------------------------------------------------------------------------------------


@for_every_target
def test_target_equals_the_equations_in_loops(
    make_sqn, backup: str, policy_source: str, backup_entropy: bool
) -> None:
    loss = make_sqn(backup=backup, policy_source=policy_source, backup_entropy=backup_entropy)
    batch = make_batch()
    for twin, y_B in enumerate(target_used(loss, batch).tolist()):
        wanted = targets(loss, batch, backup, policy_source, backup_entropy, twin)
        for y, candidates in zip(y_B, wanted, strict=True):
            assert min(abs(y - candidate) for candidate in candidates) <= 1e-12


@pytest.mark.parametrize("policy_source", SOURCES)
def test_sampled_draws_the_next_action_from_the_policy(make_sqn, policy_source: str) -> None:
    loss, n = make_sqn(backup="sampled", policy_source=policy_source, backup_entropy=False), 40_000
    q, target_q = (net.values(torch.tensor([0]))[:, 0].tolist() for net in (loss.q_net, loss.target_q_net))
    value_B = next_value(loss, torch.zeros(n, dtype=torch.int64))
    for a, probability in enumerate(backup_policy(q, target_q, policy_source)):
        frequency = ((value_B - min(target_q[0][a], target_q[1][a])).abs() < 1e-12).double().mean().item()
        assert frequency == pytest.approx(probability, abs=0.01)  # four standard deviations: 4 √(¼ / n)


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_q_is_the_sum_over_twins_of_the_weighted_mean_square(make_sqn, weighted: bool) -> None:
    loss, batch = make_sqn(), make_batch(weight=torch.rand(B) if weighted else None)
    ys = targets(loss, batch, "expected", "q1", True)
    q_NBA = loss.q_net.values(batch.observation)
    wanted = 0.0
    for i in TWINS:
        for b in range(B):
            w = batch.weight[b].item() if weighted else 1
            wanted += w * (q_NBA[i, b, batch.action[b]].item() - ys[b][0]) ** 2 / B
    assert_close(loss.compute(batch).losses["loss_q"], torch.tensor(wanted))


def test_loss_alpha_is_alpha_times_the_mean_entropy_at_s_minus_its_target(make_sqn) -> None:
    loss, batch = make_sqn(), make_batch()
    q_BA = loss.q_net.values(batch.observation)[0].tolist()
    excess = sum(entropy(policy(q)) for q in q_BA) / B - 0.5  # H̄
    assert_close(loss.compute(batch).losses["loss_alpha"], torch.tensor(ALPHA * excess))


@pytest.mark.parametrize("policy_source", ["mean", "target_mean"])
def test_with_a_mean_source_the_entropy_in_loss_alpha_is_of_the_online_mean(
    make_sqn, policy_source: str
) -> None:
    loss, batch = make_sqn(policy_source=policy_source), make_batch()
    q_BA = loss.q_net.values(batch.observation).mean(0).tolist()
    excess = sum(entropy(policy(q)) for q in q_BA) / B - 0.5  # H̄
    assert_close(loss.compute(batch).losses["loss_alpha"], torch.tensor(ALPHA * excess))


def test_the_soft_mean_is_the_soft_bellman_operator_of_the_mean(make_sqn) -> None:
    """v(s') = F_α(mean_i Q̄_i), exactly."""
    loss, state_B = make_sqn(backup="expected_mean", policy_source="target_mean"), torch.arange(STATES)
    mean_BA = loss.target_q_net.values(state_B).mean(0)
    assert_close(next_value(loss, state_B), ALPHA * (mean_BA / ALPHA).exp().sum(-1).log())
    # there is no minimum: the larger twin counts as much as the smaller
    with torch.no_grad():
        loss.target_q_net.table[0] += 2
    assert_close(next_value(loss, state_B), ALPHA * (mean_BA / ALPHA).exp().sum(-1).log() + 1)


def test_with_own_targets_each_network_learns_only_from_its_target_network(make_sqn) -> None:
    loss, batch = make_sqn(backup="own", policy_source="q1"), make_batch()
    before = target_used(loss, batch)
    with torch.no_grad():
        loss.target_q_net.table[1] += 5
    after = target_used(loss, batch)
    assert torch.equal(after[0], before[0])
    assert_close(after[1], before[1] + 5 * batch.discount * ~batch.terminated)


def test_expected_min_of_target_min_is_the_soft_bellman_operator(make_sqn) -> None:
    loss, state_B = make_sqn(backup="expected_min", policy_source="target_min"), torch.arange(STATES)
    low_BA = loss.target_q_net.values(state_B).amin(0)
    assert_close(next_value(loss, state_B), ALPHA * (low_BA / ALPHA).exp().sum(-1).log())


# --- the other properties, of the loss ---------------------------------------------------------------------


def test_property_3_equal_twins_with_their_own_softmax_agree(make_sqn) -> None:
    state_B = torch.arange(STATES)
    for backup in ("expected", "expected_min", "expected_mean"):
        loss = make_sqn(backup=backup, policy_source="target_q1")
        with torch.no_grad():
            loss.target_q_net.table[1] = loss.target_q_net.table[0]
        q_BA = loss.target_q_net.values(state_B)[0]
        assert_close(next_value(loss, state_B), ALPHA * (q_BA / ALPHA).exp().sum(-1).log())


@pytest.mark.parametrize("backup", ["expected", "expected_min", "sampled"])
def test_property_5_at_low_alpha_the_value_is_clipped_double_q_learning(make_sqn, backup: str) -> None:
    loss, state_B = make_sqn(temperature=FixedTemperature(alpha=1e-4), backup=backup), torch.arange(STATES)
    best_B = loss.q_net.values(state_B)[0].argmax(-1)
    clipped_B = loss.target_q_net.values(state_B)[:, state_B, best_B].amin(0)
    assert_close(next_value(loss, state_B), clipped_B)


@for_every_target
def test_property_6_adding_a_constant_to_q_shifts_the_value(
    make_sqn, backup: str, policy_source: str, backup_entropy: bool
) -> None:
    settings = {"backup": backup, "policy_source": policy_source, "backup_entropy": backup_entropy}
    plain, shifted, state_B = make_sqn(**settings), make_sqn(**settings), torch.arange(STATES)
    for q_net in (shifted.q_net, shifted.target_q_net):
        q_net.table.data += 7
    assert_close(next_value(shifted, state_B), next_value(plain, state_B) + 7)


@for_every_target
def test_property_7_only_a_terminated_step_ignores_the_next_state(
    make_sqn, backup: str, policy_source: str, backup_entropy: bool
) -> None:
    loss = make_sqn(backup=backup, policy_source=policy_source, backup_entropy=backup_entropy)
    batch = make_batch()
    y_NB = target_used(loss, batch)
    elsewhere_NB = target_used(loss, batch._replace(next_observation=batch.next_observation.roll(1)))
    for y_B, elsewhere_B in zip(y_NB, elsewhere_NB, strict=True):
        assert torch.equal((y_B - elsewhere_B).abs() > 1e-6, ~batch.terminated)
        assert_close(y_B[batch.terminated], batch.reward[batch.terminated])


@for_every_target
def test_property_8_loss_q_sees_the_target_as_a_constant(
    make_sqn, backup: str, policy_source: str, backup_entropy: bool
) -> None:
    """Its gradient is 2 δ / B at the actions taken and zero elsewhere: none through π, Q̄ or α."""
    loss = make_sqn(backup=backup, policy_source=policy_source, backup_entropy=backup_entropy)
    loss.target_q_net.requires_grad_()  # so that a leak would show
    loss.temperature.alpha.requires_grad_()
    batch = make_batch()
    terms = loss.compute(batch)
    terms.losses["loss_q"].backward()
    wanted_NSA = torch.zeros(len(TWINS), STATES, len(ACTIONS))
    wanted_NSA[:, batch.observation, batch.action] = 2 * terms.td_error / B
    assert_close(loss.q_net.table.grad, wanted_NSA)
    elsewhere = [*loss.target_q_net.parameters(), *loss.temperature.parameters(), loss.temperature.alpha]
    assert all(parameter.grad is None for parameter in elsewhere)


# --- the step on L_α (lines 15 and 16) ----------------------------------------------------------------------


@pytest.mark.parametrize("optimise", ["log_alpha", "alpha"])
def test_alpha_rises_where_the_policy_is_too_certain_and_falls_where_it_is_too_random(
    make_sqn, make_temperature, optimise: str
) -> None:
    for target_entropy, direction in [(0.01, -1), (math.log(3) - 0.01, +1)]:
        temperature = make_temperature(target_entropy=target_entropy, optimise=optimise)
        loss = make_sqn(temperature=temperature)
        optimizer = torch.optim.Adam(temperature.parameters(), lr=0.1)
        loss.compute(make_batch()).losses["loss_alpha"].backward()
        optimizer.step()
        temperature.refresh()
        assert (temperature.alpha.item() - ALPHA) * direction > 0.01
