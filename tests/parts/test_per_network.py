"""Parts written for one network in plain PyTorch: each network of a QNet has its own copy."""

import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sqn_rl import (
    MLP,
    CategoricalHead,
    Dense,
    DuelingHead,
    NatureCNN,
    NoisyDense,
    QNet,
    QuantileHead,
    RescaledHead,
    WiringError,
)
from sqn_rl.parts.distributions import Categorical
from sqn_rl.parts.noise import Noise

B, A, N = 50, 3, 2
IMAGE = (1, 36, 36)


class PlainEncoder(nn.Module):
    """An encoder as a user writes it who does not know of ``layer``."""

    def __init__(self, *, observation_shape: tuple[int, ...], layer: object) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(observation_shape[0], 5), nn.LayerNorm(5), nn.Tanh())
        self.out_features = 5

    def forward(self, observation: Tensor) -> Tensor:
        return self.net(observation)


class PlainHead(nn.Module):
    def __init__(self, *, in_features: int, n_actions: int, layer: object) -> None:
        super().__init__()
        self.q = nn.Linear(in_features, n_actions)

    def forward(self, features: Tensor) -> Tensor:
        return self.q(features)


class MixedHead(nn.Module):
    """A head with a ``layer``, so that its output is ``[1, B, A]``, and a parameter besides."""

    def __init__(self, *, in_features: int, n_actions: int, layer: Callable) -> None:
        super().__init__()
        self.q, self.scale = layer(in_features, n_actions), nn.Parameter(torch.rand(n_actions))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * self.q(features)


noisy = partial(NoisyDense, sigma=0.5)
c51 = {"v_min": -1, "v_max": 1, "atoms": 7}
KINDS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "dueling": {"head": DuelingHead},
    "noisy": {"layer": noisy, "head": DuelingHead},
    "categorical": {"head": partial(CategoricalHead, dueling=False, **c51)},
    "dueling categorical": {"head": partial(CategoricalHead, dueling=True, **c51)},
    "quantile": {"head": partial(QuantileHead, quantiles=4, kappa=1.0, dueling=True)},
    "rescaled": {"head": partial(RescaledHead, epsilon=0.001, dueling=True)},
    "nature_cnn": {"encoder": partial(NatureCNN, hidden=[8]), "observation_shape": IMAGE},
    "rainbow": {
        "encoder": partial(NatureCNN, hidden=[8]),
        "observation_shape": IMAGE,
        "layer": noisy,
        "head": partial(CategoricalHead, dueling=True, **c51),
    },
    "plain encoder": {"encoder": PlainEncoder},
    "plain head": {"head": PlainHead},
    "plain both": {"encoder": PlainEncoder, "head": PlainHead},
    "mixed head": {"head": MixedHead},
    "plain under no hidden layer": {"hidden": (), "head": PlainHead},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    torch.manual_seed(0)
    return request.param


def make_observation(q_net: QNet) -> Tensor:
    return torch.randn(B, *q_net.observation_shape)


def gradients(q_net: QNet, n: int) -> dict[str, Tensor]:
    """The gradients of a loss of network n alone."""
    q_net.zero_grad()
    q_net.predict(make_observation(q_net))[n].square().sum().backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in q_net.named_parameters()
    }


@pytest.mark.parametrize("shared", [False, True], ids=["twin", "twin_shared"])
def test_no_parameter_gets_gradients_from_two_networks_unless_the_encoder_is_shared(
    make_q_net, kind: dict[str, Any], shared: bool
) -> None:
    q_net = make_q_net(shared_encoder=shared, **kind)
    Noise(q_net).sample()
    first, second = gradients(q_net, 0), gradients(q_net, 1)
    for name in first:
        moves = [gradient[name] != 0 for gradient in (first, second)]
        if shared and name.startswith("encoder"):
            assert (moves[0] & moves[1]).any(), name
        else:
            assert not (moves[0] & moves[1]).any(), name
            assert moves[0].sum() + moves[1].sum() > 0, name


@pytest.mark.parametrize("shared", [False, True], ids=["twin", "twin_shared"])
def test_each_network_draws_its_own_parameters(make_q_net, kind: dict[str, Any], shared: bool) -> None:
    q_net = make_q_net(shared_encoder=shared, **kind)
    prediction = q_net.predict(make_observation(q_net))
    assert prediction.shape[:3] == (N, B, A)
    assert not torch.isclose(prediction[0], prediction[1]).all()
    assert q_net.values(make_observation(q_net)).shape == (N, B, A)
    pointers = [parameter.data_ptr() for parameter in q_net.parameters()]
    assert len(pointers) == len({*pointers})


@pytest.mark.parametrize("shared", [False, True], ids=["twin", "twin_shared"])
def test_first_equals_the_first_of_all_values(make_q_net, kind: dict[str, Any], shared: bool) -> None:
    q_net = make_q_net(shared_encoder=shared, **kind)
    Noise(q_net).sample()
    observation = make_observation(q_net)
    assert torch.equal(q_net.first(observation), q_net.values(observation)[0])


