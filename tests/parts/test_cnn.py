"""Encoders of images, against the same convolutions written out."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as nn_functional

from sqn_rl import (
    CNN,
    CategoricalHead,
    Dense,
    ImpalaCNN,
    LinearHead,
    MinAtarCNN,
    NatureCNN,
    QNet,
    SettingError,
    WiringError,
)

B = 3
layer = partial(Dense, members=1)
OTHERS: dict[type, dict[str, Any]] = {
    CNN: {"channels": [32, 64, 64], "kernels": [5, 3, 3], "strides": [2, 2, 2]},
    ImpalaCNN: {"width": 1},
}


def make(kind: type, shape: tuple[int, ...] = (4, 84, 84), **settings: Any) -> Any:
    torch.manual_seed(0)
    return kind(**{"hidden": [7]} | OTHERS.get(kind, {}) | settings, observation_shape=shape, layer=layer)


def make_bytes(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 256, (B, *shape), dtype=torch.uint8)


def conv(x: Tensor, parameters: list[Tensor], **how: int) -> Tensor:
    weight, bias = parameters.pop(0), parameters.pop(0)
    return nn_functional.conv2d(x, weight.contiguous(), bias, **how)


@pytest.mark.parametrize("shape", [(4, 84, 84), (1, 36, 52)], ids=str)
def test_nature_is_the_papers_three_convolutions(shape: tuple[int, ...]) -> None:
    encoder, image = make(NatureCNN, shape), make_bytes(shape)
    parameters = [*encoder.convolutions.parameters()]
    assert [list(weight.shape[::2]) for weight in parameters[::2]] == [[32, 8], [64, 4], [64, 3]]
    x = image.float() / 255
    for stride in (4, 2, 1):
        x = conv(x, parameters, stride=stride).relu()
    (dense,) = encoder.layers.layers
    expected = (x.flatten(1) @ dense.weight[0] + dense.bias[0]).relu()
    assert encoder(image).shape == (1, B, 7)
    torch.testing.assert_close(encoder(image)[0], expected)


def test_nature_cnn_for_stacked_atari_frames_has_the_papers_parameter_count() -> None:
    encoder = make(NatureCNN, hidden=[512])
    convolutions = 32 * (4 * 64 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 9 + 1)
    assert sum(x.numel() for x in encoder.parameters()) == convolutions + 512 * (64 * 7 * 7 + 1)
    assert encoder.out_features == 512


@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 8, 13)], ids=str)
def test_impala_is_the_papers_residual_network(shape: tuple[int, ...]) -> None:
    encoder, image = make(ImpalaCNN, shape, width=2), make_bytes(shape)
    parameters = [*encoder.convolutions.parameters()]
    x = image.float() / 255
    for channels in (32, 64, 64):
        x = nn_functional.max_pool2d(conv(x, parameters, padding=1), 3, stride=2, padding=1)
        assert x.shape[1] == channels
        for _ in range(2):
            inner = conv(x.relu(), parameters, padding=1)
            x = x + conv(inner.relu(), parameters, padding=1)
    assert parameters == []
    (dense,) = encoder.layers.layers
    expected = (x.relu().flatten(1) @ dense.weight[0] + dense.bias[0]).relu()
    torch.testing.assert_close(encoder(image)[0], expected, rtol=1e-4, atol=1e-6)


def test_impala_cnn_halves_stacked_atari_frames_three_times() -> None:
    encoder = make(ImpalaCNN, hidden=[])
    assert encoder.out_features == 32 * 11 * 11
    assert encoder(make_bytes((4, 84, 84))).shape == (B, 32 * 11 * 11)


@pytest.mark.parametrize("shape", [(4, 10, 10), (10, 3, 12)], ids=str)
def test_minatar_is_the_papers_one_convolution(shape: tuple[int, ...]) -> None:
    encoder, cells = make(MinAtarCNN, shape), torch.rand(B, *shape) < 0.3
    channels, height, width = shape
    plain = nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * (height - 2) * (width - 2), 7),
        nn.ReLU(),
    )
    (dense,) = encoder.layers.layers
    plain[0].load_state_dict(encoder.convolutions[0].state_dict())
    plain[3].load_state_dict({"weight": dense.weight[0].mT, "bias": dense.bias.flatten()})
    torch.testing.assert_close(encoder(cells)[0], plain(cells.float()))


def test_minatar_cnn_for_breakout_has_the_papers_parameter_count() -> None:
    encoder = make(MinAtarCNN, (4, 10, 10), hidden=[128])
    assert sum(x.numel() for x in encoder.parameters()) == 16 * (4 * 9 + 1) + 128 * (16 * 8 * 8 + 1)
    assert encoder.out_features == 128


def test_cnn_has_the_configured_channels_kernels_and_strides() -> None:
    settings = {"channels": [5, 6], "kernels": [4, 2], "strides": [3, 1]}
    encoder, image = make(CNN, (3, 10, 16), **settings), make_bytes((3, 10, 16))
    parameters = [*encoder.convolutions.parameters()]
    assert [list(weight.shape) for weight in parameters[::2]] == [[5, 3, 4, 4], [6, 5, 2, 2]]
    x = conv(conv(image / 255, parameters, stride=3).relu(), parameters, stride=1).relu()
    assert x.shape == (B, 6, 2, 4)  # (10 − 4)//3 + 1 = 3, less 1; (16 − 4)//3 + 1 = 5, less 1
    (dense,) = encoder.layers.layers
    torch.testing.assert_close(encoder(image)[0], (x.flatten(1) @ dense.weight[0] + dense.bias[0]).relu())


KINDS = pytest.mark.parametrize("kind", [NatureCNN, ImpalaCNN, MinAtarCNN, CNN])


@KINDS
def test_byte_images_are_divided_by_255_and_other_dtypes_are_not(kind: type) -> None:
    encoder, image = make(kind, (1, 36, 36)), make_bytes((1, 36, 36))
    before, as_floats = image.clone(), image.float()
    torch.testing.assert_close(encoder(image), encoder(as_floats / 255))
    assert torch.equal(encoder(image > 99), encoder((image > 99).float()))
    assert not torch.allclose(encoder(image), encoder(as_floats))
    assert torch.equal(image, before)
    assert torch.equal(as_floats, before.float())


@KINDS
def test_stacked_images_are_read_as_one_image_with_all_channels(kind: type) -> None:
    stacked, joined = make(kind, (2, 3, 36, 36)), make(kind, (6, 36, 36))
    images = make_bytes((2, 3, 36, 36))
    assert torch.equal(stacked(images), joined(images.flatten(1, 2)))
    assert torch.equal(stacked(stacked.prepare(images)), stacked(images))


@KINDS
def test_an_encoder_without_hidden_layers_outputs_its_flattened_feature_maps(kind: type) -> None:
    encoder, image = make(kind, (1, 36, 36), hidden=[]), make_bytes((1, 36, 36))
    features = encoder(image)
    assert features.shape == (B, encoder.out_features)
    assert features.min() == 0
    torch.testing.assert_close(features, encoder.convolutions(image / 255).flatten(1))


@KINDS
@pytest.mark.parametrize("shape", [(4,), (84, 84), (84, 84, 2), (4, 2, 84), (2, 2, 4, 84, 84)], ids=str)
def test_an_invalid_image_shape_is_refused_with_what_is_expected(kind: type, shape: tuple[int, ...]) -> None:
    least = {NatureCNN: "36x36", ImpalaCNN: "8x8", MinAtarCNN: "3x3", CNN: "17x17"}[kind]
    with pytest.raises(WiringError) as refusal:
        make(kind, shape)
    assert refusal.value.consumer == "encoder"
    row_of_numbers = "; encoder=per_key reads images inside a Dict or Tuple" if len(shape) == 1 else ""
    assert str(refusal.value) == (
        f"encoder: {kind.__name__} reads images [C, H, W] of at least {least}, such as env=atari, "
        f"or env=gym where they are bytes from 0 to 255; observations here are {list(shape)}{row_of_numbers}"
    )


@pytest.mark.parametrize(
    ("kind", "side", "features"),
    [(NatureCNN, 36, 64), (ImpalaCNN, 8, 32), (MinAtarCNN, 3, 16), (CNN, 17, 64)],
)
def test_the_smallest_allowed_image_is_accepted_and_a_smaller_one_is_refused(
    kind: type, side: int, features: int
) -> None:
    assert make(kind, (1, side, side), hidden=[]).out_features == features
    with pytest.raises(WiringError, match=f"at least {side}x{side}"):
        make(kind, (1, side, side - 1))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (NatureCNN, {"hidden": [0]}),
        (MinAtarCNN, {"hidden": [-1]}),
        (ImpalaCNN, {"hidden": ["7"]}),
        (ImpalaCNN, {"width": 0}),
        (CNN, {"hidden": [0]}),
        (CNN, {"channels": []}),
        (CNN, {"kernels": [5, 3]}),
        (CNN, {"strides": [2, 0, 2]}),
    ],
)
def test_an_invalid_layer_setting_is_refused_by_its_name(kind: type, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError) as refusal:
        make(kind, **settings)
    assert [refusal.value.field] == [*settings]


@KINDS
@pytest.mark.parametrize("shared", [False, True])
def test_every_cnn_works_with_a_dueling_categorical_head(make_q_net, kind: type, shared: bool) -> None:
    head = partial(CategoricalHead, v_min=-1, v_max=1, atoms=5, dueling=True)
    shape, encoder = (4, 36, 36), partial(kind, hidden=[7], **OTHERS.get(kind, {}))
    sizes = {"observation_shape": shape, "observation_dtype": torch.uint8}
    q_net = make_q_net(encoder=encoder, head=head, shared_encoder=shared, **sizes)
    assert q_net.predict(make_bytes(shape)).shape == (2, B, 3, 5)
    assert len(q_net.encoder.parts) == (1 if shared else 2)


@KINDS
@pytest.mark.parametrize("shared", [False, True])
def test_in_bfloat16_values_are_close_and_weights_and_gradients_stay_float32(
    kind: type, shared: bool
) -> None:
    nets = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        encoder = partial(kind, hidden=[32], **OTHERS.get(kind, {}))
        sizes = {"observation_shape": (4, 36, 36), "n_actions": 3, "members": 2, "shared_encoder": shared}
        sizes["observation_dtype"] = torch.uint8
        nets.append(QNet(encoder=encoder, head=LinearHead, layer=Dense, precision=precision, **sizes))
    image = make_bytes((4, 36, 36))
    exact, rounded = (net.values(image) for net in nets)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=2**-6 * exact.abs().max().item())
    rounded.square().sum().backward()
    assert all(each.grad.dtype == each.dtype == torch.float32 for each in nets[1].parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_minatars_convolution_is_the_same_when_compiled() -> None:
    """The captured graph is run without compiling it; it contains no convolution."""
    encoder, image = make(MinAtarCNN, (4, 10, 9)), torch.rand(B, 4, 10, 9) < 0.3
    names = list[str]()

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(encoder, backend=backend, fullgraph=True)
    weight = torch.randn(1, B, 7)
    results = []
    for compute in (encoder, compiled):
        encoder.zero_grad()
        output = compute(image)
        (weight * output).sum().backward()
        results.append([output, *(each.grad.clone() for each in encoder.parameters())])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    assert "unfold" in names
    assert not [name for name in names if "conv" in name and "modules" not in name]
