"""The Boltzmann actor: the policy of SQN, which has no network of its own."""

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import WiringError
from sqn_rl.parts.actor.base import Chance, ValueActor
from sqn_rl.protocols import QNetwork, Temperature


class BoltzmannActor(ValueActor):
    """Acts by ``a ~ π(·|s) = softmax_a(Q(s, a) / α)``  (eq. 20), or by ``argmax_a Q(s, a)`` when greedy.

    Noisy layers are redrawn for every action that is not greedy; greedy ones are those of the mean weights.
    As a TensorDict module it reads the Q-network's observation key and writes ``action`` (``[*]`` int64),
    ``log_prob`` (``[*]``, log π of that action) and ``entropy`` (``[*]``, nats). It samples unless TorchRL's
    exploration type is deterministic, mode or mean.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``.
        temperature: a module with the buffer ``alpha``, which travels with the weights.
        policy: whose softmax: ``q1`` (the paper's) or ``min`` (the minimum over the networks).
        seed: of the actor's own generator.

    Raises:
        SettingError: unknown ``policy``.
        WiringError: there is no temperature.
    """

    def __init__(self, *, q_net: QNetwork, temperature: Temperature | None, policy: str, seed: int) -> None:
        if temperature is None:
            mend = "choose temperature=learned, fixed or annealed, or actor=epsilon_greedy or greedy"
            given = "actor: BoltzmannActor needs a temperature, and there is none"
            raise WiringError("actor", f"{given}; {mend}", "temperature")
        super().__init__(q_net=q_net, policy=policy, seed=seed)
        self.temperature, self.out_keys = temperature, ["action", "log_prob", "entropy"]

    def chance(self, score_BA: Tensor, generator: torch.Generator) -> Chance:
        """Exponentials, ``[B, A]``."""
        return (F.exponentials(score_BA, generator),)

    def pick(self, score_BA: Tensor, chance: Chance) -> Tensor:
        """The a ~ softmax(Q/α). ``[B, A]`` → ``[B]`` int64."""
        return F.gumbel_max(score_BA, chance[0], self.temperature.alpha)

    def policy_of(self, score_BA: Tensor) -> Tensor:
        """The log softmax(Q/α), ``[B, A]``."""
        return F.log_policy(score_BA, self.temperature.alpha)

    @torch.no_grad()
    def log_policy(self, observation: Tensor) -> Tensor:
        """The log π(·|s) of the mean weights, without gradient. ``[B, *S]`` → ``[B, A]``."""
        return self.policy_of(self.mean_scores(observation))
