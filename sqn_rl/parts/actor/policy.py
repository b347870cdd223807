"""The policy actor: a policy network of its own, as in actor-critic methods."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.parts.actor.base import Chance, NetworkActor
from sqn_rl.parts.noise import sharing
from sqn_rl.parts.observations import observations_of
from sqn_rl.protocols import QNetwork


class PolicyActor(NetworkActor):
    """Acts by ``a ~ π_φ(·|s) = softmax(logits_φ(s))``, or by the most probable action when greedy.

    φ is an encoder and a last layer of its own, ``policy_net``, which a loss such as discrete SAC's
    (Christodoulou 2019) trains through :meth:`logits`. What acts is a view of it: the same parameters and
    buffers, in eval mode, with noise of its own where there are noisy layers, redrawn for every action that
    is not greedy; greedy ones are those of the mean weights. As a
    TensorDict module it reads the Q-network's observation key and writes ``action`` (``[*]`` int64),
    ``log_prob`` (``[*]``, log π_φ of that action) and ``entropy`` (``[*]``, nats). It samples unless
    TorchRL's exploration type is deterministic, mode or mean.

    Args:
        q_net: whose observation key and shape are the policy's too.
        encoder: makes the encoder from ``observation_shape`` and ``layer``; it must have ``out_features``.
        layer: makes a layer from ``(in_features, out_features, members=)``.
        n_actions: A, the number of actions.
        seed: of the actor's own generator.
    """

    policy_net: nn.Sequential

    def __init__(
        self,
        *,
        q_net: QNetwork,
        encoder: Callable[..., nn.Module],
        layer: Callable[..., nn.Module],
        n_actions: int,
        seed: int,
    ) -> None:
        one, observations = partial(layer, members=1), observations_of(q_net)
        features = encoder(observation_shape=observations.shape, layer=one)
        policy_net = nn.Sequential(features, one(features.out_features, n_actions))
        acting = sharing(policy_net)
        super().__init__(network=acting, in_keys=q_net.in_keys, observations=observations, seed=seed)
        self.policy_net, self.out_keys = policy_net, ["action", "log_prob", "entropy"]

    def scores(self, observation: Tensor) -> Tensor:
        """The logits, with acting's noise, in eval mode. ``[B, *S]`` → ``[B, A]``."""
        return self._logits(self._acting[0], observation)

    def chance(self, score_BA: Tensor, generator: torch.Generator) -> Chance:
        """Exponentials, ``[B, A]``."""
        return (F.exponentials(score_BA, generator),)

    def pick(self, score_BA: Tensor, chance: Chance) -> Tensor:
        """The a ~ softmax(logits). ``[B, A]`` → ``[B]`` int64."""
        return F.gumbel_max(score_BA, chance[0])

    def policy_of(self, score_BA: Tensor) -> Tensor:
        """The log softmax(logits), ``[B, A]``."""
        return score_BA.log_softmax(-1)

    @torch.no_grad()
    def log_policy(self, observation: Tensor) -> Tensor:
        """The log π_φ(·|s) of the mean weights, without gradient. ``[B, *S]`` → ``[B, A]``."""
        return self.policy_of(self.mean_scores(observation))

    def logits(self, observation: Tensor) -> Tensor:
        """The logits of ``policy_net``, with the noise that the loss sampled and with gradient.

        ``[B, *S]`` → ``[B, A]``.
        """
        return self._logits(self.policy_net, observation)

    def _logits(self, policy_net: nn.Module, observation: Tensor) -> Tensor:
        """``[1, B, A]`` as of a layer for several networks, or ``[B, A]`` as of a plain one → ``[B, A]``."""
        self.observations.require(observation)
        logits = policy_net(observation.to(self.device))
        return logits.reshape(logits.shape[-2:])
