"""The ε-greedy actor of DQN: the best action, or with probability ε a random one."""

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.actor.base import ActionNoise, ValueActor
from sqn_rl.parts.arguments import Count, Fraction, Probability, typed
from sqn_rl.parts.schedule import linear
from sqn_rl.protocols import QNetwork


def epsilon_ladder(position: Tensor) -> Tensor:
    """ε_i = 0.4^(1 + 7 i/(N−1))  (Horgan et al. 2018, section 4.1). i/(N−1), ``[B]`` in [0, 1] → ``[B]``."""
    return 0.4 ** (1 + 7 * position)


class EpsilonGreedyActor(ValueActor):
    """Acts by ``argmax_a Q(s, a)``, but with probability ε by an action sampled uniformly from all allowed.

    ε falls linearly from ``start`` to ``end`` over a fraction of the budget (Mnih et al. 2015). Noisy layers
    get new noise for every action that is not greedy; greedy actions use the mean weights, and no ε.
    As a TensorDict module it reads the Q-network's observation key and writes ``action`` (``[*]`` int64),
    with the current ε unless TorchRL's exploration type is set to another than random.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``.
        policy: the values to act by: ``q1``, or over the networks ``min`` or ``mean``.
        start: ε at the first environment step, in [0, 1].
        end: ε from ``over`` of the budget on, in [0, 1].
        over: the fraction of the budget over which ε falls, in (0, 1].
        steps: the budget, in environment steps.
        seed: seed of the actor's own generator.

    Raises:
        SettingError: a value is out of range, or ``policy`` is unknown.
    """

    epsilon: Tensor
    """ε: a buffer, so that it is saved with the weights."""

    @typed
    def __init__(
        self,
        *,
        q_net: QNetwork,
        policy: str,
        start: Probability,
        end: Probability,
        over: Fraction,
        steps: Count,
        seed: int,
    ) -> None:
        super().__init__(q_net=q_net, policy=policy, seed=seed)
        self._start, self._end, self._over = start, end, over * steps
        self._epsilon_B: Tensor | None = None
        self.register_buffer("epsilon", torch.tensor(float(start), device=self.device))

    def anneal(self, env_steps: int) -> None:
        """Set ε for this number of environment steps."""
        self.epsilon.fill_(linear(self._start, self._end, env_steps / self._over))

    def explore(self, position: Tensor, base: float) -> None:
        """From now on, explore by :func:`epsilon_ladder`, one ε per state of a batch; no use of ``base``."""
        self._epsilon_B = epsilon_ladder(position).to(self.device)

    def metrics(self) -> dict[str, float]:
        """ε, for logs."""
        return {"epsilon": self.epsilon.item()}

    def probabilities(self, score_BA: Tensor) -> Tensor:
        """1 − ε for the best action, plus ε shared by all allowed actions. ``[B, A]`` → ``[B, A]``."""
        return self._probabilities(score_BA, self.epsilon)

    def behaviour(self, score_BA: Tensor) -> Tensor:
        """As :meth:`probabilities`, with this ladder's ε if there is one."""
        ladder = self._epsilon_B
        return self._probabilities(score_BA, self.epsilon if ladder is None else ladder.unsqueeze(-1))

    def _probabilities(self, score_BA: Tensor, epsilon: Tensor) -> Tensor:
        allowed_BA = score_BA > F.EXCLUDED
        share_BA = allowed_BA * (epsilon / allowed_BA.sum(-1, keepdim=True))
        return (1 - epsilon) * super().probabilities(score_BA) + share_BA

    def sample_noise(self, score_BA: Tensor, generator: torch.Generator) -> ActionNoise:
        """A random action, ``[B]``, and u ~ U[0, 1), ``[B]``: the random action is taken where u < ε."""
        (states, actions), device = score_BA.shape, score_BA.device
        random_B = torch.randint(actions, (states,), generator=generator, device=device)
        return random_B, torch.rand(states, generator=generator, device=device)

    def select_action(self, score_BA: Tensor, noise: ActionNoise) -> Tensor:
        """The best action, or with probability ε the random one. ``[B, A]`` → ``[B]`` int64."""
        random_B, uniform_B = noise
        epsilon = self.epsilon if self._epsilon_B is None else self._epsilon_B
        return torch.where(uniform_B < epsilon, random_B, score_BA.argmax(-1))
