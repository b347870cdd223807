"""DQN and double DQN: their targets, worked by hand and in loops."""

from functools import partial

import pytest
import torch

from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
LOSSES = ["dqn", "double_dqn"]


def from_state_0_to_1(**columns: torch.Tensor) -> Batch:
    """Three transitions with r = 1, γ = 1/2: one step, a truncated two-step return, one terminated."""
    batch = Batch(
        observation=torch.zeros(3, dtype=torch.int64),
        action=torch.tensor([0, 1, 2]),
        reward=torch.ones(3),
        next_observation=torch.ones(3, dtype=torch.int64),
        terminated=torch.tensor([False, False, True]),
        discount=torch.tensor([0.5, 0.25, 0.5]),
        place=torch.arange(3),
    )
    return batch._replace(**columns)


@pytest.mark.parametrize(
    ("name", "networks", "value"),
    [
        # Q̄_1 = [4, 0, 8], Q̄_2 = [2, 6, 0]; Q_1 = [1, 2, 0] prefers action 1, Q_2 = [0, 0, 3] action 2
        ("dqn", 1, 8),  # max Q̄_1
        ("dqn", 2, 6),  # min(8, 6)
        ("double_dqn", 1, 0),  # Q̄_1(1)
        ("double_dqn", 2, 0),  # min(0, 6)
    ],
)
@pytest.mark.parametrize("warm", [True, False])
def test_target_worked_by_hand(make_loss, name: str, networks: int, value: float, warm: bool) -> None:
    next_q = torch.tensor([[[1.0, 2, 0], [0, 0, 3]], [[4, 0, 8], [2, 6, 0]]])  # online, then target
    online, target = torch.stack([torch.full((2, 2, 3), 10.0), next_q], 2)[:, :networks]
    settings = {} if warm else {"temperature": None}
    loss = make_loss(name, online, target, **settings)
    terms = loss.compute(from_state_0_to_1())
    y = [1 + value / 2, 1 + value / 4, 1]
    assert_close(terms.td_error, torch.tensor([[10 - each for each in y]] * networks))
    assert_close(terms.losses["loss_q"], torch.tensor(networks * sum((10 - each) ** 2 for each in y) / 3))


@pytest.mark.parametrize("name", LOSSES)
def test_target_equals_the_equations_in_loops(make_loss, name: str) -> None:
    torch.manual_seed(0)
    states, actions = 40, 4
    online, target = torch.randn(2, 2, states, actions)
    n = 20
    batch = Batch(
        observation=torch.arange(n),
        action=torch.randint(actions, (n,)),
        reward=torch.randn(n),
        next_observation=torch.arange(n, states),
        terminated=torch.arange(n) % 3 == 0,
        discount=torch.rand(n),
        place=torch.arange(n),
    )
    loss = make_loss(name, online, target)
    terms = loss.compute(batch)
    for b in range(n):
        q, t = online[:, n + b].tolist(), target[:, n + b].tolist()
        if name == "dqn":
            value = min(max(t[0]), max(t[1]))
        else:
            best = q[0].index(max(q[0]))
            value = min(t[0][best], t[1][best])
        y = batch.reward[b].item() + (0 if batch.terminated[b] else batch.discount[b].item() * value)
        for i in range(2):
            taken = online[i, b, batch.action[b]].item()
            assert terms.td_error[i, b].item() == pytest.approx(taken - y, abs=1e-12)


def test_the_double_dqn_target_is_never_above_the_dqn_target(make_loss) -> None:
    torch.manual_seed(1)
    online, target = torch.randn(2, 2, 8, 4)
    q_NBA = torch.zeros(2, 3, 4)
    for state in range(8):
        batch = from_state_0_to_1(next_observation=torch.full((3,), state))
        dqn, double = (make_loss(name, online, target).target(batch, q_NBA) for name in LOSSES)
        assert (double <= dqn).all()
        same = [make_loss(name, online[:1], online[:1]).target(batch, q_NBA) for name in LOSSES]
        assert torch.equal(*same)  # equal if the online and the target network are the same


@pytest.mark.parametrize("name", LOSSES)
def test_a_temperature_changes_the_policy_but_not_loss_q(make_loss, name: str) -> None:
    torch.manual_seed(2)
    online, target = torch.randn(2, 2, 2, 3)
    warm, cold = make_loss(name, online, target), make_loss(name, online, target, temperature=None)
    terms, plain = warm.compute(from_state_0_to_1()), cold.compute(from_state_0_to_1())
    assert torch.equal(terms.td_error, plain.td_error)
    assert torch.equal(terms.losses["loss_q"], plain.losses["loss_q"])
    assert_close(terms.log_pi, (online[0, [0, 0, 0]] / 0.75).log_softmax(-1))
    assert set(terms.losses) == {"loss_q", "loss_alpha"}
    assert set(plain.losses) == {"loss_q"}
    assert plain.log_pi is None
