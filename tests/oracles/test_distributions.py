"""Every distribution of returns: its mixture follows the backup, and its means follow the scalar loss."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import SettingError
from sqn_rl.parts.distributions import Categorical, Distribution, Quantile, Scalar
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
BACKUPS = ["expected", "expected_min", "sampled", "expected_mean", "max"]


# --- the mixture -------------------------------------------------------------------------------------------

PI = torch.tensor([[1 / 2, 1 / 4, 1 / 4]], dtype=torch.float64)
TWINS = torch.tensor([[[4, 0, 8]], [[2, 6, 0]]], dtype=torch.float64)  # Q̄_1 and Q̄_2 of one state
ACTION_0 = torch.tensor([[1, 0, 0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("backup", "wanted"),
    [
        # Σ π Q̄ = 4 and 5/2: all of π goes to the second
        (partial(F.expected, log_pi_BA=PI.log()), [[0, 0, 0], [1 / 2, 1 / 4, 1 / 4]]),
        # the smaller twin is the second, the first, the second
        (partial(F.expected_min, log_pi_BA=PI.log()), [[0, 1 / 4, 0], [1 / 2, 0, 1 / 4]]),
        (partial(F.expected_mean, log_pi_BA=PI.log()), [[1 / 4, 1 / 8, 1 / 8], [1 / 4, 1 / 8, 1 / 8]]),
        # max_a: 8 of the first and 6 of the second, at action 1
        (F.maximum, [[0, 0, 0], [0, 1, 0]]),
        # the action drawn is 0: 4 and 2
        (
            partial(F.sampled, log_pi_BA=ACTION_0.log(), exponential_BA=torch.ones_like(ACTION_0)),
            [[0, 0, 0], [1, 0, 0]],
        ),
        # double Q-learning, whose online network likes action 1 best: 0 and 6
        (partial(F.of_action, action_B=torch.tensor([1])), [[0, 1, 0], [0, 0, 0]]),
    ],
)
def test_mixture_weights_worked_by_hand(backup: Callable[[Tensor], Tensor], wanted: list) -> None:
    weight_NBA = F.mixture_weights(backup, TWINS)
    assert weight_NBA.squeeze(1).tolist() == wanted
    assert not weight_NBA.requires_grad


def test_mixture_weights_of_a_batch_are_those_of_its_rows() -> None:
    backup = partial(F.expected_min, log_pi_BA=PI.log().expand(2, 3))
    q_NBA = torch.cat([TWINS, -TWINS], 1)  # the smaller twin is the other one everywhere
    wanted = torch.tensor([[[0, 1 / 4, 0], [1 / 2, 0, 1 / 4]], [[1 / 2, 0, 1 / 4], [0, 1 / 4, 0]]])
    assert torch.equal(F.mixture_weights(backup, q_NBA), wanted)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", [*BACKUPS, "of_action"])
def test_mixture_weights_are_a_distribution_whose_mean_is_the_backup(
    name: str, tied: bool, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    q_NBA = torch.randint(2 if tied else 2**40, (3, 8, 4), generator=rng).double()
    log_pi_BA = torch.randn(8, 4, generator=rng).log_softmax(-1)
    if name == "of_action":
        backup = partial(F.of_action, action_B=q_NBA[0].argmax(-1))
    elif name == "sampled":
        drawn = torch.nn.functional.one_hot(torch.arange(8) % 4).log()  # certain
        backup = partial(F.sampled, log_pi_BA=drawn, exponential_BA=torch.ones(8, 4))
    else:
        backup = partial(F.BACKUPS[name], log_pi_BA=log_pi_BA)
    weight_NBA = F.mixture_weights(backup, q_NBA)
    assert (weight_NBA >= 0).all()
    assert_close(weight_NBA.sum((0, 2)), torch.ones(8))
    assert_close((weight_NBA * q_NBA).sum((0, 2)), backup(q_NBA))


def test_mixture_weights_of_the_sampled_backup_are_one_hot() -> None:
    q_NBA, log_pi_BA = TWINS.expand(2, 40, 3), PI.log().expand(40, 3)
    noise_BA = F.exponentials(log_pi_BA, torch.Generator().manual_seed(0))
    backup = partial(F.sampled, log_pi_BA=log_pi_BA, exponential_BA=noise_BA)
    weight_NBA = F.mixture_weights(backup, q_NBA)
    assert_close(weight_NBA.amax((0, 2)), torch.ones(40))
    assert set(weight_NBA.sum(0).argmax(-1).tolist()) == {0, 1, 2}


# --- a distribution in a loss ------------------------------------------------------------------------------

B, STATES, ACTIONS, NETWORKS, K = 8, 16, 3, 2, 7
SOFT = list(product(["sqn", "munchausen"], BACKUPS)) + [("discrete_sac", backup) for backup in BACKUPS]
LOSSES = [("dqn", None), ("double_dqn", None), *SOFT]
for_every_loss = pytest.mark.parametrize(("name", "backup"), LOSSES)


def make_batch() -> Batch:
    rng = torch.Generator().manual_seed(3)
    return Batch(
        observation=torch.arange(B),
        action=torch.randint(ACTIONS, (B,), generator=rng),
        reward=torch.randn(B, generator=rng),
        next_observation=torch.arange(B, STATES),
        terminated=torch.arange(B) % 4 == 0,
        discount=0.5 ** (1.0 + torch.arange(B) % 3),
        place=torch.arange(B),
    )


def settings_of(backup: str | None) -> dict[str, Any]:
    logits = torch.randn(STATES, ACTIONS, generator=torch.Generator().manual_seed(5))
    return {"logits": logits} | ({} if backup is None else {"backup": backup})


def make_pair(make_loss, name: str, backup: str | None, distribution: Distribution, tables: Tensor) -> Any:
    """The loss with this distribution, and the one of the scalars that are its means."""
    settings, values = settings_of(backup), distribution.mean(tables)
    distributional = make_loss(name, *tables, distribution=distribution, **settings)
    return distributional, make_loss(name, *values, **settings)


def categorical(width: float = 20) -> Categorical:
    return Categorical(v_min=-width, v_max=width, atoms=K)


def quantile() -> Quantile:
    return Quantile(quantiles=K, kappa=1.0)


@for_every_loss
@pytest.mark.parametrize("make_distribution", [categorical, quantile])
def test_distributional_terms_equal_those_of_a_scalar_loss_of_the_means(
    make_loss, make_distribution: Callable[[], Distribution], name: str, backup: str | None
) -> None:
    """Where no atom is clipped, Q, π, δ, and so y, and the losses of policy and temperature, are the same."""
    torch.manual_seed(4)
    tables = torch.randn(2, NETWORKS, STATES, ACTIONS, K)
    if make_distribution is categorical:  # no probability near the ends
        tables[..., [0, 1, -2, -1]] = -torch.inf
    distributional, scalar = make_pair(make_loss, name, backup, make_distribution(), tables)
    batch = make_batch()
    terms, wanted = distributional.compute(batch), scalar.compute(batch)
    assert_close(terms.q, wanted.q)
    assert_close(terms.log_pi, wanted.log_pi)
    assert_close(terms.td_error, wanted.td_error)
    for other in set(terms.losses) - {"loss_q"}:
        assert_close(terms.losses[other], wanted.losses[other])


@for_every_loss
def test_a_categorical_with_one_certain_atom_equals_a_scalar_loss(
    make_loss, name: str, backup: str | None
) -> None:
    rng = torch.Generator().manual_seed(6)
    atom = torch.randint(2, 5, (2, NETWORKS, STATES, ACTIONS), generator=rng)
    certain = torch.nn.functional.one_hot(atom, K).double().log()
    loss, scalar = make_pair(make_loss, name, backup, categorical(3), certain)  # atoms −3, −2, … 3
    assert_close(loss.q_net.values(torch.arange(STATES)), (atom[0] - 3).double())
    batch = make_batch()
    terms, wanted = loss.compute(batch), scalar.compute(batch)
    assert_close(terms.td_error, wanted.td_error)
    assert_close(terms.log_pi, wanted.log_pi)


@for_every_loss
def test_equal_quantiles_have_the_td_error_of_a_scalar_loss(make_loss, name: str, backup: str | None) -> None:
    """loss_q is then K/2 absolute errors |δ|, since Σ_k |τ_k − 1{δ > 0}| = K/2 for either sign."""
    torch.manual_seed(7)
    values = torch.randn(2, NETWORKS, STATES, ACTIONS, 1)
    tables = values.expand(-1, -1, -1, -1, K)
    loss, scalar = make_pair(make_loss, name, backup, Quantile(quantiles=K, kappa=0.0), tables)
    terms, wanted = loss.compute(make_batch()), scalar.compute(make_batch())
    assert_close(terms.td_error, wanted.td_error)
    assert_close(terms.losses["loss_q"], K / 2 * wanted.td_error.abs().mean(1).sum())


def test_the_scalar_loss_is_the_squared_error_of_its_target() -> None:
    prediction = torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]]])
    target_B = Scalar().target(prediction, F.maximum, torch.tensor([1.0]), torch.tensor([0.5]))
    assert target_B.tolist() == [2]  # 1 + 1/2 min(2, 5)
    loss_NB, td_error_NB = Scalar().loss(prediction, torch.tensor([1]), torch.tensor([4.0]))
    assert loss_NB.tolist() == [[4], [1]]
    assert td_error_NB.tolist() == [[-2], [1]]


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (Categorical, {"v_min": 1.0, "v_max": 1.0, "atoms": 3}),
        (Categorical, {"v_min": 0.0, "v_max": 1.0, "atoms": 1}),
        (Categorical, {"v_min": 0.0, "v_max": 1.0, "atoms": 2.5}),
        (Quantile, {"quantiles": 0, "kappa": 1.0}),
        (Quantile, {"quantiles": 1, "kappa": -1.0}),
    ],
)
def test_invalid_settings_of_a_distribution_are_refused(make: type, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="expected"):
        make(**settings)


def test_the_evenly_spaced_support_reaches_both_ends() -> None:
    support = Categorical(v_min=-1, v_max=2, atoms=4).support
    np.testing.assert_array_equal(support.numpy(), [-1, 0, 1, 2])
