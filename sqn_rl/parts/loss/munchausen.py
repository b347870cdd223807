"""Munchausen reinforcement learning on top of the soft Q-network (Vieillard et al. 2020)."""

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import require
from sqn_rl.parts.arguments import Probability, typed
from sqn_rl.parts.loss.sqn import SQNLoss
from sqn_rl.parts.reductions import REDUCTIONS, reduced_values
from sqn_rl.protocols import QNetwork, Temperature
from sqn_rl.types import Batch


class MunchausenLoss(SQNLoss):
    """SQN's loss on the reward ``r + m [α log π(a|s)]``, the bracket clipped to [l₀, 0]  (Vieillard 2020).

    π is the policy of ``policy_source`` at s; M-DQN uses ``target_q1``. With n-step returns only the first
    step gets the bonus.

    Args:
        q_net: see :class:`~sqn_rl.parts.loss.sqn.SQNLoss`, also for the arguments up to ``backup_entropy``.
        temperature: α.
        gamma: γ.
        backup: how the next state is valued.
        policy_source: the values whose softmax is the policy, at s and in the backup.
        backup_entropy: whether the entropy bonus is part of the target.
        m: the scale of the bonus, in [0, 1]; 0.9 in M-DQN; 0 is SQN.
        lowest: l₀, reward units, below 0; −1 in M-DQN.
        seed: seed of the loss's own generator.

    Raises:
        SettingError: a value is out of range or unknown.
        WiringError: there is no temperature.
    """

    @typed
    def __init__(
        self,
        *,
        q_net: QNetwork,
        temperature: Temperature | None,
        gamma: float,
        backup: str,
        policy_source: str,
        backup_entropy: bool,
        m: Probability,
        lowest: float,
        seed: int,
    ) -> None:
        super().__init__(
            q_net=q_net,
            temperature=temperature,
            gamma=gamma,
            backup=backup,
            policy_source=policy_source,
            backup_entropy=backup_entropy,
            seed=seed,
        )
        require(lowest < 0, "lowest", lowest, "a number below 0")
        self.m, self.lowest = m, lowest

    def reward(self, batch: Batch, q_NBA: Tensor) -> Tensor:
        """The reward plus the Munchausen bonus, ``[B]``."""
        if self._from_target:
            q_BA = reduced_values(self.target_q_net, batch.observation, self._reduction)
            q_BA = F.masked(q_BA, batch.action_mask)
        else:
            q_BA = REDUCTIONS[self._reduction](q_NBA)
        alpha = self.temperature.alpha
        log_pi_BA = F.log_policy(q_BA, alpha)
        return batch.reward + F.munchausen_bonus(log_pi_BA, batch.action, alpha, self.m, self.lowest)
