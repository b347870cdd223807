"""Deep Q-learning (Mnih et al. 2015), which the soft Q-network is compared with."""

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.distributions import Backup
from sqn_rl.parts.loss.td import TDLoss


class DQNLoss(TDLoss):
    """v(s') = min_i max_a Q̄_i(s', a): with one network that of DQN (Mnih et al. 2015), with twins the lesser.

    A temperature, where there is one, only shapes how a Boltzmann actor explores.

    See :class:`~sqn_rl.parts.loss.td.TDLoss` for its arguments, and for what it reads and writes.
    """

    backup_entropy = False

    def backup(self, target_q_NBA: Tensor, next_observation: Tensor) -> tuple[Backup, Tensor | float]:
        """The best action's value, and no bonus."""
        return F.maximum, 0.0
