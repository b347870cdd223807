"""The multilayer perceptron: the paper's encoder (400-300, ReLU)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from sqn_rl.errors import require
from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.scaling import Scaling, describe_scaling


class MLP(nn.Module):
    """Fully connected layers, each followed by a ReLU. The observation is flattened.

    Numbers are scaled by ``observation_scaling``. Without it bytes (Atari RAM) are scaled to [−1, 1) as
    ``(x − 128) / 128``, as in the authors' code, and other numbers are not scaled.

    Args:
        hidden: width of each layer, e.g. ``[400, 300]``; empty for the flat observation itself.
        observation_shape: shape of one observation, ``S``.
        layer: makes a layer for all members from ``(in_features, out_features)``.
        observation_scaling: the environment's scaling, see :func:`sqn_rl.parts.scaling.scaling_of`. It is
            saved with the weights.

    Raises:
        SettingError: a width is not a positive whole number, or an observation is empty.
    """

    zero: Tensor
    observation_shift: Tensor
    observation_scale: Tensor

    @typed
    def __init__(
        self,
        *,
        hidden: Sequence[Count],
        observation_shape: Sequence[int],
        layer: Callable[[int, int], nn.Module],
        observation_scaling: Scaling | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # of the weights' dtype
        widths = [math.prod(observation_shape), *hidden]
        require(widths[0] > 0, "observation_shape", observation_shape, "sizes of at least 1")
        self.layers = nn.ModuleList(layer(i, o) for i, o in pairwise(widths))
        self.out_features = widths[-1]
        self.observation_scaling = observation_scaling
        shift, scale = map(_flat, observation_scaling or (None, None))
        self.register_buffer("observation_shift", shift)
        self.register_buffer("observation_scale", scale)

    def scaling(self, dtype: torch.dtype) -> str:
        """How observations of this dtype are scaled, in words, for the console."""
        return describe_scaling(self.observation_scaling, dtype)

    def forward(self, observation: Tensor) -> Tensor:
        """``[B, *S]`` → ``[N, B, out_features]``; ``[B, out_features]`` without a hidden layer."""
        x = observation.flatten(1).to(self.zero.dtype)
        if self.observation_scaling is not None:
            x = (x - self.observation_shift) / self.observation_scale
        elif observation.dtype == torch.uint8:
            x = (x - 128) / 128
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def _flat(values: np.ndarray | None) -> Tensor | None:
    return None if values is None else torch.as_tensor(values.ravel(), dtype=torch.get_default_dtype())
