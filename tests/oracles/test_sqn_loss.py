"""The real loss, on real networks, against the equations written out in loops.

The oracle shares no code with the package: ``policy`` and ``targets`` are the equations in plain Python.
"""

import math
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from sqn_rl.data import Batch
from sqn_rl.losses.sqn import SQNLoss
from sqn_rl.losses.temperature import FixedTemperature, LearnedTemperature, Temperature
from sqn_rl.nets.dense import Dense
from sqn_rl.nets.linear_head import LinearHead
from sqn_rl.nets.mlp import MLP
from sqn_rl.nets.q_net import QNet

LN2 = math.log(2)
ALPHA, GAMMA = 0.75, 0.5
B, FEATURES, ACTIONS, TWINS = 12, 4, range(3), range(2)
BACKUPS = ["expected", "expected_min", "sampled", "expected_mean", "max"]
SOURCES = ["q1", "target_q1", "min", "target_min"]

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
for_every_target = pytest.mark.parametrize(
    ("backup", "policy_source", "backup_entropy"), list(product(BACKUPS, SOURCES, [True, False]))
)


def learned(**settings: Any) -> LearnedTemperature:
    defaults = {"initial": ALPHA, "target_entropy": 0.5, "target_entropy_fraction": None, "lr": 1e-2}
    limits = {"minimum": 1e-3, "maximum": 1e3, "optimise": "log_alpha", "n_actions": len(ACTIONS)}
    return LearnedTemperature(**defaults | limits | settings)


def make_loss(
    temperature: Temperature | None = None, *, hidden: tuple[int, ...] = (5,), **settings: Any
) -> SQNLoss:
    """Twins whose four networks all differ, so that no two of them can be mistaken for each other."""
    torch.manual_seed(1)
    q_net = QNet(
        encoder=partial(MLP, hidden=hidden),
        head=LinearHead,
        layer=Dense,
        observation_shape=(FEATURES,),
        n_actions=len(ACTIONS),
        members=len(TWINS),
        shared_encoder=False,
    )
    defaults = {
        "backup": "expected",
        "policy_source": "q1",
        "backup_entropy": True,
        "gamma": GAMMA,
        "seed": 0,
    }
    loss = SQNLoss(q_net=q_net, temperature=temperature or learned(), **defaults | settings)
    for parameter in [*loss.q_net.parameters(), *loss.target_q_net.parameters()]:
        torch.nn.init.normal_(parameter)
    return loss


def make_batch(**columns: Tensor) -> Batch:
    """Transitions of one to four steps; every third is terminated."""
    torch.manual_seed(2)
    batch = Batch(
        observation=torch.randn(B, FEATURES),
        action=torch.randint(len(ACTIONS), (B,)),
        reward=torch.randn(B),
        next_observation=torch.randn(B, FEATURES),
        terminated=torch.arange(B) % 3 == 0,
        discount=GAMMA ** (1.0 + torch.arange(B) % 4),
        place=torch.arange(B),
    )
    return batch._replace(**columns)


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
    }
    return policy(values[source])


def targets(loss: SQNLoss, batch: Batch, backup: str, source: str, bonus: bool) -> list[list[float]]:
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
            "max": [min(max(target_q[0]), max(target_q[1]))],
            "sampled": low,
        }
        soft = [v + (ALPHA * entropy(pi) if bonus else 0) for v in values[backup]]
        r, discount = batch.reward[b].item(), 0 if batch.terminated[b] else batch.discount[b].item()
        ys.append([r + discount * v for v in soft])
    return ys


def target_used(loss: SQNLoss, batch: Batch) -> Tensor:
    """The y that the loss has used, the same for both networks: Q_i(s, a) − δ_i."""
    terms, rows = loss.compute(batch), torch.arange(len(batch.reward))
    y_NB = terms.q[:, rows, batch.action] - terms.td_error
    assert_close(y_NB[0], y_NB[1])
    return y_NB[0]


# --- one batch, worked by hand -----------------------------------------------------------------------------


