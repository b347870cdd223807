"""The multilayer perceptron: the paper's encoder (400-300, ReLU)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sqn_rl.errors import require


class MLP(nn.Module):
    """Fully connected layers, each followed by a ReLU. The observation is flattened.

    Bytes (Atari RAM) are scaled to [−1, 1) as ``(x − 128) / 128``, as in the authors' code.

    Args:
        hidden: width of each layer, e.g. ``[400, 300]``; empty gives the flat observation itself.
        observation_shape: shape of one observation, ``S``.
        layer: makes a layer for all members from ``(in_features, out_features)``.

    Raises:
        SettingError: a width is not a positive whole number.
    """

    def __init__(
        self,
        *,
        hidden: Sequence[int],
        observation_shape: Sequence[int],
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        require(
            all(isinstance(width, int) and width > 0 for width in hidden),
            "hidden",
            list(hidden),
            "a list of positive widths, e.g. [400, 300]",
        )
        widths = [math.prod(observation_shape), *hidden]
        self.layers = nn.ModuleList(layer(i, o) for i, o in pairwise(widths))
        self.out_features = widths[-1]

    def forward(self, observation: Tensor) -> Tensor:
        """``[B, *S]`` → ``[N, B, out_features]``; ``[B, out_features]`` without a hidden layer."""
        x = observation.flatten(1).to(torch.get_default_dtype())
        x = (x - 128) / 128 if observation.dtype == torch.uint8 else x
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x
