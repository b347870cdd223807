"""The soft Q-network's loss (Algorithm 1, lines 10 to 16)."""

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import WiringError, require_one_of
from sqn_rl.parts.distributions import Backup
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.protocols import QNetwork, Temperature

POLICY_SOURCES = ("q1", "target_q1", "min", "target_min", "mean", "target_mean")


def _first(q_NBA: Tensor) -> Tensor:
    return q_NBA[0]


def _minimum(q_NBA: Tensor) -> Tensor:
    return q_NBA.amin(0)


def _mean(q_NBA: Tensor) -> Tensor:
    return q_NBA.mean(0)


REDUCTIONS = {"q1": _first, "min": _minimum, "mean": _mean}
"""From the values of the networks, ``[N, B, A]``, to those whose softmax is the policy, ``[B, A]``."""


class SQNLoss(TDLoss):
    """v(s') is the soft value: a backup of Q̄ under π, and the bonus α H(π(·|s'))  (line 11).

    Equations 10, 12 and 19, lines 11 to 16 of Algorithm 1. The entropy is computed exactly. Deviations from
    the text as printed: the target uses the target network (eq. 13 lacks its bar and γ), both losses are
    minimised (lines 14 and 16 print ``+``), and the default ``backup`` is ``expected``.

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
        require_temperature(temperature, type(self).__name__)
        super().__init__(q_net=q_net, temperature=temperature, gamma=gamma, seed=seed)
        self.use_backup(backup)
        require_one_of(POLICY_SOURCES, "policy_source", policy_source)
        self.policy_source, self.backup_entropy = policy_source, backup_entropy
        self._from_target = policy_source.startswith("target_")
        self._reduce = REDUCTIONS[policy_source.removeprefix("target_")]

    def backup(
        self, target_q_NBA: Tensor, next_observation: Tensor, action_mask: Tensor | None = None
    ) -> tuple[Backup, Tensor | float]:
        """The chosen backup under the policy at s', and its entropy bonus."""
        q_NBA = target_q_NBA if self._from_target else self.source_values(self.q_net, next_observation)
        log_pi_BA = self.source_policy(F.masked(q_NBA, action_mask))
        bonus = self.temperature.alpha * F.entropy(log_pi_BA) if self.backup_entropy else 0.0
        return self.backup_under(log_pi_BA), bonus

    def source_values(self, q_net: QNetwork, observation: Tensor) -> Tensor:
        """Q_i(s, ·) of the networks that ``policy_source`` uses: all or the first. → ``[N or 1, B, A]``."""
        return q_net.first(observation).unsqueeze(0) if self._reduce is _first else q_net.values(observation)

    def source_policy(self, q_NBA: Tensor) -> Tensor:
        """The log π of ``policy_source`` from its networks' values, ``[N, B, A]`` → ``[B, A]``."""
        return F.log_policy(self._reduce(q_NBA), self.temperature.alpha)

    def log_policy(self, observation: Tensor, q_NBA: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """The log π(·|s), ``[B, A]``, whose entropy is in L_α: of Q_1, or with a mean source of the mean."""
        return F.log_policy(_mean(q_NBA) if self._reduce is _mean else _first(q_NBA), self.temperature.alpha)


def require_temperature(temperature: Temperature | None, who: str) -> None:
    """Raise :class:`WiringError` unless there is a temperature."""
    if temperature is None:
        hint = "choose temperature=learned, fixed or annealed, or a loss that has none, such as dqn"
        problem = f"loss: {who} needs a temperature, and there is none"
        raise WiringError("loss", f"{problem}; {hint}", "temperature")
