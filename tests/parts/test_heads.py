"""Heads: their outputs are compared with the same affine maps written out."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sqn_rl import CategoricalHead, Dense, DuelingHead, LinearHead, QuantileHead, RescaledHead, SettingError
from sqn_rl.parts.distributions import Categorical, Quantile
from sqn_rl.parts.rescaling import Rescaled

B, F, A, K, N = 6, 4, 3, 5, 2
GIVEN: dict[str, Any] = {"in_features": F, "n_actions": A, "layer": partial(Dense, members=N)}
C51 = {"v_min": -1.0, "v_max": 3.0, "atoms": K}


def affine(dense: nn.Module, x_NBF: Tensor, *shape: int) -> Tensor:
    return (torch.einsum("nbf,nfg->nbg", x_NBF, dense.weight) + dense.bias).reshape(N, B, *shape)


@pytest.fixture
def features() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(N, B, F)


def test_the_linear_head_is_one_affine_map(features: Tensor) -> None:
    one, many = LinearHead(**GIVEN), LinearHead(**GIVEN, outputs=K)
    torch.testing.assert_close(one(features), affine(one.q, features, A))
    torch.testing.assert_close(many(features), affine(many.q, features, A, K))


def test_dueling_q_is_the_value_plus_the_advantage_minus_the_mean_advantage(features: Tensor) -> None:
    head = DuelingHead(**GIVEN)
    value_NB1, advantage_NBA = affine(head.value, features, 1), affine(head.advantage, features, A)
    q_NBA = head(features)
    for a in range(A):
        mean_NB = sum(advantage_NBA[..., b] for b in range(A)) / A
        torch.testing.assert_close(q_NBA[..., a], value_NB1[..., 0] + advantage_NBA[..., a] - mean_NB)
    torch.testing.assert_close(q_NBA.mean(-1, keepdim=True), value_NB1)


def test_dueling_is_applied_to_each_output_of_an_action_separately(features: Tensor) -> None:
    head = DuelingHead(**GIVEN, outputs=K)
    value_NBK, advantage_NBAK = affine(head.value, features, K), affine(head.advantage, features, A, K)
    x_NBAK = head(features)
    assert x_NBAK.shape == (N, B, A, K)
    assert x_NBAK.is_contiguous()
    for a, k in product(range(A), range(K)):
        mean_NB = sum(advantage_NBAK[..., b, k] for b in range(A)) / A
        expected_NB = value_NBK[..., k] + advantage_NBAK[..., a, k] - mean_NB
        torch.testing.assert_close(x_NBAK[..., a, k], expected_NB)


def test_a_head_with_one_output_per_action_equals_the_plain_head(features: Tensor) -> None:
    for kind in (LinearHead, DuelingHead):
        one, many = kind(**GIVEN), kind(**GIVEN, outputs=1)
        many.load_state_dict(one.state_dict())
        torch.testing.assert_close(many(features).squeeze(-1), one(features))


@pytest.mark.parametrize("dueling", [False, True])
def test_the_categorical_head_predicts_logits_over_atoms_from_v_min_to_v_max(
    features: Tensor, dueling: bool
) -> None:
    head = CategoricalHead(**C51, dueling=dueling, **GIVEN)
    logit_NBAK = head(features)
    assert logit_NBAK.shape == (N, B, A, K)
    assert type(head.logits) is (DuelingHead if dueling else LinearHead)
    assert type(head.distribution) is Categorical
    weight_NBAK = logit_NBAK.exp() / logit_NBAK.exp().sum(-1, keepdim=True)
    mean_NBA = sum(weight_NBAK[..., k] * z for k, z in enumerate([-1, 0, 1, 2, 3]))
    torch.testing.assert_close(head.distribution.mean(logit_NBAK), mean_NBA)


@pytest.mark.parametrize("dueling", [False, True])
def test_the_quantile_head_predicts_returns_whose_mean_is_the_value(features: Tensor, dueling: bool) -> None:
    head = QuantileHead(quantiles=K, kappa=0.5, dueling=dueling, **GIVEN)
    return_NBAK = head(features)
    assert return_NBAK.shape == (N, B, A, K)
    assert type(head.returns) is (DuelingHead if dueling else LinearHead)
    assert type(head.distribution) is Quantile
    assert head.distribution.kappa == 0.5
    torch.testing.assert_close(head.distribution.mean(return_NBAK), return_NBAK.mean(-1))


@pytest.mark.parametrize("dueling", [False, True])
def test_the_rescaled_head_predicts_one_rescaled_value_per_action(features: Tensor, dueling: bool) -> None:
    head = RescaledHead(epsilon=0.5, dueling=dueling, **GIVEN)
    h_NBA1 = head(features)
    assert h_NBA1.shape == (N, B, A, 1)
    assert type(head.rescaled) is (DuelingHead if dueling else LinearHead)
    assert type(head.distribution) is Rescaled
    assert head.distribution.mean(h_NBA1).shape == (N, B, A)
    assert head.distribution.epsilon == 0.5


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("v_min", {"v_min": 3.0}),
        ("v_min", {"v_min": 4}),
        ("atoms", {"atoms": 1}),
        ("atoms", {"atoms": 2.5}),
        ("quantiles", {"quantiles": 0}),
        ("kappa", {"kappa": -1}),
    ],
)
def test_a_head_refuses_an_invalid_setting_by_name(field: str, settings: dict[str, Any]) -> None:
    quantile = {"quantiles": K, "kappa": 1.0}
    kind, good = (QuantileHead, quantile) if field in quantile else (CategoricalHead, C51)
    with pytest.raises(SettingError) as refusal:
        kind(**good | settings, dueling=False, **GIVEN)
    assert refusal.value.field == field


# --- in a Q-network ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 2])
def test_values_are_the_means_of_the_predicted_distributions(make_q_net, members: int) -> None:
    head = partial(CategoricalHead, **C51, dueling=True)
    q_net, x = make_q_net(head=head, members=members), torch.randn(B, 4)
    prediction = q_net.predict(x)
    assert prediction.shape == (members, B, A, K)
    assert q_net.distribution is q_net.head.distribution
    torch.testing.assert_close(q_net.values(x), q_net.distribution.mean(prediction))
    torch.testing.assert_close(q_net(observation=x), q_net.values(x)[0])


def test_a_head_without_a_distribution_predicts_the_values(make_q_net) -> None:
    q_net, x = make_q_net(), torch.randn(B, 4)
    assert q_net.predict(x).shape == (N, B, A)
    torch.testing.assert_close(q_net.values(x), q_net.predict(x))


def test_a_distribution_adds_nothing_to_the_parameters_and_the_state_dict(make_q_net) -> None:
    q_net = make_q_net(head=partial(CategoricalHead, **C51, dueling=False))
    names = {name for name, _ in q_net.named_parameters()}
    assert names == set(q_net.state_dict())
    assert not any("distribution" in name for name in names)
