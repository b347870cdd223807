"""The base of all actors: a network that scores actions, its own noise, and TorchRL's interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, exploration_type

from sqn_rl import functional as F
from sqn_rl.errors import SettingError, not_a_module, require, require_bool, require_one_of
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.memory import Memory, state_size
from sqn_rl.parts.noise import Noise, acting_view
from sqn_rl.parts.observations import ObservationSpec, observation_spec_of
from sqn_rl.parts.reductions import REDUCTIONS, reduced_values
from sqn_rl.protocols import QNetwork
from sqn_rl.types import dtype_name

GREEDY = {*ExplorationType} - {ExplorationType.RANDOM}
"""TorchRL's exploration types with which actors are greedy."""

ActionNoise = tuple[Tensor, ...]
"""Noise of an action, sampled before it is selected, as random generators cannot be compiled."""

Selection = tuple[Tensor, Tensor]
"""Actions, ``[B]`` int64, and the scores from which they were selected, ``[B, A]``."""


def apply_user_mask(score_BA: Tensor, action_mask: Any) -> Tensor:
    """Check a mask given by a caller, and apply :func:`~sqn_rl.functional.masked`. ``[B, A]`` → ``[B, A]``.

    Args:
        score_BA: the scores.
        action_mask: True for the actions that are allowed, ``[A]`` for all states or ``[B, A]``: a tensor, an
            array or a list, of bools or of 0 and 1.

    Raises:
        SettingError: it has another shape or type, or allows no action in a state.
    """
    states, actions = score_BA.shape
    try:
        given = action_mask if isinstance(action_mask, Tensor) else np.asarray(action_mask)
    except ValueError as error:  # rows of different lengths
        expected = f"bool [{actions}] or [{states}, {actions}]"
        raise SettingError("action_mask", action_mask, expected) from error
    shown = f"{dtype_name(given.dtype)} {list(given.shape)}"
    fits = tuple(given.shape) in ((actions,), (states, actions))
    require(fits, "action_mask", shown, f"bool [{actions}] or [{states}, {actions}]")
    is_boolean = bool(((given == 0) | (given == 1)).all())
    require(is_boolean, "action_mask", given.tolist(), "true for each action that is allowed, else false")
    mask = torch.as_tensor(given, dtype=torch.bool, device=score_BA.device)
    none = (~mask.any(-1)).reshape(-1).nonzero().flatten().tolist()
    row = f"; row {none[0]} has none" if none and mask.dim() > 1 else ""
    require(not none, "action_mask", shown, f"at least one action that is allowed in every state{row}")
    return F.masked(score_BA, mask)


