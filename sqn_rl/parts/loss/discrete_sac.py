"""Discrete soft actor-critic (Christodoulou 2019): the soft Q-network with a policy network of its own."""

from collections.abc import Sequence

from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import WiringError
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.noise import Noise
from sqn_rl.parts.requirements import require_temperature
from sqn_rl.protocols import QNetwork, Temperature, TrainablePolicy, submodule
from sqn_rl.types import Backup


class DiscreteSACLoss(TDLoss):
    """SQN's losses with π_φ for π, and L_π = mean Σ_a π_φ (α log π_φ − min_i Q_i).

    arXiv 1910.07207, equations 10 to 12.

    See :class:`~sqn_rl.parts.loss.td.TDLoss` for its keys as a TensorDict module.

    Args:
        q_net: the online networks; the target copies are made here.
        actor: an actor with a network ``policy_net``, and ``logits(observation)`` with gradient.
        temperature: α.
        gamma: γ, the discount per environment step, in [0, 1].
        backup: how the next state is valued; ``expected_min`` is discrete SAC's.
        seed: seed of the loss's own generator.

    Raises:
        SettingError: a value is out of range or unknown.
        WiringError: the actor has no policy network, or there is no temperature.
    """

    temperature: Temperature

    @typed
    def __init__(
        self,
        *,
        q_net: QNetwork,
        actor: nn.Module,
        temperature: Temperature | None,
        gamma: float,
        backup: str,
        seed: int,
    ) -> None:
        require_temperature(temperature, "loss", self, "a loss that has none, such as dqn")
        super().__init__(q_net=q_net, temperature=temperature, gamma=gamma, seed=seed)
        self.use_backup(backup)
        policy_net = submodule(actor, "policy_net")
        if policy_net is None or not isinstance(actor, TrainablePolicy):
            problem = f"loss: DiscreteSACLoss trains a policy network, and {type(actor).__name__} has none"
            raise WiringError("loss", f"{problem}; choose actor=policy", "actor")
        self.policy_net = policy_net
        self._logits = actor.logits
        self._noises["policy_net"] = Noise(policy_net)

    @property
    def consumes(self) -> Sequence[str]:
        """The keys that it reads, as the wiring shows them."""
        return [*super().consumes, "log_policy"]

    @property
    def out_keys(self) -> list[str]:
        """The keys of the returned TensorDict."""
        return ["loss_policy", *super().out_keys]

    def backup(
        self, target_q_NBA: Tensor, next_observation: Tensor, action_mask: Tensor | None = None
    ) -> tuple[Backup, Tensor | float]:
        """The chosen backup under π_φ at s', and its entropy bonus."""
        log_pi_BA = F.masked(self._logits(next_observation), action_mask).log_softmax(-1)
        return self.backup_under(log_pi_BA), self.temperature.alpha * F.entropy(log_pi_BA)

    def log_policy(self, observation: Tensor, q_NBA: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """The log π_φ(·|s), ``[B, A]``, with gradient."""
        return F.masked(self._logits(observation), action_mask).log_softmax(-1)

    def policy_losses(self, log_pi_BA: Tensor, q_NBA: Tensor) -> dict[str, Tensor]:
        """L_π, the policy network's loss."""
        return {"loss_policy": F.policy_loss(log_pi_BA, q_NBA.amin(0), self.temperature.alpha)}
