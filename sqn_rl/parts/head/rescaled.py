"""The rescaled head: for every action h(Q), from which Q is computed."""

from collections.abc import Callable

from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, NotNegative, typed
from sqn_rl.parts.head.dueling import head_class
from sqn_rl.parts.rescaling import Rescaled


class RescaledHead(nn.Module):
    """h(Q) of every action, h(x) = sign(x) (√(|x| + 1) − 1) + εx  (Kapturowski et al. 2019, section 2.3).

    Args:
        epsilon: ε ≥ 0; 0.001 in the paper.
        dueling: h(Q) as ``V + A − mean_a A``, as in the paper.
        in_features: width of the features φ(s).
        n_actions: A, the number of actions.
        layer: makes a layer for all members from ``(in_features, out_features)``.

    Raises:
        SettingError: ε is negative or infinite.
    """

    @typed
    def __init__(
        self,
        *,
        epsilon: NotNegative,
        dueling: bool,
        in_features: Count,
        n_actions: Count,
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.distribution = Rescaled(epsilon=epsilon)
        self.rescaled = head_class(dueling)(
            in_features=in_features, n_actions=n_actions, layer=layer, outputs=1
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[N, B, in_features]`` → ``[N, B, A, 1]``, h of reward units."""
        return self.rescaled(features)