def test_first_does_not_call_the_encoders_of_the_other_networks(make_q_net) -> None:
    q_net, called = make_q_net(encoder=PlainEncoder), []
    for n, part in enumerate(q_net.encoder.parts):
        part.register_forward_hook(lambda *_, n=n: called.append(n))
    q_net.first(torch.randn(B, 4))
    assert called == [0]


def test_a_deep_copy_shares_no_parameters_with_the_original(make_q_net, kind: dict[str, Any]) -> None:
    q_net = make_q_net(**kind)
    copy, observation = deepcopy(q_net), make_observation(q_net)
    before = copy.values(observation)
    torch.testing.assert_close(q_net.values(observation), before, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in q_net.parameters():
            parameter.add_(1)
    torch.testing.assert_close(copy.values(observation), before, rtol=0, atol=0)


@pytest.mark.parametrize(("members", "shared"), [(1, False), (2, False), (2, True), (3, True)])
def test_network_n_applies_head_n_to_the_features_of_its_encoder(
    make_q_net, members: int, shared: bool
) -> None:
    q_net = make_q_net(encoder=PlainEncoder, head=PlainHead, members=members, shared_encoder=shared)
    x, encoders, heads = torch.randn(B, 4), q_net.encoder.parts, q_net.head.parts
    q_NBA = q_net.values(x)
    assert (len(q_NBA), len(encoders), len(heads)) == (members, 1 if shared else members, members)
    for n in range(members):
        torch.testing.assert_close(q_NBA[n], heads[n](encoders[0 if shared else n](x)))


def test_a_plain_head_equals_a_head_made_of_layer_with_the_same_weights(make_q_net) -> None:
    """The weights are the same, in one module for all networks and in one for each."""
    batched, plain = make_q_net(), make_q_net(head=PlainHead)
    plain.encoder.load_state_dict(batched.encoder.state_dict())
    for n, part in enumerate(plain.head.parts):
        part.q.weight.data = batched.head.q.weight[n].T.detach().clone()
        part.q.bias.data = batched.head.q.bias[n, 0].detach().clone()
    x = torch.randn(B, 4)
    torch.testing.assert_close(plain.values(x), batched.values(x))


def test_a_plain_head_may_be_distributional(make_q_net) -> None:
    class Plain(PlainHead):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given | {"n_actions": 7 * given["n_actions"]})
            self.distribution = Categorical(**c51)

        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features).unflatten(-1, (-1, 7))

    assert make_q_net(head=Plain).predict(torch.randn(B, 4)).shape == (N, B, A, 7)


# --- what cannot work --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slot", "part", "answer", "expected"),
    [
        ("head", PlainHead, lambda x: x[:, 0], "[50] for one network; expected [50, A]"),
        ("head", PlainHead, lambda x: x[1:], "[49, 3] for one network; expected [50, A]"),
        ("head", PlainHead, lambda x: x.unsqueeze(-1), "[50, 3, 1] for one network; expected [50, A]"),
        ("head", PlainHead, lambda x: x.expand(2, -1, -1), "[2, 50, 3] for one network; expected [50, A]"),
        ("encoder", PlainEncoder, lambda x: x[:, :4], "[50, 4] for one network; expected [50, 5]"),
        ("encoder", PlainEncoder, lambda x: x[1:], "[49, 5] for one network; expected [50, 5]"),
        ("encoder", PlainEncoder, lambda x: x[..., None], "[50, 5, 1] for one network; expected [50, 5]"),
    ],
)
def test_a_part_with_an_output_of_the_wrong_shape_is_refused(
    make_q_net, slot, part, answer, expected: str
) -> None:
    class Odd(part):
        def forward(self, x: Tensor) -> Tensor:
            return answer(super().forward(x))

    with pytest.raises(WiringError, match=re.escape(f"Odd gives {expected}")):
        make_q_net(**{slot: Odd}).values(torch.randn(B, 4))


def test_an_encoder_without_out_features_is_refused(make_q_net) -> None:
    class Mute(PlainEncoder):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            del self.out_features

    with pytest.raises(WiringError, match="Mute has no `out_features`") as refusal:
        make_q_net(encoder=Mute)
    assert refusal.value.consumer == "encoder"


@pytest.mark.parametrize("slot", ["encoder", "head"])
def test_a_factory_that_returns_one_module_for_every_network_is_refused(make_q_net, slot: str) -> None:
    made = {
        "encoder": PlainEncoder(observation_shape=(4,), layer=Dense),
        "head": PlainHead(in_features=5, n_actions=A, layer=Dense),
    }[slot]
    with pytest.raises(WiringError, match="would share the parameters of one Plain"):
        make_q_net(**{slot: lambda **_: made})
    assert make_q_net(**{slot: lambda **_: made}, members=1).values(torch.randn(B, 4)).shape == (1, B, A)


def test_parts_made_of_layer_are_not_split_by_network(make_q_net) -> None:
    """For speed: a part made of ``layer`` alone is called once, not once for each network."""
    q_net = make_q_net(encoder=partial(MLP, hidden=[5]), head=DuelingHead, layer=noisy)
    assert (type(q_net.encoder), type(q_net.head)) == (MLP, DuelingHead)