def test_two_transitions_worked_by_hand() -> None:
    """Without a hidden layer and on one-hot observations, ``weight[i, s, a]`` *is* Q_i(s, a)."""
    loss = make_loss(learned(initial=2.0, target_entropy=LN2), hidden=())
    s, s_next = torch.eye(FEATURES)[:2]
    with torch.no_grad():
        for q_net in (loss.q_net, loss.target_q_net):
            q_net.head.q.bias.zero_()
        # both softmaxes, α = 2: π = [1/2, 1/4, 1/4], H = 3/2 ln 2
        loss.q_net.head.q.weight[0, :2] = 2 * torch.tensor([2.0, 1.0, 1.0]).log()
        loss.q_net.head.q.weight[1, 0] = torch.tensor([9.0, 3.0, 9.0])
        loss.target_q_net.head.q.weight[:, 1] = torch.tensor([[8.0, 0.0, 0.0], [0.0, 8.0, 4.0]])
    batch = Batch(
        observation=torch.stack([s, s]),
        action=torch.tensor([1, 1]),
        reward=torch.tensor([1.0, -1.0]),
        next_observation=torch.stack([s_next, s_next]),
        terminated=torch.tensor([False, True]),
        discount=torch.tensor([0.5, 0.5]),
        place=torch.arange(2),
    )
    terms = loss.compute(batch)
    # v(s') = min(8/2, 8/4 + 4/4) + 2 H = 3 + 3 ln 2;  y = 1 + v(s')/2;  and −1 for the terminated one
    y = 2.5 + 1.5 * LN2
    # Q_1(s, 1) = 2 ln 1 = 0 and Q_2(s, 1) = 3
    assert_close(terms.td_error, torch.tensor([[-y, 1], [3 - y, 4]]))
    assert_close(terms.loss_q, torch.tensor((y**2 + 1) / 2 + ((3 - y) ** 2 + 16) / 2))
    assert_close(terms.loss_alpha, torch.tensor(LN2))  # 2 (3/2 ln 2 − ln 2)
    assert_close(terms.log_pi[0].exp(), torch.tensor([1 / 2, 1 / 4, 1 / 4]))


# --- against the loops -------------------------------------------------------------------------------------


@for_every_target
def test_target(backup: str, policy_source: str, backup_entropy: bool) -> None:
    loss = make_loss(backup=backup, policy_source=policy_source, backup_entropy=backup_entropy)
    batch = make_batch()
    wanted = targets(loss, batch, backup, policy_source, backup_entropy)
    for y, candidates in zip(target_used(loss, batch).tolist(), wanted, strict=True):
        assert min(abs(y - candidate) for candidate in candidates) <= 1e-12


@pytest.mark.parametrize("policy_source", SOURCES)
def test_sampled_draws_the_next_action_from_the_policy(policy_source: str) -> None:
    loss, n = make_loss(backup="sampled", policy_source=policy_source, backup_entropy=False), 40_000
    state = torch.randn(1, FEATURES)
    q, target_q = (net.values(state)[:, 0].tolist() for net in (loss.q_net, loss.target_q_net))
    value_B = loss.next_value(state.expand(n, FEATURES))
    for a, probability in enumerate(backup_policy(q, target_q, policy_source)):
        frequency = ((value_B - min(target_q[0][a], target_q[1][a])).abs() < 1e-12).double().mean().item()
        assert frequency == pytest.approx(probability, abs=0.01)  # four standard deviations: 4 √(¼ / n)


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_q_is_the_sum_over_twins_of_the_weighted_mean_square(weighted: bool) -> None:
    loss, batch = make_loss(), make_batch()
    weight_B = torch.rand(B) if weighted else None
    ys = targets(loss, batch, "expected", "q1", True)
    q_NBA = loss.q_net.values(batch.observation)
    wanted = 0.0
    for i in TWINS:
        for b in range(B):
            w = weight_B[b].item() if weight_B is not None else 1
            wanted += w * (q_NBA[i, b, batch.action[b]].item() - ys[b][0]) ** 2 / B
    assert_close(loss.compute(batch, weight_B).loss_q, torch.tensor(wanted))


