"""The greedy actor: for networks that explore by their own noise."""

import torch
from torch import Tensor

from sqn_rl.parts.actor.base import ActionNoise, ValueActor
from sqn_rl.protocols import Actor, QNetwork


class GreedyActor(ValueActor):
    """Acts by ``argmax_a Q(s, a)``; the noise of noisy layers explores (Fortunato et al. 2018).

    Every action gets new noise; greedy evaluation takes the best action under the mean weights. Without noisy
    layers the two are the same, and nothing explores after the warm-up. As a TensorDict module it reads the
    Q-network's observation key and writes ``action`` (``[*]`` int64), with noise unless TorchRL's exploration
    type is set to another than random.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``.
        policy: the values to act by: ``q1``, or over the networks ``min`` or ``mean``.
        seed: seed of the noise's generator.

    Raises:
        SettingError: unknown ``policy``.
    """

    def sample_noise(self, score_BA: Tensor, generator: torch.Generator) -> ActionNoise:
        """No noise besides the noisy layers', which all actors sample."""
        return ()

    def select_action(self, score_BA: Tensor, noise: ActionNoise) -> Tensor:
        """The best action. ``[B, A]`` → ``[B]`` int64."""
        return score_BA.argmax(-1)


def value_actor(actor: Actor, q_net: QNetwork) -> ValueActor:
    """The actor itself if it acts by action values; else one that acts by ``Q_1`` of ``q_net``."""
    return actor if isinstance(actor, ValueActor) else GreedyActor(q_net=q_net, policy="q1", seed=0)
