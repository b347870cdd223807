"""The equations, against numbers worked by hand and against their properties.

Numbers are float64, and the tolerance is a few roundings of the largest term.
Policies in the hand-worked cases are made of powers of two, so that ``π`` is exact.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from sqn_rl import functional as F

LN2 = math.log(2)
WITHOUT_SAMPLING = ["expected", "expected_min", "expected_mean", "max"]


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def assert_close(actual: Tensor, expected: object, atol: float = 1e-14) -> None:
    wanted = torch.as_tensor(expected, dtype=actual.dtype)
    assert actual.shape == wanted.shape
    torch.testing.assert_close(actual, wanted, rtol=1e-14, atol=atol)


# --- worked by hand ----------------------------------------------------------------------------------------

PI = tensor([1 / 2, 1 / 4, 1 / 4])  # H = 1/2 ln 2 + 2 · 1/4 ln 4 = 3/2 ln 2
TWINS = tensor([[4, 0, 8]], [[2, 6, 0]])  # Q̄_1 and Q̄_2 of one state: [N=2, B=1, A=3]


def test_log_policy_divides_by_the_temperature() -> None:
    # α = 2: exp(Q/α) = [1, 2, 5], which sums to 8
    q_BA = 2 * tensor([1, 2, 5]).log()
    assert_close(F.log_policy(q_BA, 2.0), tensor([1 / 8, 2 / 8, 5 / 8]).log())


def test_log_policy_takes_a_temperature_tensor_and_any_leading_shape() -> None:
    q_NBA = torch.stack([tensor([1, 3]), tensor([3, 1])]).log()  # α = 1: π = [1/4, 3/4], then [3/4, 1/4]
    wanted = torch.stack([tensor([1 / 4, 3 / 4]), tensor([3 / 4, 1 / 4])]).log()
    assert_close(F.log_policy(q_NBA, tensor(1)[0]), wanted)


def test_log_policy_is_finite_where_the_exponentials_overflow() -> None:
    assert_close(F.log_policy(tensor([5000, 0]), 1.0), [[0, -5000]])
    assert_close(F.entropy(F.log_policy(tensor([5000, 0]), 1.0)), [0])  # not NaN


OF_Q_OVER_ALPHA: dict[str, Callable[[Tensor, float], Tensor]] = {
    "logits": F.logits,
    "log_policy": F.log_policy,
    "entropy": lambda q_BA, alpha: F.entropy(F.log_policy(q_BA, alpha)),
    "off_greedy_mass": lambda q_BA, alpha: F.off_greedy_mass(F.log_policy(q_BA, alpha)),
    "munchausen_bonus": lambda q_BA, alpha: F.munchausen_bonus(
        F.log_policy(q_BA, alpha), torch.tensor([1, 0]), alpha, 0.9, -1.0
    ),
    "soft_value": lambda q_BA, alpha: F.soft_value(q_BA, alpha) - q_BA.amax(-1),
    "gradient of soft_value": lambda q_BA, alpha: gradient(lambda q: F.soft_value(q, alpha).sum(), q_BA),
    "gradient of log_policy": lambda q_BA, alpha: gradient(lambda q: F.log_policy(q, alpha)[0, 0], q_BA),
    "gradient of policy_loss": lambda q_BA, alpha: gradient(
        lambda log_pi: F.policy_loss(log_pi.log_softmax(-1), q_BA, alpha), torch.zeros_like(q_BA)
    ),
}


def gradient(of: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(of(at), at)
    return found


@pytest.mark.parametrize("offset", [0.0, -1e4, 1e6])
@pytest.mark.parametrize("name", OF_Q_OVER_ALPHA)
def test_functions_of_q_over_alpha_are_as_exact_with_a_large_offset_of_q(name: str, offset: float) -> None:
    """In float32, whose numbers are 1/16 apart at 10⁶: against float64 of the same Q without the offset."""
    q_BA, alpha, compute = tensor([0, -1 / 16, 0.5, 0.5], [0.25, 0, 0, -4]), 0.1, OF_Q_OVER_ALPHA[name]
    found = compute((q_BA + offset).float(), alpha)
    if name == "soft_value":  # in reward units, so that it is rounded where Q is
        assert_close(found.double(), compute(q_BA, alpha), max(1e-6, abs(offset) / 2**24))
    else:
        assert_close(found.double(), compute(q_BA, alpha), 1e-5)


def test_entropy_is_in_nats() -> None:
    pi_BA = tensor([1 / 2, 1 / 4, 1 / 4], [1 / 3, 1 / 3, 1 / 3], [1 / 8, 2 / 8, 5 / 8])
    # the last: 1/8 ln 8 + 1/4 ln 4 + 5/8 ln(8/5) = 3/8 ln 2 + 1/2 ln 2 + 5/8 (3 ln 2 − ln 5)
    wanted = [1.5 * LN2, math.log(3), 2.75 * LN2 - 0.625 * math.log(5)]
    assert_close(F.entropy(pi_BA.log()), wanted)


def test_off_greedy_mass_is_one_minus_the_largest_probability() -> None:
    pi_BA = tensor([1 / 8, 2 / 8, 5 / 8], [1 / 3, 1 / 3, 1 / 3])
    assert_close(F.off_greedy_mass(pi_BA.log()), [3 / 8, 2 / 3])


def test_soft_value_worked_by_hand() -> None:
    # α = 2, exp(Q/α) = [1, 2, 5]: F = 2 ln 8 = 6 ln 2
    assert_close(F.soft_value(2 * tensor([1, 2, 5], [8, 0.5, 0.5]).log(), 2.0), [6 * LN2, 2 * math.log(9)])


@pytest.mark.parametrize(
    ("backup", "wanted"),
    [
        # Σ π Q̄_1 = 4/2 + 0/4 + 8/4 = 4;  Σ π Q̄_2 = 2/2 + 6/4 + 0/4 = 5/2;  the smaller
        ("expected", 2.5),
        # min_i Q̄_i = [2, 0, 0];  2/2
        ("expected_min", 1.0),
        # mean_i Q̄_i = [3, 3, 4];  3/2 + 3/4 + 4/4
        ("expected_mean", 3.25),
        # max_a: 8 and 6; the smaller
        ("max", 6.0),
    ],
)
def test_backup_of_twins_worked_by_hand(backup: str, wanted: float) -> None:
    assert_close(F.BACKUPS[backup](TWINS, PI.log()), [wanted])


def test_the_own_backup_is_the_expectation_of_one_network() -> None:
    assert_close(torch.cat([F.own(network, PI.log()) for network in TWINS.split(1)]), [4, 2.5])


@pytest.mark.parametrize("backup", WITHOUT_SAMPLING)
def test_backups_of_one_network_do_not_mix_rows_of_the_batch(backup: str) -> None:
    pi_BA, q_NBA = tensor([1 / 2, 1 / 2], [1 / 4, 3 / 4]), tensor([[1, 3], [4, 8]])
    # 1/2 + 3/2 and 4/4 + 24/4; the greatest are 3 and 8
    assert_close(F.BACKUPS[backup](q_NBA, pi_BA.log()), [3, 8] if backup == "max" else [2, 7])


def test_the_sampled_backup_is_the_smaller_twin_at_the_action_drawn() -> None:
    certain_BA = torch.eye(3, dtype=torch.float64)  # row b always draws action b
    q_NBA = TWINS.expand(2, 3, 3)
    noise_BA = F.exponentials(certain_BA)
    assert_close(F.sampled(q_NBA, certain_BA.log(), noise_BA), [2, 0, 0])
    assert_close(F.sampled(q_NBA.flip(-1), certain_BA.log(), noise_BA), [0, 0, 2])


def test_the_backup_of_an_action_is_the_smaller_twin_at_that_action() -> None:
    assert_close(F.of_action(TWINS.expand(2, 3, 3), torch.tensor([2, 0, 1])), [0, 2, 0])


def test_the_sampled_backup_draws_from_the_policy_with_the_given_generator() -> None:
    n = 40_000
    everywhere_BA, q_NBA = PI.log().expand(n, 3), tensor([[1, 2, 4]]).expand(1, n, 3)
    before = torch.get_rng_state()
    noise_BA = F.exponentials(everywhere_BA, torch.Generator().manual_seed(0))
    value_B = F.sampled(q_NBA, everywhere_BA, noise_BA)
    assert torch.equal(noise_BA, F.exponentials(everywhere_BA, torch.Generator().manual_seed(0)))
    assert torch.equal(before, torch.get_rng_state())
    for value, probability in [(1, 1 / 2), (2, 1 / 4), (4, 1 / 4)]:
        frequency = (value_B == value).double().mean().item()
        assert frequency == pytest.approx(probability, abs=0.01)  # four standard deviations: 4 √(¼ / n)


def test_the_names_of_the_backups_are_the_documented_ones() -> None:
    assert set(F.BACKUPS) == {"expected", "expected_min", "sampled", "expected_mean", "own", "max"}
    assert F.BACKUPS["sampled"] is F.sampled


def test_td_target_worked_by_hand() -> None:
    # γ = .9: one step; terminated; three steps (.729)
    reward_B, discount_B, value_B = tensor(1, 1, -2), tensor(0.9, 0, 0.729), tensor(10, 10, 10)
    assert_close(F.td_target(reward_B, discount_B, value_B), [10, 1, 5.29])


def test_td_error_reads_the_action_taken_in_every_network() -> None:
    q_NBA = tensor([[1, 2, 3], [4, 5, 6]], [[10, 20, 30], [40, 50, 60]])
    # actions 2 and 0, targets 1 and 7:  3 − 1, 4 − 7;  30 − 1, 40 − 7
    assert_close(F.td_error(q_NBA, torch.tensor([2, 0]), tensor(1, 7)), [[2, -3], [29, 33]])


def test_td_loss_is_the_sum_over_networks_of_the_mean_over_the_batch() -> None:
    loss_NB = tensor([1, 4], [9, 0])
    assert_close(F.td_loss(loss_NB), 7)  # (1 + 4)/2 + (9 + 0)/2
    assert_close(F.td_loss(loss_NB, tensor(1, 0.5)), 6)  # (1 + 4/2)/2 + 9/2


def test_temperature_loss_and_its_gradient_worked_by_hand() -> None:
    alpha = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    entropy_B = tensor(0.5, 1.5).requires_grad_()
    loss = F.temperature_loss(alpha, entropy_B, 0.25)
    assert_close(loss.detach(), 1.5)  # 2 (1 − 1/4)
    loss.backward()
    assert_close(alpha.grad, 0.75)  # too random: a descent step lowers α
    assert entropy_B.grad is None


def test_dueling_centres_the_advantages() -> None:
    # V = 10, A − mean A = [1, 2, 6] − 3;  V = −1, A − mean A = [0, 3, 0] − 1
    assert_close(F.dueling(tensor([10], [-1]), tensor([1, 2, 6], [0, 3, 0])), [[8, 9, 13], [-2, 1, -2]])


# --- the properties of algorithm.md ------------------------------------------------------------------------

ATOL = 1e-11  # |Q|, α |log π| ≤ 10³ here: a few dozen roundings of 10³ · 2⁻⁵²

action_counts = st.integers(2, 6)
temperatures = st.floats(0.05, 20)


@st.composite
def action_values(draw: st.DrawFn, networks: int = 2) -> Tensor:
    """Any Q ``[N, 1, A]`` with 2 to 6 actions."""
    shape = (networks, 1, draw(action_counts))
    return torch.from_numpy(draw(arrays(np.float64, shape, elements=st.floats(-50, 50))))


def policy_and_values(networks: int) -> st.SearchStrategy[tuple[Tensor, Tensor]]:
    """Any policy, as log π ``[1, A]``, and any Q ``[N, 1, A]``."""
    return action_values(networks + 1).map(lambda q: (torch.log_softmax(q[0] / 5, -1), q[1:]))


@given(action_values(1), temperatures)
def test_entropy_lies_between_zero_and_log_of_the_number_of_actions(q_NBA: Tensor, alpha: float) -> None:
    entropy_B = F.entropy(F.log_policy(q_NBA[0], alpha))
    assert 0 <= entropy_B <= math.log(q_NBA.shape[-1]) + 1e-14


@given(policy_and_values(1), temperatures)
def test_property_1_soft_value_is_the_best_of_any_policy(pair: tuple[Tensor, Tensor], alpha: float) -> None:
    log_pi_BA, (q_BA,) = pair
    value_B = F.expected(q_BA[None], log_pi_BA) + alpha * F.entropy(log_pi_BA)
    kl_B = (log_pi_BA.exp() * (log_pi_BA - F.log_policy(q_BA, alpha))).sum(-1)
    assert kl_B >= -1e-14
    assert_close(value_B, F.soft_value(q_BA, alpha) - alpha * kl_B, ATOL)


@given(action_values(), temperatures)
def test_property_2_expected_min_below_expected_below_soft_value(q_NBA: Tensor, alpha: float) -> None:
    log_pi_BA = F.log_policy(q_NBA[0], alpha)
    bonus_B = alpha * F.entropy(log_pi_BA)
    low_B, middle_B = (F.BACKUPS[name](q_NBA, log_pi_BA) + bonus_B for name in ("expected_min", "expected"))
    assert low_B <= middle_B + ATOL
    assert middle_B <= F.soft_value(q_NBA[0], alpha) + ATOL


@given(policy_and_values(2))
def test_property_2_holds_for_any_policy_and_against_the_mean(pair: tuple[Tensor, Tensor]) -> None:
    log_pi_BA, q_NBA = pair
    assert F.expected_min(q_NBA, log_pi_BA) <= F.expected(q_NBA, log_pi_BA) + ATOL
    assert F.expected(q_NBA, log_pi_BA) <= F.expected_mean(q_NBA, log_pi_BA) + ATOL
    assert F.expected(q_NBA, log_pi_BA) <= F.maximum(q_NBA, log_pi_BA) + ATOL


@given(action_values(1), temperatures)
def test_property_3_equal_twins_with_their_own_softmax_agree(q_NBA: Tensor, alpha: float) -> None:
    log_pi_BA = F.log_policy(q_NBA[0], alpha)
    twins_NBA, bonus_B = q_NBA.repeat(2, 1, 1), alpha * F.entropy(log_pi_BA)
    soft_value_B = F.soft_value(q_NBA[0], alpha)
    for backup in ("expected", "expected_min", "expected_mean"):
        assert_close(F.BACKUPS[backup](twins_NBA, log_pi_BA) + bonus_B, soft_value_B, ATOL)
    # q(a') − α log π(a') is the soft value whichever a' is drawn: no variance
    assert_close(q_NBA[0] - alpha * log_pi_BA, soft_value_B[:, None].expand_as(log_pi_BA), ATOL)


def test_property_3_the_sampled_backup_still_has_variance() -> None:
    q_NBA = tensor([[0, 1, 2]]).expand(2, 1000, 3)
    log_pi_BA = F.log_policy(q_NBA[0], 1.0)
    value_B = F.sampled(q_NBA, log_pi_BA, F.exponentials(log_pi_BA, torch.Generator().manual_seed(0)))
    assert set(value_B.tolist()) == {0, 1, 2}


@given(action_values())
def test_property_5_at_low_alpha_the_value_is_clipped_double_q_learning(q_NBA: Tensor) -> None:
    online_BA = q_NBA.mean(0).round()
    online_BA[0, 0] = online_BA.max() + 1  # a best action, by 1: the others share exp(−1 / α) = exp(−1000)
    log_pi_BA = F.log_policy(online_BA, 1e-3)
    clipped_B = q_NBA[:, :, 0].amin(0)
    for value_B in (F.expected(q_NBA, log_pi_BA), F.expected_min(q_NBA, log_pi_BA)):
        assert_close(value_B + 1e-3 * F.entropy(log_pi_BA), clipped_B)
    assert_close(F.sampled(q_NBA, log_pi_BA, F.exponentials(log_pi_BA)), clipped_B)


@given(action_values(1), st.floats(1e-4, 1e9))
def test_property_5_soft_value_is_within_alpha_log_a_of_the_maximum(q_NBA: Tensor, alpha: float) -> None:
    q_BA = q_NBA[0]
    above = (F.soft_value(q_BA, alpha) - q_BA.amax(-1)).item()
    rounding = 1e-13 + 1e-14 * alpha
    assert -rounding <= above <= alpha * math.log(q_BA.shape[-1]) + rounding


@given(action_values(1), st.floats(1, 1e9))
def test_property_5_at_high_alpha_the_policy_is_uniform(q_NBA: Tensor, alpha: float) -> None:
    q_BA = q_NBA[0]
    # |log π + log A| ≤ (max Q − min Q) / α, which vanishes as α grows
    away_BA = (F.log_policy(q_BA, alpha) + math.log(q_BA.shape[-1])).abs()
    assert away_BA.max() <= (q_BA.max() - q_BA.min()) / alpha + 1e-13


@pytest.mark.parametrize("backup", WITHOUT_SAMPLING)
@given(q_NBA=action_values(), alpha=temperatures, shift=st.floats(-50, 50))
def test_property_6_adding_a_constant_to_q_keeps_the_policy_and_shifts_the_value(
    backup: str, q_NBA: Tensor, alpha: float, shift: float
) -> None:
    log_pi_BA, shifted_BA = F.log_policy(q_NBA[0], alpha), F.log_policy(q_NBA[0] + shift, alpha)
    assert_close(shifted_BA, log_pi_BA, ATOL)
    value = F.BACKUPS[backup]
    assert_close(value(q_NBA + shift, shifted_BA), value(q_NBA, log_pi_BA) + shift, ATOL)
    assert_close(F.soft_value(q_NBA[0] + shift, alpha), F.soft_value(q_NBA[0], alpha) + shift, ATOL)


@given(st.floats(-50, 50), st.floats(0.01, 1), st.floats(-50, 50))
def test_property_7_only_a_terminated_step_ignores_the_next_value(r: float, gamma: float, v: float) -> None:
    terminated_B = tensor(1, 0)  # the second was truncated: it keeps its discount
    target_B = F.td_target(tensor(r, r), gamma * (1 - terminated_B), tensor(v, v))
    assert_close(target_B, [r, r + gamma * v])