def test_loss_alpha_is_alpha_times_how_far_the_mean_entropy_at_s_is_above_its_target() -> None:
    loss, batch = make_loss(learned(target_entropy=0.5)), make_batch()
    q_BA = loss.q_net.values(batch.observation)[0].tolist()
    excess = sum(entropy(policy(q)) for q in q_BA) / B - 0.5
    assert_close(loss.compute(batch).loss_alpha, torch.tensor(ALPHA * excess))


def test_expected_min_of_target_min_is_the_soft_bellman_operator() -> None:
    loss, batch = make_loss(backup="expected_min", policy_source="target_min"), make_batch()
    low_BA = loss.target_q_net.values(batch.next_observation).amin(0)
    assert_close(loss.next_value(batch.next_observation), ALPHA * (low_BA / ALPHA).exp().sum(-1).log())


def test_forward_is_compute_on_a_tensordict_of_any_shape() -> None:
    loss = make_loss()
    steps, weight_B = 1 + torch.arange(B) % 3, torch.rand(B)
    batch = make_batch(discount=GAMMA**steps)
    tensordict = TensorDict(
        {
            "observation": batch.observation,
            "action": batch.action,
            "steps_to_next_obs": steps,
            loss.tensor_keys.weight: weight_B,
            "next": {
                "observation": batch.next_observation,
                "reward": batch.reward[:, None],
                "terminated": batch.terminated[:, None],
                "truncated": ~batch.terminated[:, None],  # the others were cut short: they bootstrap
                "done": torch.ones(B, 1, dtype=torch.bool),
            },
        },
        batch_size=[B],
    ).reshape(2, B // 2)
    out, terms = loss(tensordict), loss.compute(batch, weight_B)
    assert_close(out["loss_q"], terms.loss_q)
    assert_close(out["loss_alpha"], terms.loss_alpha)
    assert_close(out["alpha"], torch.tensor(ALPHA))
    assert_close(tensordict["td_error"], terms.td_error.abs().mean(0).reshape(2, B // 2))
    # without the number of steps each transition is one step long; without weights each counts as 1
    bare = tensordict.exclude("steps_to_next_obs", loss.tensor_keys.weight)
    assert_close(loss(bare)["loss_q"], loss.compute(make_batch(discount=torch.full((B,), GAMMA))).loss_q)


# --- where gradients go ------------------------------------------------------------------------------------


@for_every_target
def test_property_8_loss_q_sees_the_target_as_a_constant(
    backup: str, policy_source: str, backup_entropy: bool
) -> None:
    """Its gradient is that of Σ_i mean (Q_i(s, a) − y)² with y a number: none through π, Q̄ or α."""
    loss = make_loss(backup=backup, policy_source=policy_source, backup_entropy=backup_entropy)
    loss.target_q_net.requires_grad_()  # so that a leak would show
    loss.temperature.alpha.requires_grad_()
    batch, online = make_batch(), list(loss.q_net.parameters())
    terms = loss.compute(batch)
    rows = torch.arange(B)
    y_B = terms.q[0, rows, batch.action] - terms.td_error[0]
    by_hand = (
        (loss.q_net.values(batch.observation)[:, rows, batch.action] - y_B.detach()).square().mean(1).sum()
    )
    wanted = torch.autograd.grad(by_hand, online)
    terms.loss_q.backward()
    for parameter, gradient in zip(online, wanted, strict=True):
        assert_close(parameter.grad, gradient)
    elsewhere = [*loss.target_q_net.parameters(), *loss.temperature.parameters(), loss.temperature.alpha]
    assert all(parameter.grad is None for parameter in elsewhere)


def test_property_8_loss_alpha_reaches_nothing_but_the_temperature() -> None:
    loss, batch = make_loss(), make_batch()
    loss.temperature.alpha.requires_grad_()
    terms = loss.compute(batch)
    terms.loss_alpha.backward()
    assert_close(loss.temperature.parameter.grad, terms.loss_alpha.detach())  # d/d log α of α x is α x
    elsewhere = [*loss.q_net.parameters(), *loss.target_q_net.parameters(), loss.temperature.alpha]
    assert all(parameter.grad is None for parameter in elsewhere)


def test_what_is_reported_carries_no_gradient() -> None:
    terms = make_loss().compute(make_batch())
    assert not any(reported.requires_grad for reported in (terms.td_error, terms.q, terms.log_pi))


def test_the_target_networks_start_as_copies_and_are_not_trained() -> None:
    q_net = make_loss().q_net
    settings = {
        "gamma": GAMMA,
        "backup": "expected",
        "policy_source": "q1",
        "backup_entropy": True,
        "seed": 0,
    }
    loss = SQNLoss(q_net=q_net, temperature=learned(), **settings)
    for target, online in zip(loss.target_q_net.parameters(), q_net.parameters(), strict=True):
        assert torch.equal(target, online)
        assert target.data_ptr() != online.data_ptr()
        assert not target.requires_grad


# --- the other properties, of the loss ---------------------------------------------------------------------


def test_property_3_equal_twins_with_their_own_softmax_agree() -> None:
    state_BF, values = make_batch().next_observation, []
    for backup in ("expected", "expected_min", "expected_mean"):
        loss = make_loss(backup=backup, policy_source="target_q1")
        with torch.no_grad():
            for parameter in loss.target_q_net.parameters():
                parameter[1] = parameter[0]
        values.append(loss.next_value(state_BF))
    q_BA = loss.target_q_net.values(state_BF)[0]
    for value_B in values:
        assert_close(value_B, ALPHA * (q_BA / ALPHA).exp().sum(-1).log())


@pytest.mark.parametrize("backup", ["expected", "expected_min", "sampled"])
def test_property_5_cold_is_clipped_double_q_learning(backup: str) -> None:
    loss, state_BF = make_loss(FixedTemperature(alpha=1e-4), backup=backup), make_batch().next_observation
    best_B = loss.q_net.values(state_BF)[0].argmax(-1)
    clipped_B = loss.target_q_net.values(state_BF)[:, torch.arange(B), best_B].amin(0)
    assert_close(loss.next_value(state_BF), clipped_B)


@for_every_target
def test_property_6_a_constant_shifts_the_value(
    backup: str, policy_source: str, backup_entropy: bool
) -> None:
    settings = {"backup": backup, "policy_source": policy_source, "backup_entropy": backup_entropy}
    plain, shifted = make_loss(**settings), make_loss(**settings)
    with torch.no_grad():
        for q_net in (shifted.q_net, shifted.target_q_net):
            q_net.head.q.bias += 7
    state_BF = make_batch().next_observation
    assert_close(shifted.next_value(state_BF), plain.next_value(state_BF) + 7)


@for_every_target
def test_property_7_only_a_terminated_step_ignores_the_next_state(
    backup: str, policy_source: str, backup_entropy: bool
) -> None:
    loss = make_loss(backup=backup, policy_source=policy_source, backup_entropy=backup_entropy)
    batch = make_batch()
    y_B = target_used(loss, batch)
    elsewhere_B = target_used(loss, batch._replace(next_observation=batch.next_observation + 1))
    changed_B = (y_B - elsewhere_B).abs() > 1e-6
    assert torch.equal(changed_B, ~batch.terminated)
    assert_close(y_B[batch.terminated], batch.reward[batch.terminated])


# --- the step on L_α (lines 15 and 16) ----------------------------------------------------------------------


@pytest.mark.parametrize("optimise", ["log_alpha", "alpha"])
def test_alpha_rises_where_the_policy_is_too_certain_and_falls_where_it_is_too_random(optimise: str) -> None:
    batch = make_batch()
    for target_entropy, direction in [(0.01, -1), (math.log(3) - 0.01, +1)]:
        loss = make_loss(learned(target_entropy=target_entropy, optimise=optimise))
        optimizer = torch.optim.Adam(loss.temperature.parameters(), lr=0.1)
        loss.compute(batch).loss_alpha.backward()
        optimizer.step()
        loss.temperature.refresh()
        assert (loss.temperature.alpha.item() - ALPHA) * direction > 0.01
