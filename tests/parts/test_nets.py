"""Networks: each member equals modules of torch.nn with its parameters, and depends on no other member."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from sqn_rl import MLP, Dense, DuelingHead, SettingError

B, IN, OUT, N = 6, 4, 3, 2


# --- Dense -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "shape"),
    [(N, (B, IN)), (N, (1, B, IN)), (N, (N, B, IN)), (1, (B, IN)), (1, (1, IN)), (1, (1, B, IN))],
    ids=str,
)
def test_each_member_of_dense_equals_a_linear_layer_of_torch(members: int, shape: tuple[int, ...]) -> None:
    dense, x = Dense(IN, OUT, members=members), torch.randn(shape)
    y_NBA = dense(x)
    assert y_NBA.shape == (members, shape[-2], OUT)
    for n, x_BF in enumerate(x.expand(members, shape[-2], IN)):
        linear = nn.functional.linear(x_BF, dense.weight[n].T, dense.bias[n, 0])
        torch.testing.assert_close(y_NBA[n], linear)


def test_dense_initialises_like_linear_with_different_weights_per_member() -> None:
    dense, bound = Dense(400, 300, members=N), 1 / math.sqrt(400)
    for parameter in (dense.weight, dense.bias):
        assert parameter.abs().max() <= bound
        assert not torch.equal(parameter[0], parameter[1])
    linear = nn.Linear(400, 300)
    torch.testing.assert_close(dense.weight.std(), linear.weight.std(), rtol=0.01, atol=0)  # bound / √3
    assert dense.weight.mean().abs() < 1e-3


# --- MLP ---------------------------------------------------------------------------------------------------


def layer(in_features: int, out_features: int) -> Dense:
    return Dense(in_features, out_features, members=1)


def test_mlp_scales_bytes_exactly() -> None:
    mlp = MLP(hidden=[], observation_shape=(4,), layer=layer)
    ram = torch.tensor([[0, 127, 128, 255]], dtype=torch.uint8)
    assert mlp(ram).tolist() == [[-1, -1 / 128, 0, 127 / 128]]  # (x - 128) / 128: every value a float32


def test_mlp_flattens_floats_without_scaling_them() -> None:
    mlp = MLP(hidden=[], observation_shape=(2, 3), layer=layer)
    x = torch.randn(5, 2, 3)
    assert mlp.out_features == 6
    assert torch.equal(mlp(x), x.flatten(1))


def test_mlp_applies_relu_after_every_linear_layer() -> None:
    mlp, x_BF = MLP(hidden=[5, 2], observation_shape=(IN,), layer=layer), torch.randn(B, IN)
    expected = x_BF
    for dense in mlp.layers:
        expected = torch.relu(expected @ dense.weight[0] + dense.bias[0])
    torch.testing.assert_close(mlp(x_BF)[0], expected)
    assert mlp.out_features == 2


@pytest.mark.parametrize("hidden", [[0], [64, -1], [64.0], ["64"]], ids=str)
def test_mlp_refuses_an_invalid_width(hidden: list) -> None:
    with pytest.raises(SettingError, match="hidden"):
        MLP(hidden=hidden, observation_shape=(IN,), layer=layer)


# --- QNet --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [[], [3], [2, 5]], ids=str)
@pytest.mark.parametrize("observation_shape", [(4,), (2, 3)], ids=str)
def test_q_net_writes_q1_for_any_leading_dimensions(make_q_net, lead, observation_shape) -> None:
    q_net = make_q_net(observation_shape=observation_shape)
    observation = torch.randn(*lead, *observation_shape)
    out = q_net(TensorDict({"observation": observation}, batch_size=lead))
    q1 = q_net.values(observation.reshape(-1, *observation_shape))[0]
    assert (q_net.in_keys, q_net.out_keys) == (["observation"], ["action_value"])
    torch.testing.assert_close(out["action_value"], q1.reshape(*lead, 3))


def test_q_net_accepts_keyword_arguments_and_another_input_key(make_q_net) -> None:
    q_net, ram = make_q_net(in_keys=["ram"]), torch.randn(B, 4)
    torch.testing.assert_close(q_net(ram=ram), q_net.values(ram)[0])


@pytest.mark.parametrize("head", ["linear", "dueling"])
@pytest.mark.parametrize("shared", [False, True], ids=["twin", "twin_shared"])
def test_twins_share_the_encoder_or_no_parameters(make_q_net, head: str, shared: bool) -> None:
    heads = {"dueling": {"head": DuelingHead}, "linear": {}}[head]
    q_net = make_q_net(shared_encoder=shared, **heads)
    parameters = dict(q_net.named_parameters())
    for member in range(N):
        q_net.zero_grad()
        q_net.values(torch.randn(50, 4))[member].square().sum().backward()
        for name, parameter in parameters.items():
            assert parameter.shape[0] == (1 if shared and name.startswith("encoder") else N)
            reached = [grad.abs().sum() > 0 for grad in parameter.grad]
            assert reached == ([True] if len(reached) == 1 else [n == member for n in range(N)]), name


def test_twins_start_with_different_values_and_a_single_network_is_one_member(make_q_net) -> None:
    x = torch.randn(B, 4)
    q_NBA = make_q_net().values(x)
    assert q_NBA.shape == (2, B, 3)
    assert not torch.allclose(q_NBA[0], q_NBA[1])
    assert make_q_net(members=1).values(x).shape == (1, B, 3)


@pytest.mark.parametrize("shared", [False, True])
def test_without_hidden_layers_the_head_receives_the_observation(make_q_net, shared: bool) -> None:
    q_net, x = make_q_net(hidden=(), shared_encoder=shared), torch.randn(B, 4)
    torch.testing.assert_close(q_net.values(x)[1], x @ q_net.head.q.weight[1] + q_net.head.q.bias[1])


@pytest.mark.parametrize("members", [0, -1, 1.5], ids=str)
def test_q_net_refuses_an_invalid_number_of_members(make_q_net, members: float) -> None:
    with pytest.raises(SettingError, match="members"):
        make_q_net(members=members)
