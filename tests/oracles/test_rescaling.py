"""Value rescaling: h and its inverse, and the target h(r + γ h⁻¹(Q̄)) of every loss by brute force."""

import math
from functools import partial
from typing import Any

import pytest
import torch

from sqn_rl import functional as F
from sqn_rl.errors import SettingError
from sqn_rl.parts.distributions import Distribution
from sqn_rl.parts.rescaling import Rescaled, rescale, unrescale
from sqn_rl.types import Batch, Path

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)


def double(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def h(x: float, epsilon: float) -> float:
    return math.copysign(math.sqrt(abs(x) + 1) - 1, x) + epsilon * x


def test_h_worked_by_hand() -> None:
    # √9 − 1 = 2, and 0.5 · 8 = 4; odd; √(3 + 1) − 1 = 1, and 0.5 · 3
    assert rescale(double(8, -8, 3, 0), 0.5).tolist() == [6, -6, 2.5, 0]
    assert unrescale(double(6, -6, 2.5, 0), 0.5).tolist() == [8, -8, 3, 0]
    # without ε: h⁻¹(2) = 3² − 1
    assert unrescale(double(2, -1), 0.0).tolist() == [8, -3]


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.1, 1.0])
def test_unrescale_is_the_inverse_of_rescale(epsilon: float) -> None:
    x = torch.cat([double(0), 10 ** torch.linspace(-9, 6, 200, dtype=torch.float64)])
    x = torch.cat([-x, x])
    assert_close(rescale(x, epsilon), double(*(h(each, epsilon) for each in x.tolist())))
    assert_close(unrescale(rescale(x, epsilon), epsilon), x)
    assert_close(rescale(unrescale(x, epsilon), epsilon), x)


@pytest.mark.parametrize(("size", "error"), [(1e-3, 1e-6), (1.0, 1e-6), (100.0, 1e-4), (1e4, 1e-2)])
def test_the_inverse_is_accurate_in_float32(size: float, error: float) -> None:
    """Relative errors are at most 1e-6; the formula as printed is far less exact for small values."""
    x = torch.linspace(-size, size, 1001)
    assert (unrescale(rescale(x, 1e-3), 1e-3) - x).abs().max() < error


def brute_force(batch: Batch, q_NBA: Any, own: Any, action: int, epsilon: float) -> list[list[float]]:
    """δ of two networks, with the minimum over twins of max_a h⁻¹(Q̄), in a loop over transitions."""

    def inverse(y: float) -> float:
        root = (math.sqrt(1 + 4 * epsilon * (abs(y) + 1 + epsilon)) - 1) / (2 * epsilon)
        return math.copysign(root**2 - 1, y)

    errors: list[list[float]] = [[], []]
    for b in range(len(batch.action)):
        value = min(max(inverse(q) for q in network[b]) for network in q_NBA)
        discount = batch.discount[b].item() * (not batch.terminated[b].item())
        target = h(batch.reward[b].item() + discount * value, epsilon)
        for network in range(2):
            errors[network].append(own[network][b][action] - target)
    return errors


def test_the_rescaled_target_equals_brute_force() -> None:
    torch.manual_seed(0)
    epsilon, action = 0.01, 2
    own, target = (5 * torch.randn(2, 6, 3, 1, dtype=torch.float64) for _ in range(2))
    batch = Batch(
        observation=torch.arange(6),
        action=torch.full((6,), action),
        reward=100 * torch.randn(6, dtype=torch.float64),
        next_observation=torch.arange(6),
        terminated=torch.arange(6) == 4,
        discount=0.5 ** (1 + torch.arange(6, dtype=torch.float64) % 3),
        place=torch.arange(6),
    )
    rescaled, discount_B = Rescaled(epsilon=epsilon), batch.discount * ~batch.terminated
    y_B = rescaled.target(target, F.maximum, batch.reward, discount_B)
    loss_NB, td_error_NB = rescaled.loss(own, batch.action, y_B)
    expected = brute_force(batch, target.squeeze(-1).tolist(), own.squeeze(-1).tolist(), action, epsilon)
    assert_close(td_error_NB, torch.tensor(expected, dtype=torch.float64))
    assert_close(loss_NB, td_error_NB**2)
    mixture = Distribution.target(rescaled, target, F.maximum, batch.reward, discount_B)
    assert_close(mixture.squeeze(-1), y_B)


def test_the_target_of_a_one_step_path_equals_the_one_step_target() -> None:
    torch.manual_seed(1)
    rescaled, prediction = Rescaled(epsilon=0.01), torch.randn(2, 5, 3, 1, dtype=torch.float64)
    reward, discount = torch.randn(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    path = Path(
        next_observation=torch.zeros(5, 1),
        next_action=torch.zeros(5, 1, dtype=torch.int64),
        reward=reward.unsqueeze(-1),
        discount=discount.unsqueeze(-1),
        trace=torch.zeros(5, 1),
    )
    along = rescaled.path_target(prediction, F.maximum, reward.unsqueeze(-1), path)
    assert_close(along, rescaled.target(prediction, F.maximum, reward, discount))


def test_the_gradient_is_that_of_the_squared_error_of_rescaled_values() -> None:
    prediction = double(2, 0).view(1, 1, 2, 1).requires_grad_()
    loss_NB, td_error_NB = Rescaled(epsilon=0.0).loss(prediction, torch.tensor([0]), double(3))
    loss_NB.sum().backward()
    assert td_error_NB.tolist() == [[1]]  # 2 − (√4 − 1)
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == [2, 0]


@pytest.mark.parametrize("epsilon", [-0.1, math.inf, math.nan])
def test_an_invalid_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(SettingError, match="expected a number, at least 0"):
        Rescaled(epsilon=epsilon)
