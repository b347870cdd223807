"""Quantile regression (QR-DQN) against a loop over θ_k and samples, worked by hand, and at its minimum."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.distributions import Quantile
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
LN2 = math.log(2)


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# --- the loss ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kappa", "wanted"),
    [
        # θ = [0, 4] with τ = [1/4, 3/4]; samples 1 and 5: u = 1 and 5 for the first, −3 and 1 for the second
        # 1/2 (1/4 · 1 + 1/4 · 3) + 1/2 (1/4 · 5 + 3/4 · 1)
        (0.0, 1.5),
        # κ = 2: L/κ of 1, 3, 5 is 1²/4, 3 − 1, 5 − 1.  1/2 (1/4 · 1/4 + 1/4 · 2) + 1/2 (1/4 · 4 + 3/4 · 1/4)
        (2.0, 7 / 8),
    ],
)
def test_quantile_loss_worked_by_hand(kappa: float, wanted: float) -> None:
    loss_NB = F.quantile_loss(tensor([[0, 4]]), tensor([1, 5]), kappa)
    assert_close(loss_NB, tensor([wanted]))


def huber(u: float, kappa: float) -> float:
    """L_κ(u)  (arXiv 1710.10044, eq. 9); the loss divides it by κ  (arXiv 1806.06923, eq. 3)."""
    return u * u / 2 if abs(u) <= kappa else kappa * (abs(u) - kappa / 2)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_quantile_loss_equals_the_loop(kappa: float) -> None:
    torch.manual_seed(0)
    theta_NBK, sample_BM = torch.randn(2, 3, 5), torch.randn(3, 7)
    loss_NB = F.quantile_loss(theta_NBK, sample_BM, kappa)
    for i in range(2):
        for b in range(3):
            wanted = 0.0
            for k in range(5):
                for m in range(7):
                    u = (sample_BM[b, m] - theta_NBK[i, b, k]).item()
                    size = huber(u, kappa) / kappa if kappa else abs(u)
                    wanted += 1 / 7 * abs((2 * k + 1) / 10 - (u < 0)) * size
            assert loss_NB[i, b].item() == pytest.approx(wanted, rel=1e-13)


def test_the_loss_has_the_dtype_of_the_quantiles_whatever_the_default_dtype() -> None:
    theta_NBK, sample_BM = torch.randn(1, 2, 3), torch.randn(2, 3)
    expected = F.quantile_loss(theta_NBK, sample_BM, 1.0)
    torch.set_default_dtype(torch.float32)
    try:
        loss_NB = F.quantile_loss(theta_NBK, sample_BM, 1.0)
    finally:
        torch.set_default_dtype(torch.float64)
    assert torch.equal(loss_NB, expected)
    assert F.quantile_loss(theta_NBK.float(), sample_BM.float(), 1.0).dtype == torch.float32


@pytest.mark.parametrize("kappa", [0.0, 1.0, 3.0])
def test_the_gradient_pulls_each_quantile_by_the_mass_on_either_side(kappa: float) -> None:
    # K = 2, τ = 1/4 and 3/4; from θ = 0 the samples are far, and an eighth of them below
    theta_NBK = tensor([[0, 0]]).requires_grad_()
    loss_NB = F.quantile_loss(theta_NBK, tensor([-5, 4, 4, 4, 9, 9, 9, 9]), kappa)
    loss_NB.sum().backward()
    # dℓ/dθ = (1 − τ) P(below) − τ P(above) = (1 − τ)/8 − 7 τ/8 = 1/8 − τ, where the errors count at least κ
    assert_close(theta_NBK.grad, tensor([[1 / 8 - 1 / 4, 1 / 8 - 3 / 4]]))


def test_with_a_large_kappa_the_loss_of_one_quantile_is_minimal_at_the_mean() -> None:
    """All errors are squared, and a single quantile, τ = 1/2, has equal weights for both signs."""
    theta_NBK = tensor([[2.5]]).requires_grad_()  # (1 + 1 + 8 + 0)/4
    loss_NB = F.quantile_loss(theta_NBK, tensor([1, 1, 8, 0]), 1e3)
    loss_NB.sum().backward()
    assert_close(theta_NBK.grad, tensor([[0]]))


# --- the target of a loss, worked by hand ------------------------------------------------------------------

# Two target networks, two actions, two quantiles, at the next state.
TARGETS = tensor([[0, 2], [1, 3]], [[-1, 5], [0, 1]])  # means 1 and 2; 2 and 1/2


@pytest.mark.parametrize(
    ("name", "backup", "weight"),
    [
        # π = [1/2, 1/2]: Σ π Q̄ = 3/2 and 5/4
        ("sqn", "expected", [0, 0, 1 / 2, 1 / 2]),
        # the first's action 0 (1 < 2) and the second's action 1 (1/2 < 2)
        ("sqn", "expected_min", [1 / 2, 0, 0, 1 / 2]),
        ("sqn", "expected_mean", [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
        ("discrete_sac", "expected_min", [1 / 2, 0, 0, 1 / 2]),
        # the online networks prefer action 1: 2 and 1/2
        ("double_dqn", None, [0, 0, 0, 1]),
    ],
)
def test_target_worked_by_hand(make_loss, make_temperature, name: str, backup: str | None, weight) -> None:
    online = torch.zeros(2, 2, 2, 2)
    if name == "double_dqn":
        online[0, 1, 1] += 1
    # H = ln 2, and with α = 1/(2 ln 2) a bonus of 1/2
    temperature = make_temperature(initial=0.5 / LN2, n_actions=2)
    settings = {} if backup is None else {"backup": backup}
    table = torch.stack([torch.zeros(2, 2, 2), TARGETS], 1)
    distribution = Quantile(quantiles=2, kappa=1.0)
    loss = make_loss(name, online, table, distribution=distribution, temperature=temperature, **settings)
    bonus = 0 if name == "double_dqn" else 0.5
    batch = Batch(
        observation=torch.tensor([0, 0]),
        action=torch.tensor([0, 1]),
        reward=torch.tensor([0.25, 7.0]),
        next_observation=torch.tensor([1, 1]),
        terminated=torch.tensor([False, True]),
        discount=torch.tensor([0.5, 0.5]),
        place=torch.arange(2),
    )
    target_BK = loss.target(batch, loss.q_net.values(batch.observation))
    # r + γ (Σ w θ_k + bonus), quantile by quantile
    theta_MK = TARGETS.flatten(0, 1).tolist()
    averages = [sum(w * theta_K[k] for w, theta_K in zip(weight, theta_MK, strict=True)) for k in (0, 1)]
    wanted = [0.25 + 0.5 * (average + bonus) for average in averages]
    assert_close(target_BK, tensor(wanted, [7, 7]))  # terminated: the reward alone
    assert_close(loss.compute(batch).td_error, tensor(*[[-sum(wanted) / 2, -7]] * 2))


def test_the_loss_uses_the_actions_taken_and_the_mean_uses_all_quantiles() -> None:
    torch.manual_seed(1)
    prediction, distribution = torch.randn(2, 3, 4, 5), Quantile(quantiles=5, kappa=0.5)
    assert_close(distribution.mean(prediction), prediction.sum(-1) / 5)
    sample_BM = torch.randn(3, 6)
    loss_NB, td_error_NB = distribution.loss(prediction, torch.tensor([3, 0, 2]), sample_BM)
    for b, a in enumerate([3, 0, 2]):
        theta, sample = prediction[:, b : b + 1, a], sample_BM[b : b + 1]
        assert_close(loss_NB[:, b : b + 1], F.quantile_loss(theta, sample, 0.5))
        assert_close(td_error_NB[:, b : b + 1], theta.sum(-1) / 5 - sample.sum() / 6)


# --- the minimum -------------------------------------------------------------------------------------------


def learned(target_BM: Tensor) -> Tensor:
    """The four quantiles at the loss's minimum, ``[B, 4]``."""
    theta_NBK = torch.zeros(2, len(target_BM), 4, requires_grad=True)  # twins, each by itself
    lr = 8.0
    for _ in range(300):
        (gradient,) = torch.autograd.grad(F.quantile_loss(theta_NBK, target_BM, 0.0).sum(), theta_NBK)
        with torch.no_grad():
            theta_NBK -= lr * gradient
        lr *= 0.9
    assert_close(theta_NBK[0], theta_NBK[1])
    return theta_NBK[0].detach()


