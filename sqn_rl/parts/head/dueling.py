"""The dueling head: a state value and advantages, combined so that both are identifiable."""

from collections.abc import Callable

from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.head.linear import LinearHead


class DuelingHead(nn.Module):
    """``Q = V + A − mean_a A``  (Wang et al. 2016, eq. 9).

    Args:
        in_features: width of the features φ(s).
        n_actions: A, the number of actions.
        layer: makes a layer for all members from ``(in_features, out_features)``.
        outputs: K outputs per action, each with its own V and A, as in Rainbow (Hessel et al. 2018); None:
            one output, Q itself.
    """

    @typed
    def __init__(
        self,
        *,
        in_features: Count,
        n_actions: Count,
        layer: Callable[[int, int], nn.Module],
        outputs: Count | None = None,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.value = layer(in_features, outputs or 1)
        self.advantage = layer(in_features, n_actions * (outputs or 1))

    def forward(self, features: Tensor) -> Tensor:
        """``[N, B, in_features]`` → ``[N, B, A]``, or ``[N, B, A, K]``."""
        value, advantage = self.value(features), self.advantage(features)
        if self.outputs is None:
            return F.dueling(value, advantage)
        value_NBK1, advantage_NBKA = (x.unflatten(-1, (-1, self.outputs)).mT for x in (value, advantage))
        return F.dueling(value_NBK1, advantage_NBKA).mT


def head_class(dueling: bool) -> type[DuelingHead | LinearHead]:
    """The class of the dueling head, or of the plain one."""
    return DuelingHead if dueling else LinearHead
