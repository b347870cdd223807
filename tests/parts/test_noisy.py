"""Noise in modules: which layers receive it, what a redraw changes, and networks without noisy layers."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sqn_rl import Dense, NatureCNN, NoisyDense, SettingError
from sqn_rl.parts.noise import Noise, acting_view

NOISY = partial(NoisyDense, sigma=0.5)


def test_a_network_without_noisy_layers_draws_no_noise(make_q_net) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = Noise(make_q_net())
    before, outside = generator.get_state(), torch.get_rng_state()
    noise.sample(generator)
    noise.sample()
    assert noise.layers == []
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), outside)


def test_the_noise_of_a_network_covers_all_its_noisy_layers(make_q_net) -> None:
    noise = Noise(make_q_net(layer=NOISY, hidden=(5, 7)))
    assert [layer.noise_size for layer in noise.layers] == [2 * (4 + 5), 2 * (5 + 7), 2 * (7 + 3)]


@pytest.mark.parametrize("members", [1, 2])
def test_noise_reaches_noisy_layers_in_plain_encoders_but_not_the_acting_view(
    make_q_net, members: int
) -> None:
    encoder, shape = partial(NatureCNN, hidden=[7]), (1, 36, 36)
    images = {"observation_shape": shape, "observation_dtype": torch.uint8}
    q_net = make_q_net(encoder=encoder, layer=NOISY, members=members, **images)
    assert len(Noise(q_net).layers) == members + 1
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    mean_NBA, view = q_net.values(image), acting_view(q_net)
    Noise(q_net).sample()
    assert (q_net.values(image) != mean_NBA).all()
    assert torch.equal(view.values(image), mean_NBA)


def test_any_module_with_set_noise_receives_noise() -> None:
    class CustomNoisy(nn.Linear):
        noise_size = 3
        noise: Tensor | None = None

        def set_noise(self, noise: Tensor | None) -> None:
            self.noise = noise

    custom, module = CustomNoisy(1, 1), nn.Sequential(nn.Linear(1, 1), NOISY(2, 2, members=1))
    module.append(custom)
    Noise(module).sample()
    assert custom.noise is not None
    assert custom.noise.shape == (3,)
    assert acting_view(module)[2].noise is None


def test_noise_is_drawn_in_the_precision_of_the_network() -> None:
    layer = NOISY(4, 3, members=2).double()
    Noise(layer).sample()
    assert layer(torch.randn(5, 4, dtype=torch.float64)).dtype == torch.float64


def test_a_noise_may_be_redrawn_between_forward_and_backward() -> None:
    """As when the next action is chosen with other noise than the loss."""
    layer, x = NOISY(4, 3, members=2), torch.randn(5, 4)
    noise = Noise(layer)
    noise.sample(torch.Generator().manual_seed(0))
    expected = torch.autograd.grad(layer(x).square().sum(), [*layer.parameters()])
    loss = layer(x).square().sum()
    noise.sample()
    for given, wanted in zip(torch.autograd.grad(loss, [*layer.parameters()]), expected, strict=True):
        torch.testing.assert_close(given, wanted)


def test_an_acting_view_follows_loaded_and_learned_parameters(make_q_net) -> None:
    q_net, other, x = make_q_net(layer=NOISY), make_q_net(layer=NOISY), torch.randn(5, 4)
    view = acting_view(q_net)
    q_net.load_state_dict(other.state_dict())
    assert torch.equal(view.values(x), other.values(x))
    optimizer = torch.optim.SGD(q_net.parameters(), lr=0.1)
    q_net.values(x).sum().backward()
    optimizer.step()
    assert torch.equal(view.values(x), q_net.values(x))
    assert not torch.equal(view.values(x), other.values(x))


def test_an_acting_view_shares_running_statistics() -> None:
    norm = nn.BatchNorm1d(2)
    view = acting_view(norm)
    norm(torch.randn(8, 2) + 3)
    assert torch.equal(view.running_mean, norm.running_mean)
    assert view.running_mean.abs().min() > 0


def test_a_noisy_layer_without_noise_equals_a_dense_layer() -> None:
    noisy, dense, x = NOISY(4, 3, members=2), Dense(4, 3, members=2), torch.randn(5, 4)
    dense.load_state_dict(noisy.mu.state_dict())
    assert torch.equal(noisy(x), dense(x))


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_an_invalid_sigma_is_refused(sigma: float) -> None:
    with pytest.raises(SettingError, match="sigma"):
        NoisyDense(4, 3, members=2, sigma=sigma)
