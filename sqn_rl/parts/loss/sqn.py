"""The soft Q-network's loss (Algorithm 1, lines 10 to 16)."""

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import require_one_of
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.reductions import REDUCTIONS, reduced_values
from sqn_rl.parts.requirements import require_temperature
from sqn_rl.protocols import QNetwork, Temperature
from sqn_rl.types import Backup

POLICY_SOURCES = ("q1", "target_q1", "min", "target_min", "mean", "target_mean")


class SQNLoss(TDLoss):
    """v(s') is the soft value: a backup of Q̄ under π, and the bonus α H(π(·|s'))  (line 11).

    Equations 10, 12 and 19, lines 11 to 16 of Algorithm 1. The entropy is computed exactly. Deviations from
    the text as printed: the target uses the target network (eq. 13 lacks its bar and γ), both losses are
    minimised (lines 14 and 16 print ``+``), and recipes take the mean of the networks, not the minimum.

    See :class:`~sqn_rl.parts.loss.td.TDLoss` for its keys as a TensorDict module.

    Args:
        q_net: the online networks; the target copies are made here.
        temperature: α.
        gamma: γ, the discount per environment step, in [0, 1].
        backup: how the next state is valued, a name in :data:`sqn_rl.functional.BACKUPS`.
        policy_source: the values whose softmax is the policy in the backup: ``q1`` (the paper's), ``min`` or
            ``mean`` over the networks; with ``target_`` before it, those of the target copies. With a mean
            the entropy in L_α is that of the online networks' mean, otherwise that of Q_1.
        backup_entropy: whether the entropy bonus is part of the target.
        seed: seed of the loss's own generator.

    Raises:
        SettingError: a value is out of range or unknown.
        WiringError: there is no temperature.
    """

    temperature: Temperature

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
        seed: int,
    ) -> None:
        require_temperature(temperature, "loss", self, "a loss that has none, such as dqn")
        super().__init__(q_net=q_net, temperature=temperature, gamma=gamma, seed=seed)
        self.use_backup(backup)
        require_one_of(POLICY_SOURCES, "policy_source", policy_source)
        self.policy_source, self.backup_entropy = policy_source, backup_entropy
        self._from_target = policy_source.startswith("target_")
        self._reduction = policy_source.removeprefix("target_")

    def backup(
        self, target_q_NBA: Tensor, next_observation: Tensor, action_mask: Tensor | None = None
    ) -> tuple[Backup, Tensor | float]:
        """The chosen backup under the policy at s', and its entropy bonus."""
        if self._from_target:
            q_BA = REDUCTIONS[self._reduction](target_q_NBA)
        else:
            q_BA = reduced_values(self.q_net, next_observation, self._reduction)
        log_pi_BA = F.log_policy(F.masked(q_BA, action_mask), self.temperature.alpha)
        bonus = self.temperature.alpha * F.entropy(log_pi_BA) if self.backup_entropy else 0.0
        return self.backup_under(log_pi_BA), bonus

    def log_policy(self, observation: Tensor, q_NBA: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """The log π(·|s), ``[B, A]``, whose entropy is in L_α: of Q_1, or with a mean source of the mean."""
        name = "mean" if self._reduction == "mean" else "q1"
        return F.log_policy(REDUCTIONS[name](q_NBA), self.temperature.alpha)
