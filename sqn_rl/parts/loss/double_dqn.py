"""Double deep Q-learning (van Hasselt et al. 2016)."""

from functools import partial

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.types import Backup


class DoubleDQNLoss(TDLoss):
    """v(s') = min_i Q̄_i(s', argmax_a Q_1(s', a)): Q_1 selects, Q̄ evaluates  (van Hasselt 2016, eq. 4).

    A temperature, if there is one, affects only the exploration of a Boltzmann actor.

    See :class:`~sqn_rl.parts.loss.td.TDLoss` for its arguments and keys.
    """

    backup_entropy = False

    def backup(
        self, target_q_NBA: Tensor, next_observation: Tensor, action_mask: Tensor | None = None
    ) -> tuple[Backup, Tensor | float]:
        """The value of Q_1's best action, and no bonus."""
        action_B = F.masked(self.q_net.first(next_observation), action_mask).argmax(-1)
        return partial(F.of_action, action_B=action_B), 0.0
