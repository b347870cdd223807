"""Discrete SAC: the policy network's loss and gradient by hand, and its agreement with SQN."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import SettingError, WiringError
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
LN2 = math.log(2)
STATES, ACTIONS, B, ALPHA = 12, 3, 6, 0.75
BACKUPS = ["expected", "expected_min", "sampled", "expected_mean", "max"]


def make_batch() -> Batch:
    torch.manual_seed(1)
    return Batch(
        observation=torch.arange(B),
        action=torch.randint(ACTIONS, (B,)),
        reward=torch.randn(B),
        next_observation=torch.arange(B, STATES),
        terminated=torch.arange(B) % 2 == 0,
        discount=torch.rand(B),
        place=torch.arange(B),
        weight=torch.rand(B),
    )


def tables() -> Tensor:
    return torch.randn(2, 2, STATES, ACTIONS, generator=torch.Generator().manual_seed(0))


def make_logits() -> Tensor:
    return torch.randn(STATES, ACTIONS, generator=torch.Generator().manual_seed(2))


# --- L_π ---------------------------------------------------------------------------------------------------


def test_policy_loss_worked_by_hand() -> None:
    log_pi_BA = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]]).log()
    q_BA = torch.tensor([[4.0, 0, 8], [1, 1, 1]])
    # Σ π Q = 4 and 1; H = 3/2 ln 2 each; α = 2: the mean of −4 − 3 ln 2 and −1 − 3 ln 2
    assert_close(F.policy_loss(log_pi_BA, q_BA, 2.0), torch.tensor(-2.5 - 3 * LN2))


def test_the_gradient_of_loss_policy_equals_the_formula(make_loss) -> None:
    """∂L/∂logit_a = π_a (α log π_a − Q_a − Σ_c π_c (α log π_c − Q_c)) / B, with Q = min_i Q_i, at s only."""
    (online, target), logits, batch = tables(), make_logits(), make_batch()
    loss = make_loss("discrete_sac", online, target, logits=logits)
    terms = loss.compute(batch)
    terms.losses["loss_policy"].backward()
    wanted, total = torch.zeros(STATES, ACTIONS), 0.0
    for s in range(B):
        exp = [math.exp(x) for x in logits[s].tolist()]
        pi = [x / sum(exp) for x in exp]
        cost = [ALPHA * math.log(pi[a]) - min(online[:, s, a].tolist()) for a in range(ACTIONS)]
        mean = sum(pi[a] * cost[a] for a in range(ACTIONS))
        total += mean / B
        wanted[s] = torch.tensor([pi[a] * (cost[a] - mean) / B for a in range(ACTIONS)])
    assert_close(terms.losses["loss_policy"], torch.tensor(total))
    assert_close(loss.policy_net.table.grad[0], wanted)


def test_the_minimum_of_the_policy_loss_is_the_softmax_of_q() -> None:
    """There the gradient is zero, and any other policy costs α KL more (property 1)."""
    q_BA, logits_BA = torch.tensor([[1.0, -2, 0.5]]), torch.tensor([[0.3, 0.1, -1]])
    best_BA = (q_BA / ALPHA).requires_grad_()
    best = F.policy_loss(best_BA.log_softmax(-1), q_BA, ALPHA)
    best.backward()
    assert_close(best_BA.grad, torch.zeros(1, 3))
    log_pi_BA, log_best_BA = logits_BA.log_softmax(-1), best_BA.detach().log_softmax(-1)
    kl = (log_pi_BA.exp() * (log_pi_BA - log_best_BA)).sum()
    assert_close(F.policy_loss(log_pi_BA, q_BA, ALPHA) - best.detach(), ALPHA * kl)


# --- the others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backup", BACKUPS)
def test_discrete_sac_with_the_softmax_of_q1_as_policy_equals_sqn(make_loss, backup: str) -> None:
    online, target = tables()
    sqn = make_loss("sqn", online, target, backup=backup, policy_source="q1").compute(make_batch())
    loss = make_loss("discrete_sac", online, target, backup=backup, logits=online[0] / ALPHA)
    terms = loss.compute(make_batch())
    assert_close(terms.td_error, sqn.td_error)
    assert_close(terms.log_pi, sqn.log_pi)
    for name in ("loss_q", "loss_alpha"):
        assert_close(terms.losses[name], sqn.losses[name])


def test_target_and_temperature_follow_the_policy_network(make_loss) -> None:
    (online, target), logits, batch = tables(), make_logits(), make_batch()
    loss = make_loss("discrete_sac", online, target, logits=logits)
    terms, entropies = loss.compute(batch), []
    for b in range(B):
        pi = [[math.exp(x) / row.exp().sum().item() for x in row.tolist()] for row in logits[[b, B + b]]]
        at_s, at_next = (-sum(p * math.log(p) for p in each) for each in pi)
        entropies.append(at_s)
        value = sum(pi[1][a] * min(target[:, B + b, a].tolist()) for a in range(ACTIONS)) + ALPHA * at_next
        y = batch.reward[b].item() + (0 if batch.terminated[b] else batch.discount[b].item() * value)
        for i in range(2):
            taken = online[i, b, batch.action[b]].item()
            assert terms.td_error[i, b].item() == pytest.approx(taken - y, abs=1e-12)
    assert_close(terms.losses["loss_alpha"], torch.tensor(ALPHA * (sum(entropies) / B - 0.5)))  # H̄


def test_each_loss_term_trains_only_its_parameters(make_loss) -> None:
    trained = {}
    for name in ("loss_q", "loss_policy", "loss_alpha"):
        loss = make_loss("discrete_sac", *tables(), logits=make_logits())
        loss.compute(make_batch()).losses[name].backward()
        trained[name] = {key for key, parameter in loss.named_parameters() if parameter.grad is not None}
    assert trained == {
        "loss_q": {"q_net.table"},
        "loss_policy": {"policy_net.table"},
        "loss_alpha": {"temperature.parameter"},
    }


def test_an_actor_without_a_policy_network_and_a_misspelt_backup_are_refused(make_loss) -> None:
    with pytest.raises(WiringError, match="actor=policy") as refused:
        make_loss("discrete_sac", *tables(), actor=nn.Linear(1, 1))
    assert refused.value.consumer == "loss"
    with pytest.raises(SettingError, match="did you mean 'expected'"):
        make_loss("discrete_sac", *tables(), backup="expectd")
