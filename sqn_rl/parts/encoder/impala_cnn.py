"""IMPALA's deep residual convolutions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.encoder.images import ImageEncoder, in_sequence, require_images

CHANNELS = (16, 32, 32)


class ImpalaCNN(ImageEncoder):
    """Three blocks of a convolution, a pool and two residual blocks; then a layer  (Espeholt et al. 2018).

    This is the large architecture of figure 3 without its recurrent layer. Bytes are scaled to [0, 1]. It
    encodes for one network: :class:`sqn_rl.QNet` makes one per network.

    Args:
        width: factor of the 16, 32 and 32 channels.
        hidden: width of each layer after the convolutions, the paper's ``[256]``; empty for no such layer.
        observation_shape: ``[C, H, W]``, an image of at least 8x8, or K of them, ``[K, C, H, W]``.
        layer: makes a layer from ``(in_features, out_features)``.

    Raises:
        SettingError: a width is not a positive whole number.
        WiringError: the observation is not such an image.
    """

    @typed
    def __init__(
        self,
        *,
        width: Count,
        hidden: Sequence[Count],
        observation_shape: Sequence[int],
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        channels, sides = require_images(self, observation_shape, least=8)
        steps: list[nn.Module] = []
        for filters in (width * each for each in CHANNELS):
            steps += [nn.Conv2d(channels, filters, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            steps += [_Residual(filters), _Residual(filters)]
            channels, sides = filters, [(side + 1) // 2 for side in sides]
        self._assemble(in_sequence([*steps, nn.ReLU()]), [channels, *sides], hidden, layer)


class _Residual(nn.Module):
    """``x + conv(relu(conv(relu(x))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))
