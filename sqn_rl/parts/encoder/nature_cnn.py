"""The convolutional encoder of DQN (the Nature paper's)."""

from collections.abc import Callable, Sequence

from torch import nn

from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.encoder.images import ImageEncoder, convolutions, in_sequence

CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Number of filters, filter width, stride."""


class NatureCNN(ImageEncoder):
    """Three convolutions and a layer, each followed by a ReLU  (Mnih et al. 2015, "Model architecture").

    Bytes are scaled to [0, 1]. It encodes for one network: :class:`sqn_rl.QNet` makes one per network.

    Args:
        hidden: width of each layer after the convolutions, the paper's ``[512]``; empty for no such layer.
        observation_shape: ``[C, H, W]``, an image of at least 36x36, or K of them, ``[K, C, H, W]``.
        layer: makes a layer from ``(in_features, out_features)``.

    Raises:
        SettingError: a width is not a positive whole number.
        WiringError: the observation is not such an image.
    """

    @typed
    def __init__(
        self,
        *,
        hidden: Sequence[Count],
        observation_shape: Sequence[int],
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        steps, maps = convolutions(self, observation_shape, CONVOLUTIONS)
        self._assemble(in_sequence(steps), maps, hidden, layer)
