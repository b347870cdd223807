"""Deep Q-learning (Mnih et al. 2015), the baseline of the soft Q-network."""

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.types import Backup


class DQNLoss(TDLoss):
    """v(s') = min_i max_a Q̄_i(s', a): DQN for one network (Mnih et al. 2015); the minimum for twins.

    A temperature, if there is one, affects only the exploration of a Boltzmann actor.

    See :class:`~sqn_rl.parts.loss.td.TDLoss` for its arguments and keys.
    """

    backup_entropy = False

    def backup(
        self, target_q_NBA: Tensor, next_observation: Tensor, action_mask: Tensor | None = None
    ) -> tuple[Backup, Tensor | float]:
        """The best action's value, and no bonus."""
        return F.maximum, 0.0
