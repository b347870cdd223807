"""The categorical head: for every action the probabilities of evenly spaced returns (C51)."""

from collections.abc import Callable

from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.distributions import Atoms, Categorical
from sqn_rl.parts.head.dueling import head_class


class CategoricalHead(nn.Module):
    """Logits of K returns from ``v_min`` to ``v_max``  (Bellemare et al. 2017, section 4).

    Args:
        v_min: the lowest return, reward units.
        v_max: the highest.
        atoms: K ≥ 2; 51 in the paper.
        dueling: the logits are a value stream plus an advantage stream, as in Rainbow (Hessel et al. 2018).
        in_features: width of the features φ(s).
        n_actions: A, the number of actions.
        layer: makes a layer for all members from ``(in_features, out_features)``.

    Raises:
        SettingError: ``v_min`` is not below ``v_max``, or there are fewer than two atoms.
    """

    @typed
    def __init__(
        self,
        *,
        v_min: float,
        v_max: float,
        atoms: Atoms,
        dueling: bool,
        in_features: Count,
        n_actions: Count,
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.distribution = Categorical(v_min=v_min, v_max=v_max, atoms=atoms)
        self.logits = head_class(dueling)(
            in_features=in_features, n_actions=n_actions, layer=layer, outputs=atoms
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[N, B, in_features]`` → ``[N, B, A, K]``, logits."""
        return self.logits(features)
