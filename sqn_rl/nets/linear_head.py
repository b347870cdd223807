"""The plain head: one linear output per action."""

from collections.abc import Callable

from torch import Tensor, nn


class LinearHead(nn.Module):
    """``Q(s, ·) = W φ(s) + b``.

    Args:
        in_features: width of the features φ(s).
        n_actions: A.
        layer: makes a layer for all members from ``(in_features, out_features)``.
    """

    def __init__(self, *, in_features: int, n_actions: int, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.q = layer(in_features, n_actions)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, B, in_features]`` → ``[N, B, A]``."""
        return self.q(features)
