"""The policy actor: it has a policy network of its own, as in actor-critic methods."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import WiringError, not_a_module
from sqn_rl.parts.actor.base import ActionNoise, SamplingActor
from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.memory import state_size
from sqn_rl.parts.noise import acting_view
from sqn_rl.parts.observations import observation_spec_of
from sqn_rl.parts.requirements import features_of
from sqn_rl.protocols import QNetwork


class PolicyActor(SamplingActor):
    """Acts by ``a ~ π_φ(·|s) = softmax(logits_φ(s))``, or by the most probable action when greedy.

    φ is an encoder and an output layer of its own, ``policy_net``, which a loss such as discrete SAC's
    (Christodoulou 2019) trains through :meth:`logits`. The actor acts by a view of it: the same parameters
    and buffers, in eval mode. Noisy layers of the view have their own noise, which is new for every action
    that is not greedy; greedy actions use the mean weights. As a TensorDict module it reads the Q-network's
    observation key and writes ``action`` (``[*]`` int64), ``log_prob`` (``[*]``, log π_φ of that action) and
    ``entropy`` (``[*]``, nats). It samples unless TorchRL's exploration type is set to another than random.

    Args:
        q_net: a Q-network with the observation key and shape that the policy uses too.
        encoder: makes the encoder from ``observation_shape`` and ``layer``; it must have ``out_features``.
        layer: makes a layer from ``(in_features, out_features, members=)``.
        n_actions: A, the number of actions.
        seed: seed of the actor's own generator.

    Raises:
        WiringError: the Q-network is recurrent, which a policy network is not.
    """

    policy_net: nn.Sequential

    @typed
    def __init__(
        self,
        *,
        q_net: QNetwork,
        encoder: Callable[..., nn.Module],
        layer: Callable[..., nn.Module],
        n_actions: Count,
        seed: int,
    ) -> None:
        if state_size(q_net):
            problem = f"actor: PolicyActor's own network is not recurrent, and {type(q_net).__name__} is"
            raise WiringError("actor", f"{problem}; choose q_net=twin, or actor=boltzmann", "q_net")
        one, observation_spec = partial(layer, members=1), observation_spec_of(q_net)
        features = encoder(observation_shape=observation_spec.shape, layer=one)
        if not isinstance(features, nn.Module):
            raise not_a_module("encoder", features)
        policy_net = nn.Sequential(features, one(features_of(features, "the policy"), n_actions))
        view = acting_view(policy_net)
        super().__init__(network=view, in_keys=q_net.in_keys, observation_spec=observation_spec, seed=seed)
        self.policy_net = policy_net

    def scores(self, observation: Tensor) -> Tensor:
        """The logits of the acting view, in eval mode with its noise. ``[B, *S]`` → ``[B, A]``."""
        return self._logits(self._view[0], observation)

    def select_action(self, score_BA: Tensor, noise: ActionNoise) -> Tensor:
        """Sample a ~ softmax(logits). ``[B, A]`` → ``[B]`` int64."""
        return F.gumbel_max(score_BA, noise[0])

    def log_probs(self, score_BA: Tensor) -> Tensor:
        """The log softmax(logits), ``[B, A]``."""
        return score_BA.log_softmax(-1)

    def logits(self, observation: Tensor) -> Tensor:
        """The logits of ``policy_net``, with the noise that the loss sampled and with gradient.

        ``[B, *S]`` → ``[B, A]``.
        """
        return self._logits(self.policy_net, observation)

    def _logits(self, policy_net: nn.Module, observation: Tensor) -> Tensor:
        """Logits ``[B, A]``, from a network that outputs ``[1, B, A]`` (``members=1``) or ``[B, A]``."""
        self.observation_spec.require(observation)
        logits = policy_net(observation.to(self.device))
        return logits.reshape(logits.shape[-2:])
