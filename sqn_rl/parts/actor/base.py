"""What all actors share: a network that scores actions, noise that is theirs alone, and TorchRL's side."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, exploration_type

from sqn_rl import functional as F
from sqn_rl.errors import not_a_module, require_one_of
from sqn_rl.parts.noise import Noise, sharing
from sqn_rl.parts.observations import Observations, observations_of
from sqn_rl.protocols import QNetwork

GREEDY = (ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN)

POLICIES: dict[str, Callable[[QNetwork, Tensor], Tensor]] = {
    "q1": lambda q_net, observation: q_net.first(observation),
    "min": lambda q_net, observation: q_net.values(observation).amin(0),
}

Chance = tuple[Tensor, ...]
"""All that is random about a choice, drawn before it: random numbers of a generator cannot be compiled."""

Choice = tuple[Tensor, Tensor]
"""Actions, ``[B]`` int64, and the scores that they were chosen by, ``[B, A]``."""


class NetworkActor(TensorDictModuleBase, ABC):
    """Acts by a network that scores actions; abstract: an actor says how it draws an action from the scores.

    Noisy layers get a new noise for every action that is not greedy; greedy actions, and the policy as others
    ask for it, are those of the mean weights. So nothing is left behind but the state of the generator.
    The network is in eval mode, whatever the mode of the actor: layers such as dropout and batch norm are as
    when a trained network is used, greedy or not.

    As a TensorDict module it reads the observation and writes ``action`` (``[*]`` int64) and, where it has a
    policy, ``log_prob`` (``[*]``, log π of that action) and ``entropy`` (``[*]``, nats). It is greedy only
    where TorchRL's exploration type is deterministic, mode or mean.

    Args:
        network: scores actions; its noise and its mode are this actor's alone: a view made by
            :func:`~sqn_rl.parts.noise.sharing`.
        in_keys: the observation's key.
        observations: the shape and dtype of those that the network was built for.
        seed: of the actor's own generator.
    """

    def __init__(
        self, *, network: nn.Module, in_keys: Sequence[str], observations: Observations, seed: int
    ) -> None:
        super().__init__()
        self.in_keys, self.out_keys = list(in_keys), ["action"]
        self.observations = observations
        self._noise, self._acting = Noise(network), (network,)  # in a tuple, no submodule: not in state_dict
        device = next(network.parameters()).device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self._compiled: Callable[[Tensor, Chance], Choice] | None = None
        self._like: Tensor | None = None  # scores of the states that were there before

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the network that acts, which stays in eval mode."""
        super().train(mode)
        self._acting[0].eval()
        return self

    # --- what an actor says ---------------------------------------------------------------------------------

    @abstractmethod
    def scores(self, observation: Tensor) -> Tensor:
        """The network's score of every action, with the noise that it has. ``[B, *S]`` → ``[B, A]``."""

    @abstractmethod
    def chance(self, score_BA: Tensor, generator: torch.Generator) -> Chance:
        """Draw what is random about actions in B states, of whose scores only shape and dtype are known."""

    @abstractmethod
    def pick(self, score_BA: Tensor, chance: Chance) -> Tensor:
        """The action for each state, given its chance. ``[B, A]`` → ``[B]`` int64."""

    def policy_of(self, score_BA: Tensor) -> Tensor | None:
        """The log π(·|s), ``[B, A]``; None where the actor has no such policy."""
        return None

    # --- and what follows from it ---------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.generator.device

    def choose(self, observation: Tensor, chance: Chance) -> Choice:
        """The actions, and the scores that they are chosen by, with the noise that the network has."""
        score_BA = self.scores(observation)
        return self.pick(score_BA, chance), score_BA

    def use_compiled(self, choose: Callable[[Tensor, Chance], Choice]) -> None:
        """Choose by ``choose``, a compiled :meth:`choose`, wherever the actor's own generator is used."""
        self._compiled = choose

    def mean_scores(self, observation: Tensor) -> Tensor:
        """The scores of the mean weights. ``[B, *S]`` → ``[B, A]``."""
        for layer in self._noise.layers:
            layer.set_noise(None)
        return self.scores(observation.to(self.device))

    @torch.no_grad()
    def act(
        self, observation: Any, *, greedy: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Choose an action for each observation. ``[B, *S]`` → ``[B]`` int64.

        Args:
            observation: ``[B, *S]``, or one observation, ``S``, for which there is one action, ``[]``; a
                tensor or a NumPy array.
            greedy: take the best action of the mean weights.
            generator: draw from this one instead of the actor's own.

        Raises:
            ObservationError: the network was not built for such observations.
        """
        observations, single = self.observations.batch(observation)
        action_B, _ = self._choose(observations, greedy, generator or self.generator)
        return action_B[0] if single else action_B

    @dispatch(auto_batch_size=False)
    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action and, where there is a policy, its log-probability and the entropy."""
        observation = tensordict.get(self.in_keys[0])
        lead = observation.shape[: observation.dim() - len(self.observations.shape)]
        flat = self.observations.flat(observation)
        action_B, score_BA = self._choose(flat, exploration_type() in GREEDY, self.generator)
        values = [action_B]
        if (log_pi_BA := self.policy_of(score_BA)) is not None:
            values += [log_pi_BA.gather(-1, action_B.unsqueeze(-1)).squeeze(-1), F.entropy(log_pi_BA)]
        for key, value_B in zip(self.out_keys, values, strict=True):
            tensordict.set(key, value_B.reshape(lead))
        return tensordict

    def _choose(self, observation: Tensor, greedy: bool, generator: torch.Generator) -> Choice:
        """The actions, and the scores that they were chosen by."""
        if greedy:
            score_BA = self.mean_scores(observation)
            return score_BA.argmax(-1), score_BA
        self._noise.redraw(generator)
        observation = observation.to(self.device)
        if self._compiled is None or generator is not self.generator:
            score_BA = self.scores(observation)
            return self.pick(score_BA, self.chance(score_BA, generator)), score_BA
        if self._like is None or len(self._like) != len(observation):
            self._like = self.scores(observation)
        return self._compiled(observation, self.chance(self._like, generator))


class ValueActor(NetworkActor):
    """Acts by a Q-network's values; abstract.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``; the actor's ``q_net`` is a view of it:
            the same parameters and buffers, in eval mode, with noise of its own.
        policy: whose values: ``q1`` or ``min`` (the minimum over the networks).
        seed: of the actor's own generator.

    Raises:
        SettingError: unknown ``policy``.
    """

    def __init__(self, *, q_net: QNetwork, policy: str, seed: int) -> None:
        require_one_of(POLICIES, "policy", policy)
        if not isinstance(q_net, nn.Module):
            raise not_a_module("q_net", q_net)
        view, observations = sharing(q_net), observations_of(q_net)
        super().__init__(network=view, in_keys=q_net.in_keys, observations=observations, seed=seed)
        self.q_net, self.policy = view, policy

    def scores(self, observation: Tensor) -> Tensor:
        """The action values of ``policy``, reward units. ``[B, *S]`` → ``[B, A]``."""
        return POLICIES[self.policy](self.q_net, observation)
