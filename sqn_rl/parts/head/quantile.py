"""The quantile head: for every action its return at even quantiles (QR)."""

from collections.abc import Callable

from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, NotNegative, typed
from sqn_rl.parts.distributions import Quantile
from sqn_rl.parts.head.dueling import head_class


class QuantileHead(nn.Module):
    """The return at the K quantiles ``(k + ½) / K``  (Dabney et al. 2018, section 3). It needs no range.

    Args:
        quantiles: K ≥ 1; 200 in the paper.
        kappa: κ ≥ 0, where the loss changes from quadratic to linear, reward units; 1 and 0 in the paper.
        dueling: each quantile as ``V + A − mean_a A``.
        in_features: width of the features φ(s).
        n_actions: A, the number of actions.
        layer: makes a layer for all members from ``(in_features, out_features)``.

    Raises:
        SettingError: there is no quantile, or κ is negative.
    """

    @typed
    def __init__(
        self,
        *,
        quantiles: Count,
        kappa: NotNegative,
        dueling: bool,
        in_features: Count,
        n_actions: Count,
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.distribution = Quantile(quantiles=quantiles, kappa=kappa)
        self.returns = head_class(dueling)(
            in_features=in_features, n_actions=n_actions, layer=layer, outputs=quantiles
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[N, B, in_features]`` → ``[N, B, A, K]``, reward units."""
        return self.returns(features)
