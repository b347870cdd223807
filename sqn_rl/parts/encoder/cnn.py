"""Convolutions for images of any size."""

from collections.abc import Callable, Sequence

from torch import nn

from sqn_rl.errors import require
from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.encoder.images import ImageEncoder, convolutions, in_sequence


class CNN(ImageEncoder):
    """Convolutions and fully connected layers, each followed by a ReLU.

    Bytes are scaled to [0, 1]. It encodes for one network: :class:`sqn_rl.QNet` makes one per network.

    Args:
        channels: number of filters of each convolution, e.g. ``[32, 64, 64]``.
        kernels: their widths.
        strides: their strides.
        hidden: width of each layer after the convolutions; empty for no such layer.
        observation_shape: ``[C, H, W]``, or K stacked images, ``[K, C, H, W]``, whose channels are joined.
            The image must be so large that the convolutions leave a cell.
        layer: makes a layer from ``(in_features, out_features)``.

    Raises:
        SettingError: a number is not positive and whole, or there are not as many of each.
        WiringError: the observation is no such image.
    """

    @typed
    def __init__(
        self,
        *,
        channels: Sequence[Count],
        kernels: Sequence[Count],
        strides: Sequence[Count],
        hidden: Sequence[Count],
        observation_shape: Sequence[int],
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        for name, numbers in {"channels": channels, "kernels": kernels, "strides": strides}.items():
            expected = f"{len(channels) or 'some'} whole numbers, one for each convolution"
            require(len(numbers) == len(channels) > 0, name, [*numbers], expected)
        specs = [*zip(channels, kernels, strides, strict=True)]
        steps, maps = convolutions(self, observation_shape, specs)
        self._assemble(in_sequence(steps), maps, hidden, layer)
