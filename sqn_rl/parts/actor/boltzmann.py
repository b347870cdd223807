"""The Boltzmann actor: SQN's policy, which has no network of its own."""

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.actor.base import ActionNoise, SamplingActor, ValueActor
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.requirements import require_temperature
from sqn_rl.protocols import QNetwork, Temperature


def temperature_ladder(position: Tensor, base: float) -> Tensor:
    """The factors of α, base^(1 − 2 i/(N−1)): from ``base`` to 1/``base``. ``[B]`` in [0, 1] → ``[B]``."""
    return base ** (1 - 2 * position)


class BoltzmannActor(SamplingActor, ValueActor):
    """Acts by ``a ~ π(·|s) = softmax_a(Q(s, a) / α)``  (eq. 20), or by ``argmax_a Q(s, a)`` when greedy.

    Noisy layers get new noise for every action that is not greedy; greedy actions use the mean weights.
    As a TensorDict module it reads the Q-network's observation key and writes ``action`` (``[*]`` int64),
    ``log_prob`` (``[*]``, log π of that action) and ``entropy`` (``[*]``, nats). It samples unless TorchRL's
    exploration type is set to another than random.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``.
        temperature: a module with the buffer ``alpha``, which is saved with the weights.
        policy: the values of the softmax: ``q1`` (the paper's), or over the networks ``min`` or ``mean``.
        seed: seed of the actor's own generator.

    Raises:
        SettingError: unknown ``policy``.
        WiringError: there is no temperature.
    """

    consumes = ("action_value", "alpha")

    @typed
    def __init__(self, *, q_net: QNetwork, temperature: Temperature | None, policy: str, seed: int) -> None:
        temperature = require_temperature(temperature, "actor", self, "actor=epsilon_greedy or greedy")
        super().__init__(q_net=q_net, policy=policy, seed=seed)
        self.temperature = temperature
        self._factor_B1: Tensor | None = None

    def explore(self, position: Tensor, base: float) -> None:
        """From now on, sample with the temperatures of :func:`temperature_ladder`, one per state of a batch.

        The policy stays that of α: only :meth:`act` differs.
        """
        self._factor_B1 = temperature_ladder(position, base).unsqueeze(-1).to(self.device)

    def select_action(self, score_BA: Tensor, noise: ActionNoise) -> Tensor:
        """Sample a ~ softmax(Q/α). ``[B, A]`` → ``[B]`` int64."""
        alpha = self.temperature.alpha
        return F.gumbel_max(score_BA, noise[0], alpha if self._factor_B1 is None else alpha * self._factor_B1)

    def behaviour(self, score_BA: Tensor) -> Tensor:
        """The softmax(Q/α), of this ladder's α if there is one. ``[B, A]`` → ``[B, A]``."""
        if self._factor_B1 is None:
            return self.probabilities(score_BA)
        return F.log_policy(score_BA, self.temperature.alpha * self._factor_B1).exp()

    def log_probs(self, score_BA: Tensor) -> Tensor:
        """The log softmax(Q/α), ``[B, A]``."""
        return F.log_policy(score_BA, self.temperature.alpha)
