"""One encoder for each entry of a Dict, whose features are joined."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.encoder.cnn import CNN
from sqn_rl.parts.encoder.mlp import MLP
from sqn_rl.parts.observations import Entry
from sqn_rl.parts.scaling import Scaling


class PerKeyEncoder(nn.Module):
    """Convolutions for each entry that is an image, a layer for each other, and layers that join them.

    Each entry, of a Dict or Tuple, has ``units`` features, followed by a ReLU. Images are scaled to [0, 1],
    numbers as by :class:`sqn_rl.MLP`. An observation without entries counts as a single entry.

    Args:
        units: the number of features of each entry.
        channels: number of filters of each convolution over an image, e.g. ``[16, 32]``.
        kernels: their widths.
        strides: their strides.
        hidden: width of each layer after the joined features; empty for no such layer.
        observation_shape: S; ``[F]`` if there are entries.
        layer: makes a layer from ``(in_features, out_features)``.
        observation_entries: where each entry lies in ``[F]``, and which are images; none: the observation is
            one, an image if it has three or four dimensions.
        observation_scaling: the environment's scaling of numbers, see :class:`sqn_rl.MLP`.

    Raises:
        SettingError: a number is not positive and whole, or there are not as many kernels or strides.
        WiringError: an image is so small that the convolutions leave no cell of it.
    """

    @typed
    def __init__(
        self,
        *,
        units: Count,
        channels: Sequence[Count],
        kernels: Sequence[Count],
        strides: Sequence[Count],
        hidden: Sequence[Count],
        observation_shape: Sequence[int],
        layer: Callable[[int, int], nn.Module],
        observation_entries: Sequence[Entry] = (),
        observation_scaling: Scaling | None = None,
    ) -> None:
        super().__init__()
        self._entries = tuple(observation_entries)
        convolutions = {"channels": channels, "kernels": kernels, "strides": strides}
        make_cnn = partial(CNN, hidden=[units], layer=layer, **convolutions)

        def encoder(shape: Sequence[int], is_image: bool, scaling: Scaling | None) -> CNN | MLP:
            if is_image:
                return make_cnn(observation_shape=shape)
            return MLP(hidden=[units], observation_shape=shape, layer=layer, observation_scaling=scaling)

        def scaling_of(entry: Entry) -> Scaling | None:
            return observation_scaling and Scaling(*(each[entry.columns] for each in observation_scaling))

        if self._entries:
            encoders = [encoder(entry.shape, entry.is_image, scaling_of(entry)) for entry in self._entries]
        else:
            encoders = [encoder(observation_shape, len(observation_shape) > 2, observation_scaling)]
        self._scaling_of_first = encoders[0].scaling
        self.encoders = nn.ModuleList(encoders)
        widths_of_all = [units * len(self.encoders), *hidden]
        self.layers = nn.ModuleList(layer(i, o) for i, o in pairwise(widths_of_all))
        self.out_features = widths_of_all[-1]

    def scaling(self, dtype: torch.dtype) -> str:
        """What is an image, in words, for the console."""
        if not self._entries:
            return self._scaling_of_first(dtype)
        return ", ".join(f"{entry.name}{list(entry.shape)}" for entry in self._entries)

    def forward(self, observation: Tensor) -> Tensor:
        """``[B, *S]`` → ``[N, B, out_features]``, or for one network ``[B, out_features]``."""
        inputs = [entry.of(observation) for entry in self._entries] or [observation]
        x = torch.cat([encoder(own) for encoder, own in zip(self.encoders, inputs, strict=True)], -1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x
