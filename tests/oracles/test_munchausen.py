"""The Munchausen bonus, by hand and in loops; without it the loss equals SQN. See also test_tabular.py."""

import math
from functools import partial

import pytest
import torch

from sqn_rl import functional as F
from sqn_rl.errors import SettingError
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
LN2 = math.log(2)
SOURCES = ["q1", "target_q1", "min", "target_min"]
STATES, ACTIONS, B, ALPHA = 12, 3, 6, 0.75


def test_bonus_worked_by_hand() -> None:
    pi_BA = torch.tensor([[1 / 2, 1 / 4, 1 / 4]]).expand(3, 3)
    log_pi_BA = pi_BA.log()
    # α = 2/ln 2: α log π = −2 for action 0 and −4 for the others; l₀ = −3;  m = 1/2
    bonus_B = F.munchausen_bonus(log_pi_BA, torch.tensor([0, 1, 2]), 2 / LN2, 0.5, -3.0)
    assert_close(bonus_B, torch.tensor([-1.0, -1.5, -1.5]))
    # α, not log π alone, is clipped:  α = 1/ln 2, l₀ = −3: −1 and −2
    bonus_B = F.munchausen_bonus(log_pi_BA, torch.tensor([0, 1, 2]), torch.tensor(1 / LN2), 1.0, -3.0)
    assert_close(bonus_B, torch.tensor([-1.0, -2.0, -2.0]))


def test_bonus_is_clipped_at_both_ends() -> None:
    log_pi_BA = torch.tensor([[-1e9, 0.0], [1e-9, -30.0]])  # rounding can leave a log π above 0
    bonus_B = F.munchausen_bonus(log_pi_BA, torch.tensor([0, 0]), 1.0, 0.9, -1.0)
    assert bonus_B.tolist() == [-0.9, 0]


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
    )


def tables() -> torch.Tensor:
    return torch.randn(2, 2, STATES, ACTIONS, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("policy_source", SOURCES)
@pytest.mark.parametrize("lowest", [-1e9, -0.5])
def test_the_reward_includes_the_clipped_log_policy_of_the_policy_source(
    make_loss, policy_source: str, lowest: float
) -> None:
    """Terminated transitions get the bonus too: it is of s, not of s'."""
    online, target = tables()
    settings = {"policy_source": policy_source, "backup": "expected_min"}
    sqn = make_loss("sqn", online, target, **settings)
    loss = make_loss("munchausen", online, target, m=0.75, lowest=lowest, **settings)
    batch, clipped = make_batch(), 0
    extra_B = (sqn.compute(batch).td_error - loss.compute(batch).td_error)[0]
    for b, extra in enumerate(extra_B.tolist()):
        first, second = (target if policy_source.startswith("target") else online)[:, b].tolist()
        q = [min(*pair) for pair in zip(first, second, strict=True)] if "min" in policy_source else first
        pi = math.exp(q[batch.action[b]] / ALPHA) / sum(math.exp(x / ALPHA) for x in q)
        scaled = ALPHA * math.log(pi)
        clipped += scaled < lowest
        assert extra == pytest.approx(0.75 * max(scaled, lowest), abs=1e-12)
    assert (clipped > 0) == (lowest > -1e9)


@pytest.mark.parametrize("policy_source", SOURCES)
def test_munchausen_without_its_bonus_equals_sqn(make_loss, policy_source: str) -> None:
    sqn = make_loss("sqn", *tables(), policy_source=policy_source).compute(make_batch())
    loss = make_loss("munchausen", *tables(), policy_source=policy_source, m=0.0).compute(make_batch())
    assert torch.equal(loss.td_error, sqn.td_error)
    assert loss.losses == sqn.losses
    assert torch.equal(loss.log_pi, sqn.log_pi)


@pytest.mark.parametrize("settings", [{"m": -0.1}, {"m": 1.1}, {"lowest": 0.0}, {"lowest": 1.0}])
def test_settings_out_of_range_are_refused(make_loss, settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        make_loss("munchausen", *tables(), **settings)
