"""The plain head: one linear output per action."""

from collections.abc import Callable

from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, typed


class LinearHead(nn.Module):
    """``Q(s, ·) = W φ(s) + b``.

    Args:
        in_features: width of the features φ(s).
        n_actions: A, the number of actions.
        layer: makes a layer for all members from ``(in_features, out_features)``.
        outputs: K outputs per action; None: one output, Q itself.
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
        self.q = layer(in_features, n_actions * (outputs or 1))

    def forward(self, features: Tensor) -> Tensor:
        """``[N, B, in_features]`` → ``[N, B, A]``, or ``[N, B, A, K]``."""
        q = self.q(features)
        return q if self.outputs is None else q.unflatten(-1, (-1, self.outputs))
