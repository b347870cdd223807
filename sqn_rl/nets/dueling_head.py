"""The dueling head: a state value and advantages, joined so that both are identifiable."""

from collections.abc import Callable

from torch import Tensor, nn

from sqn_rl import functional as F


class DuelingHead(nn.Module):
    """``Q = V + A − mean_a A``  (Wang et al. 2016, eq. 9).

    Args:
        in_features: width of the features φ(s).
        n_actions: A.
        layer: makes a layer for all members from ``(in_features, out_features)``.
    """

    def __init__(self, *, in_features: int, n_actions: int, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.value = layer(in_features, 1)
        self.advantage = layer(in_features, n_actions)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, B, in_features]`` → ``[N, B, A]``."""
        return F.dueling(self.value(features), self.advantage(features))