class NetworkActor(TensorDictModuleBase, ABC):
    """Acts by a network that scores actions; abstract: a subclass selects an action from the scores.

    Noisy layers get new noise for every call that is not greedy. Greedy actions, and ``log_policy``, use
    the mean weights. So acting changes only the state of the generator. The network is always in eval mode,
    in every mode of the actor, so that dropout and batch norm act as in a trained network, greedy or not.

    As a TensorDict module it reads the observation and, if present, ``action_mask`` (``[*, A]`` bool, the
    allowed actions), and writes ``action`` (``[*]`` int64) and, where it has a policy, ``log_prob`` (``[*]``,
    log π of that action) and ``entropy`` (``[*]``, nats). It is greedy where TorchRL's exploration type is
    set to any but random.

    Args:
        network: scores actions; a view made by :func:`~sqn_rl.parts.noise.acting_view`, so that its noise and
            mode are the actor's own.
        in_keys: the observation's key.
        observation_spec: the shape and dtype of the observations for which the network was built.
        seed: seed of the actor's own generator.
    """

    def __init__(
        self, *, network: nn.Module, in_keys: Sequence[str], observation_spec: ObservationSpec, seed: int
    ) -> None:
        super().__init__()
        self.in_keys, self.out_keys = list(in_keys), list(self.writes)
        self.observation_spec = observation_spec
        self._noise = Noise(network)
        self._view = (network,)  # in a tuple it is no submodule, and not in the state dict
        device = next(network.parameters()).device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self._compiled_choose: Callable[[Tensor, ActionNoise], Selection] | None = None
        self._like: Tensor | None = None  # earlier scores, for their shape and dtype

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but the acting network, which stays in eval mode."""
        super().train(mode)
        self._view[0].eval()
        return self

    # --- methods of a subclass ------------------------------------------------------------------------------

    consumes: Sequence[str] = ("observation",)
    """The keys that it reads, as the wiring shows them."""

    writes: Sequence[str] = ("action",)
    """The keys that it writes as a TensorDict module."""

    @abstractmethod
    def scores(self, observation: Tensor) -> Tensor:
        """The network's score of every action, with its current noise. ``[B, *S]`` → ``[B, A]``."""

    @abstractmethod
    def sample_noise(self, score_BA: Tensor, generator: torch.Generator) -> ActionNoise:
        """Sample the noise for actions in B states; only shape and dtype of the scores may be used."""

    @abstractmethod
    def select_action(self, score_BA: Tensor, noise: ActionNoise) -> Tensor:
        """The action for each state, given scores and noise. ``[B, A]`` → ``[B]`` int64."""

    def log_probs(self, score_BA: Tensor) -> Tensor | None:
        """The log π(·|s) from scores, ``[B, A]``; None if the actor has no policy distribution."""
        return None

    # --- methods of all actors ------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device of the network and the generator."""
        return self.generator.device

    @property
    def randomness(self) -> Mapping[str, torch.Generator | Noise]:
        """The actor's generator, and the noise of its network."""
        return {"generator": self.generator, "noise": self._noise}

    def probabilities(self, score_BA: Tensor) -> Tensor:
        """How probable every action is: its policy's, or 1 for the best. ``[B, A]`` → ``[B, A]``.

        An action whose score is :data:`~sqn_rl.functional.EXCLUDED` has probability 0.
        """
        if (log_pi_BA := self.log_probs(score_BA)) is not None:
            return log_pi_BA.exp()
        return nn.functional.one_hot(score_BA.argmax(-1), score_BA.shape[-1]).to(score_BA.dtype)

    def behaviour(self, score_BA: Tensor) -> Tensor:
        """How probable every action is to be sampled: its policy's probability, or that of its ladder."""
        return self.probabilities(score_BA)

    def choose(self, observation: Tensor, noise: ActionNoise) -> Selection:
        """Select actions with the network's current noise, and return them with their scores."""
        score_BA = self.scores(observation)
        return self.select_action(score_BA, noise), score_BA

    def use_compiled(self, choose: Callable[[Tensor, ActionNoise], Selection]) -> None:
        """Use a compiled :meth:`choose` whenever the actor's own generator is used."""
        self._compiled_choose = choose

    def mean_scores(self, observation: Tensor) -> Tensor:
        """The scores with the mean weights. ``[B, *S]`` → ``[B, A]``."""
        if not isinstance(observation, Tensor):
            self.observation_spec.require(observation)
        for layer in self._noise.layers:
            layer.set_noise(None)
        return self.scores(observation.to(self.device))

    @torch.no_grad()
    def act(
        self,
        observation: Any,
        *,
        greedy: bool = False,
        generator: torch.Generator | None = None,
        action_mask: Any = None,
    ) -> Tensor:
        """Choose an action for each observation. ``[B, *S]`` → ``[B]`` int64.

        Args:
            observation: a tensor or NumPy array, ``[B, *S]``; or a single observation, ``S``, for which the
                action is ``[]``.
            greedy: take the best action under the mean weights.
            generator: sample from this generator instead of the actor's own.
            action_mask: which actions are allowed; see :func:`apply_user_mask`. None: all.

        Raises:
            ObservationError: the network was not built for such observations.
            SettingError: the mask does not fit, or allows no action in a state; or ``greedy`` is no bool.
        """
        observations, single = self.observation_spec.batch(observation)
        action_B, _ = self._choose(observations, greedy, generator or self.generator, action_mask)
        return action_B[0] if single else action_B

    @torch.no_grad()
    def act_recorded(self, observation: Tensor, *, action_mask: Any = None) -> tuple[Tensor, Tensor]:
        """:meth:`act`, not greedy: the actions, ``[B]`` int64, and log μ(a|s) of each, ``[B]`` float32."""
        observations, _ = self.observation_spec.batch(observation)
        action_B, score_BA = self._choose(observations, False, self.generator, action_mask)
        mu_B = self.behaviour(score_BA).gather(-1, action_B.unsqueeze(-1)).squeeze(-1)
        return action_B, mu_B.clamp_min(torch.finfo(mu_B.dtype).tiny).log().float()  # finite, as 1/μ must be

    @dispatch(auto_batch_size=False)
    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the action and, where there is a policy, its log-probability and the entropy."""
        observation = tensordict.get(self.in_keys[0])
        lead = observation.shape[: observation.dim() - len(self.observation_spec.shape)]
        flat, greedy = self.observation_spec.flat(observation), exploration_type() in GREEDY
        if (mask := tensordict.get("action_mask", None)) is not None:
            mask = mask.reshape(len(flat), mask.shape[-1])
        action_B, score_BA = self._choose(flat, greedy, self.generator, mask)
        values = [action_B]
        if (log_pi_BA := self.log_probs(score_BA)) is not None:
            values += [log_pi_BA.gather(-1, action_B.unsqueeze(-1)).squeeze(-1), F.entropy(log_pi_BA)]
        for key, value_B in zip(self.out_keys, values, strict=True):
            tensordict.set(key, value_B.reshape(lead))
        return tensordict

    def _choose(
        self, observation: Tensor, greedy: bool, generator: torch.Generator, action_mask: Any = None
    ) -> Selection:
        """Actions and their scores; greedy, or with noise from ``generator``.

        Among the actions that a mask allows, they are sampled from :meth:`behaviour`.
        """
        require_bool("greedy", greedy)
        if greedy:
            score_BA = self.mean_scores(observation)
            if action_mask is not None:
                score_BA = apply_user_mask(score_BA, action_mask)
            return score_BA.argmax(-1), score_BA
        self._noise.sample(generator)
        observation = observation.to(self.device)
        if action_mask is not None:
            score_BA = apply_user_mask(self.scores(observation), action_mask)
            pi_BA = self.behaviour(score_BA)
            return F.gumbel_max(pi_BA.log(), F.exponentials(pi_BA, generator)), score_BA
        if self._compiled_choose is None or generator is not self.generator:
            score_BA = self.scores(observation)
            return self.select_action(score_BA, self.sample_noise(score_BA, generator)), score_BA
        if self._like is None or len(self._like) != len(observation):
            self._like = self.scores(observation)
        return self._compiled_choose(observation, self.sample_noise(self._like, generator))


class SamplingActor(NetworkActor):
    """Samples from the policy distribution that :meth:`log_probs` gives; abstract."""

    writes = ("action", "log_prob", "entropy")

    @abstractmethod
    def log_probs(self, score_BA: Tensor) -> Tensor:
        """The log π(·|s) from scores, ``[B, A]``."""

    def sample_noise(self, score_BA: Tensor, generator: torch.Generator) -> ActionNoise:
        """Exponential noise, ``[B, A]``."""
        return (F.exponentials(score_BA, generator),)

    @torch.no_grad()
    def log_policy(self, observation: Tensor, action_mask: Tensor | None = None) -> Tensor:
        """The log π(·|s) under the mean weights, without gradient. ``[B, *S]`` → ``[B, A]``.

        With the actions allowed there, ``[B, A]`` bool, of the policy over these.
        """
        return self.log_probs(F.masked(self.mean_scores(observation), action_mask))


class ValueActor(NetworkActor):
    """Acts by a Q-network's values; abstract.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``; the actor's ``q_net`` is a view of it:
            the same parameters and buffers, in eval mode, with its own noise.
        policy: the values to act by: ``q1``, or over the networks the minimum, ``min``, or ``mean``.
        seed: seed of the actor's own generator.

    Raises:
        SettingError: unknown ``policy``.
    """

    consumes: Sequence[str] = ("action_value",)

    @typed
    def __init__(self, *, q_net: QNetwork, policy: str, seed: int) -> None:
        require_one_of(REDUCTIONS, "policy", policy)
        if not isinstance(q_net, nn.Module):
            raise not_a_module("q_net", q_net)
        view, observation_spec = acting_view(q_net), observation_spec_of(q_net)
        super().__init__(network=view, in_keys=q_net.in_keys, observation_spec=observation_spec, seed=seed)
        self.q_net, self.policy = view, policy
        self.state_size = state_size(q_net)
        """W, the size of the networks' state; 0: they are not recurrent."""

    def scores(self, observation: Tensor) -> Tensor:
        """The action values of ``policy``, reward units. ``[B, *S]`` → ``[B, A]``."""
        return reduced_values(self.q_net, observation, self.policy)

    @torch.no_grad()
    def act_from(
        self,
        observation: Any,
        memory: Memory,
        *,
        greedy: bool = False,
        generator: torch.Generator | None = None,
        action_mask: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """:meth:`act` with recurrent networks, given the memory of each episode. ``[B, *S]``.

        Returns:
            The actions, ``[B]`` int64, and the networks' states after the observations, ``[B, W]``.
        """
        observations, _ = self.observation_spec.batch(observation)
        with self._remembering(observations, memory) as recalled:
            action_B, _ = self._choose(recalled.steps, greedy, generator or self.generator, action_mask)
            return action_B, recalled.after

    @torch.no_grad()
    def mean_scores_from(self, observation: Tensor, memory: Memory) -> Tensor:
        """The scores with the mean weights, given the memory of each episode. ``[B, *S]`` → ``[B, A]``."""
        with self._remembering(observation, memory) as recalled:
            return self.mean_scores(recalled.steps)

    def _remembering(self, observation: Tensor, memory: Memory) -> AbstractContextManager[Any]:
        network: Any = self.q_net
        return network.remembering(observation.to(self.device), memory)
