"""Value rescaling: a network learns h(Q), which grows with the square root of Q  (Pohlen et al. 2018).

The paper is arXiv 1805.11593; R2D2 uses it instead of clipping rewards (Kapturowski et al. 2019, section
2.3).

Legend: N networks, B transitions, A actions.
"""

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.arguments import NotNegative, typed
from sqn_rl.parts.distributions import PointEstimate


def rescale(x: Tensor, epsilon: float) -> Tensor:
    """h(x) = sign(x) (√(|x| + 1) − 1) + εx, which keeps an inverse that is not too steep. ``[*]`` → ``[*]``.

    √(|x| + 1) − 1 is computed as |x| / (√(|x| + 1) + 1), which does not cancel where |x| is small.
    """
    return x / ((x.abs() + 1).sqrt() + 1) + epsilon * x


def unrescale(y: Tensor, epsilon: float) -> Tensor:
    """h⁻¹(y) = sign(y) (((√(1 + 4ε (|y| + 1 + ε)) − 1) / 2ε)² − 1). ``[*]`` → ``[*]``.

    With u = |y| + 1 + ε the fraction is computed as 2u / (1 + √(1 + 4εu)), which does not cancel where ε is
    small, and exists for ε = 0.
    """
    u = y.abs() + 1 + epsilon
    root = 2 * u / (1 + (1 + 4 * epsilon * u).sqrt())
    return y.sign() * (root - 1) * (root + 1)


class Rescaled(PointEstimate):
    """The mean, of which h(Q) is learned with the squared error; the target is h(r + γ v), v in reward units.

    Action values, and so α, policies and backups, are in reward units. The loss and δ, and so priorities, are
    in the unit of h.

    Args:
        epsilon: ε ≥ 0, of h.

    Raises:
        SettingError: ε is negative or infinite.
    """

    @typed
    def __init__(self, *, epsilon: NotNegative) -> None:
        super().__init__()
        self.epsilon = epsilon

    def mean(self, prediction: Tensor) -> Tensor:
        """h⁻¹ of the prediction, ``[..., 1]`` → ``[...]``."""
        return unrescale(prediction.squeeze(-1), self.epsilon)

    def loss(self, prediction: Tensor, action_B: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """δ² and δ = h(Q(s, a)) − h(y)."""
        h_of_target = rescale(target, self.epsilon)
        td_error_NB = F.td_error(prediction.squeeze(-1), action_B, h_of_target)
        return td_error_NB.square(), td_error_NB
