"""Shared by the image encoders: checks, scaling and memory format."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sqn_rl.errors import WiringError
from sqn_rl.parts.encoder.mlp import MLP


def require_images(encoder: object, observation_shape: Sequence[int], least: int) -> tuple[int, list[int]]:
    """Refuse what is no image.

    Args:
        encoder: for the message.
        observation_shape: ``[C, H, W]``, or K stacked images, ``[K, C, H, W]``.
        least: the least H and W.

    Returns:
        The number of channels, K · C, and H and W.

    Raises:
        WiringError: it is another shape, or smaller.
    """
    shape = [*observation_shape]
    channels, sides = shape[:-2], shape[-2:]
    if len(shape) not in (3, 4) or min(sides) < least:
        reads = f"{type(encoder).__name__} reads images [C, H, W] of at least {least}x{least}"
        such = "such as env=atari, or env=gym where they are bytes from 0 to 255"
        others = "" if len(shape) > 1 else "; encoder=per_key reads images inside a Dict or Tuple"
        raise WiringError("encoder", f"encoder: {reads}, {such}; observations here are {shape}{others}")
    return math.prod(channels), sides


Convolution = tuple[int, int, int]
"""Number of filters, filter width, stride."""


def convolutions(
    encoder: object,
    observation_shape: Sequence[int],
    specs: Sequence[Convolution],
    make: Callable[..., nn.Module] = nn.Conv2d,
) -> tuple[list[nn.Module], list[int]]:
    """Convolutions without padding, each followed by a ReLU, and the shape ``[F, H, W]`` of their maps.

    Args:
        encoder: for messages.
        observation_shape: ``[C, H, W]``, or K stacked images, ``[K, C, H, W]``.
        specs: of each convolution.
        make: makes one, as ``nn.Conv2d`` is made.

    Raises:
        WiringError: the observation is no image, or they leave no cell of it.
    """
    least = 1
    for _, width, stride in reversed(specs):
        least = (least - 1) * stride + width
    channels, sides = require_images(encoder, observation_shape, least)
    steps: list[nn.Module] = []
    for filters, width, stride in specs:
        steps += [make(channels, filters, width, stride), nn.ReLU(inplace=True)]
        channels, sides = filters, [(side - width) // stride + 1 for side in sides]
    return steps, [channels, *sides]


def in_sequence(steps: Sequence[nn.Module]) -> nn.Sequential:
    """An ``nn.Sequential`` in channels-last format, which makes an update on a CPU 1/5 to 1/3 faster."""
    in_order = nn.Sequential(*steps)
    return in_order.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its stubs


class ImageEncoder(nn.Module):
    """The base of encoders of images: convolutions and layers, which compute in the dtype of their weights.

    A subclass calls :meth:`_assemble` in its constructor.
    """

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # of the weights' dtype

    def _assemble(
        self,
        convolutions: nn.Sequential,
        maps: Sequence[int],
        hidden: Sequence[int],
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        """Set the convolutions, and the layers after them; the convolutions make maps ``[F, H, W]``."""
        self.convolutions = convolutions
        self.layers = MLP(hidden=hidden, observation_shape=maps, layer=layer)
        self.out_features = self.layers.out_features

    def forward(self, observation: Tensor) -> Tensor:
        """``[B, C, H, W]`` → the layers' output for ``[B, F]``; ``[B, F]`` itself without a hidden layer."""
        return self.layers(self.convolutions(self.prepare(observation)))

    def prepare(self, observation: Tensor) -> Tensor:
        """Scale bytes to [0, 1], channels last; other dtypes are only cast.

        ``[B, C, H, W]``, same shape; of stacked images ``[B, K, C, H, W]`` → ``[B, K · C, H, W]``.
        """
        image = observation.flatten(1, -3)
        if image.dtype != torch.uint8:
            return image.to(self.zero.dtype)
        last = torch.stack(image.unbind(1), -1)  # on bytes this takes a third of the time of .contiguous
        return last.to(self.zero.dtype).div_(255).permute(0, 3, 1, 2)

    @staticmethod
    def scaling(dtype: torch.dtype) -> str:
        """How :meth:`prepare` scales images of this dtype, in words, for the console."""
        return "scaled as x/255" if dtype == torch.uint8 else "taken as it is"
