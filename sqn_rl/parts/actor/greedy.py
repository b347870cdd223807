"""The greedy actor: for networks that explore by their own noise."""

import torch
from torch import Tensor

from sqn_rl.parts.actor.base import Chance, ValueActor


class GreedyActor(ValueActor):
    """Acts by ``argmax_a Q(s, a)``: what explores is the noise of noisy layers (Fortunato et al. 2018).

    It is redrawn for every action; greedy evaluation takes the best action of the mean weights. Without noisy
    layers the two are the same, and nothing explores after the warm-up. As a TensorDict module it reads the
    Q-network's observation key and writes ``action`` (``[*]`` int64), with noise unless TorchRL's exploration
    type is deterministic, mode or mean.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``.
        policy: whose values: ``q1`` or ``min`` (the minimum over the networks).
        seed: of the generator of its noise.

    Raises:
        SettingError: unknown ``policy``.
    """

    def chance(self, score_BA: Tensor, generator: torch.Generator) -> Chance:
        """Nothing: the noise of the layers is drawn for every actor."""
        return ()

    def pick(self, score_BA: Tensor, chance: Chance) -> Tensor:
        """The best action. ``[B, A]`` → ``[B]`` int64."""
        return score_BA.argmax(-1)