@pytest.mark.parametrize("sample", [[5, -2, 1, 0], [3, -1, 0, 0]])  # at 1/8, 3/8, 5/8, 7/8
def test_the_minimum_of_the_loss_is_at_the_quantiles_of_the_midpoints(sample: list[float]) -> None:
    wanted = np.quantile(sample, [1 / 8, 3 / 8, 5 / 8, 7 / 8], method="inverted_cdf")
    assert_close(learned(tensor(sample)), torch.tensor(wanted).double().unsqueeze(0))


@pytest.mark.parametrize("pi", [[0.5, 0.5], [0.99, 0.01]])
@pytest.mark.parametrize("backup", ["expected", "expected_min", "expected_mean", "max"])
def test_the_learned_quantiles_have_the_mean_that_a_scalar_head_learns(backup: str, pi: list[float]) -> None:
    """Also where the probability of an action is too small for a single quantile."""
    prediction = torch.randint(-9, 9, (2, 1, 2, 4), generator=torch.Generator().manual_seed(3)).double()
    backup_of = partial(F.BACKUPS[backup], log_pi_BA=tensor(pi).log())
    target_BK = Quantile(quantiles=4, kappa=0.0).target(prediction, backup_of, tensor(1)[0], tensor(0.5)[0])
    wanted = 1 + 0.5 * backup_of(prediction.mean(-1))
    assert_close(learned(target_BK).mean(-1), wanted, rtol=0, atol=1e-9)
