"""The noisy layer against explicit weight matrices, W = μ + σ ⊙ f(ε_in) f(ε_out)ᵀ, one network at a time."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sqn_rl.parts.encoder.mlp import MLP
from sqn_rl.parts.head.linear import LinearHead
from sqn_rl.parts.layers.noisy import NoisyDense
from sqn_rl.parts.noise import Noise, acting_view, signed_root
from sqn_rl.parts.q_net.q_net import QNet

N, B, IN, OUT = 2, 5, 3, 4


def make_layer(members: int = N) -> NoisyDense:
    """A layer with unequal σ, as after some learning."""
    torch.manual_seed(0)
    layer = NoisyDense(IN, OUT, members=members, sigma=0.5)
    for parameter in layer.sigma.parameters():
        nn.init.uniform_(parameter, 0.1, 1)
    return layer


def explicit(layer: NoisyDense, x_BF: Tensor, noise: Tensor, n: int) -> Tensor:
    """The output of network n, by eq. 9 to 11 as printed."""
    in_F, out_G = noise.reshape(N, IN + OUT)[n].split([IN, OUT])
    weight_FG = layer.mu.weight[n] + layer.sigma.weight[n] * torch.outer(in_F, out_G)
    bias_G = layer.mu.bias[n, 0] + layer.sigma.bias[n, 0] * out_G
    return torch.einsum("bf,fg->bg", x_BF, weight_FG) + bias_G


@pytest.mark.parametrize("shape", [(B, IN), (1, B, IN), (N, B, IN)], ids=str)
def test_the_output_is_that_of_explicit_noisy_weights(shape: tuple[int, ...]) -> None:
    layer, x, noise = make_layer(), torch.randn(shape), torch.randn(N * (IN + OUT))
    layer.set_noise(noise)
    y_NBG = layer(x)
    assert y_NBG.shape == (N, B, OUT)
    for n, x_BF in enumerate(x.expand(N, B, IN)):
        torch.testing.assert_close(y_NBG[n], explicit(layer, x_BF, noise, n))


def test_mu_and_sigma_get_the_gradient_of_the_explicit_form() -> None:
    layer, x, noise = make_layer(), torch.randn(N, B, IN), torch.randn(N * (IN + OUT))
    layer.set_noise(noise)
    parameters = dict(layer.named_parameters())
    loss = layer(x).pow(3).sum()
    by_hand = sum(explicit(layer, x[n], noise, n).pow(3).sum() for n in range(N))
    for given, expected in zip(
        torch.autograd.grad(loss, parameters.values()),
        torch.autograd.grad(by_hand, parameters.values()),
        strict=True,
    ):
        assert expected.abs().min() > 0
        torch.testing.assert_close(given, expected)


def test_f_is_the_signed_root() -> None:
    x = torch.tensor([-4.0, -0.25, 0.0, 1.0, 9.0])
    assert signed_root(x).tolist() == [-2, -0.5, 0, 1, 3]
    assert x.tolist() == [-4, -0.25, 0, 1, 9]


def test_noise_is_f_of_a_standard_normal_drawn_once_for_all_layers() -> None:
    """E f² = E|ε| = √(2/π), E f⁴ = E ε² = 1, and E f = 0: each within four standard errors."""
    seen: list[Tensor] = []
    layers = nn.ModuleList(NoisyDense(100, 400, members=N, sigma=0.5) for _ in range(20))
    for layer in layers:
        layer.set_noise = seen.append
    Noise(layers).sample(torch.Generator().manual_seed(1))
    noise = torch.cat(seen)
    drawn = torch.randn(len(noise), generator=torch.Generator().manual_seed(1)).numpy()
    np.testing.assert_allclose(noise.numpy(), np.sign(drawn) * np.sqrt(np.abs(drawn)), rtol=1e-12)
    assert len(noise) == 20 * N * 500
    for power, moment in ((1, 0), (2, np.sqrt(2 / np.pi)), (3, 0), (4, 1)):
        error = noise.pow(power).std() / np.sqrt(len(noise))
        assert abs(noise.pow(power).mean() - moment) < 4 * error, power


def test_every_sigma_begins_as_sigma_0_over_the_root_of_the_inputs() -> None:
    layer = NoisyDense(16, 3, members=N, sigma=0.5)
    assert {x for parameter in layer.sigma.parameters() for x in parameter.flatten().tolist()} == {0.125}
    for mu in layer.mu.parameters():
        assert mu.abs().max() <= 0.25
        assert mu.std() > 0.1  # 1/4/√3 = 0.144


# --- networks ----------------------------------------------------------------------------------------------


def make_net(shared_encoder: bool = False) -> QNet:
    return QNet(
        encoder=partial(MLP, hidden=[6]),
        head=LinearHead,
        layer=partial(NoisyDense, sigma=0.5),
        observation_shape=(IN,),
        n_actions=OUT,
        members=N,
        shared_encoder=shared_encoder,
    )


X = np.linspace(-1, 1, B * IN).reshape(B, IN)


def values(net: QNet) -> Tensor:
    return net.values(torch.tensor(X)).detach()


def test_without_noise_a_network_uses_its_mean_weights() -> None:
    net = make_net()
    features_NBF = torch.relu(
        torch.tensor(X) @ net.encoder.layers[0].mu.weight + net.encoder.layers[0].mu.bias
    )
    mean_NBA = (features_NBF @ net.head.q.mu.weight + net.head.q.mu.bias).detach()
    torch.testing.assert_close(values(net), mean_NBA)
    noise = Noise(net)
    noise.sample()
    assert (values(net) - mean_NBA).abs().min() > 0
    for layer in noise.layers:
        layer.set_noise(None)
    torch.testing.assert_close(values(net), mean_NBA)


def test_networks_with_equal_parameters_differ_only_by_their_noise() -> None:
    layer = make_layer()
    for parameter in layer.parameters():
        parameter.data[1] = parameter.data[0]
    x = torch.randn(B, IN)
    assert torch.equal(layer(x)[0], layer(x)[1])
    Noise(layer).sample()
    assert (layer(x)[0] - layer(x)[1]).abs().min() > 0


@pytest.mark.parametrize("shared_encoder", [False, True])
def test_an_acting_view_shares_the_parameters_but_not_the_noise(shared_encoder: bool) -> None:
    net = make_net(shared_encoder)
    mean_NBA, noise = values(net), Noise(net)
    noise.sample()
    noisy_NBA, view = values(net), acting_view(net)
    assert [*map(id, view.parameters())] == [*map(id, net.parameters())]
    torch.testing.assert_close(values(view), mean_NBA)  # the view has not sampled any noise yet
    noise.sample()
    torch.testing.assert_close(values(view), mean_NBA)
    assert (values(net) - noisy_NBA).abs().min() > 0

    before_NBA = values(net)
    Noise(view).sample()
    assert (values(view) - mean_NBA).abs().min() > 0
    assert torch.equal(values(net), before_NBA)
    with torch.no_grad():
        net.head.q.mu.bias.add_(1)
    torch.testing.assert_close(values(net), before_NBA + 1)
    torch.testing.assert_close(view.head.q.mu.bias, net.head.q.mu.bias, rtol=0, atol=0)


def test_a_copy_starts_with_the_same_noise_and_redraws_independently() -> None:
    net = make_net()
    Noise(net).sample()
    copy, before_NBA = deepcopy(net), values(net)
    assert torch.equal(values(copy), before_NBA)
    Noise(copy).sample()
    assert torch.equal(values(net), before_NBA)
    assert (values(copy) - before_NBA).abs().min() > 0


def test_the_generator_determines_the_noise_and_the_state_dict_has_none() -> None:
    net = make_net()
    noise, names = Noise(net), set(net.state_dict())
    drawn = []
    for seed in (0, 0, 1):
        noise.sample(torch.Generator().manual_seed(seed))
        drawn.append(values(net))
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0] - drawn[2]).abs().min() > 0
    assert set(net.state_dict()) == names == set(dict(net.named_parameters()))
