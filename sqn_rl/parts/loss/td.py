"""Temporal-difference learning: the base of all losses."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Self

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor, nn
from torchrl.objectives import LossModule

from sqn_rl import functional as F
from sqn_rl.errors import WiringError, not_a_module, require_one_of
from sqn_rl.parts.arguments import Probability, typed
from sqn_rl.parts.memory import recalling
from sqn_rl.parts.noise import Noise
from sqn_rl.parts.observations import observation_spec_of
from sqn_rl.protocols import MaskTemperature, QNetwork, Temperature
from sqn_rl.types import BATCH_KEYS, Backup, Batch, Path, Terms


class TDLoss(LossModule):
    """L_Q = Σ_i mean w ℓ(Q_i(s, a), y), y = r + γ^m (1 − d) (v(s') + bonus); a subclass defines v(s').

    ℓ is the squared error; a distributional head has its own ℓ, and y is a distribution. With a temperature
    the loss also includes L_α = α · mean (H(π(·|s)) − H̄)  (eq. 19).

    As a TensorDict module it reads ``action`` and the Q-network's observation key; under ``next`` that key,
    ``reward`` and ``terminated``; and, if present, ``steps_to_next_obs`` (m of m-step returns; ``terminated``
    must be that of the last step), ``priority_weight`` (importance weights w), ``path``
    (:class:`~sqn_rl.types.Path`), and ``action_mask`` (the allowed actions), which then must be under
    ``next`` too. It writes ``td_error`` (``[*, N]``, every network's |δ_i|) into its input, and returns the
    losses by name, ``q_mean``, and with a temperature ``alpha`` and ``entropy``. :meth:`compute` is the same
    on plain tensors. After the optimizer's step, ``temperature.refresh()`` updates α.

    Args:
        q_net: the online networks, usually in train mode; the target copies are made here, in eval mode.
        temperature: α; None for a loss that is not soft.
        gamma: γ, the discount per environment step, in [0, 1]; the same as in the replay's returns.
        seed: seed of the loss's own generator, for noisy layers and sampled next actions.

    Raises:
        SettingError: γ is out of range.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = "action"
        reward: NestedKey = "reward"
        terminated: NestedKey = "terminated"
        steps: NestedKey = "steps_to_next_obs"
        weight: NestedKey = "priority_weight"
        path: NestedKey = "path"
        action_mask: NestedKey = "action_mask"
        td_error: NestedKey = "td_error"

    default_keys = _AcceptedKeys
    backup_entropy = True
    """Whether the target has an entropy bonus, as soft n-step returns require."""
    reads_paths = True
    """Whether the target is computed along a batch's paths, where it has them."""
    reads_sequences = True
    """Whether recurrent networks are unrolled over a batch's sequences, where it has them."""

    @typed
    def __init__(
        self, *, q_net: QNetwork, temperature: Temperature | None, gamma: Probability, seed: int
    ) -> None:
        super().__init__()
        for slot, part in (("q_net", q_net), ("temperature", temperature)):
            if not isinstance(part, nn.Module | None):
                raise not_a_module(slot, part)
        self.q_net, self.temperature, self.gamma = q_net, temperature, gamma
        self._masked_loss = temperature.masked_loss if isinstance(temperature, MaskTemperature) else None
        self._observation_spec = observation_spec_of(q_net)
        self.target_q_net = deepcopy(q_net).requires_grad_(False).eval()
        device = next(q_net.parameters()).device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self._noises = {"q_net": Noise(self.q_net), "target_q_net": Noise(self.target_q_net)}
        self._named_backup: Callable[..., Tensor] = F.expected
        self._exponential_BA: Tensor | None = None  # noise with which `sampled` samples a'

    @property
    def reads_masks(self) -> bool:
        """Whether policies, maxima and means are over the allowed actions only, where a batch has masks.

        Not if ``backup`` or ``log_policy`` of a subclass has no argument for the mask.
        """
        try:
            for method in (self.backup, self.log_policy):
                signature(method).bind(*range(3))
        except TypeError:
            return False
        return True

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules but the target copies, which stay in eval mode."""
        super().train(mode)
        self.target_q_net.eval()
        return self

    # --- methods of a subclass ------------------------------------------------------------------------------

    @abstractmethod
    def backup(
        self, target_q_NBA: Tensor, next_observation: Tensor, action_mask: Tensor | None = None
    ) -> tuple[Backup, Tensor | float]:
        """The backup of the next state's values, and its bonus.

        Args:
            target_q_NBA: Q̄_i(s', ·), ``[N, B, A]``.
            next_observation: ``[B, *S]``.
            action_mask: the actions allowed there, ``[B, A]`` bool; not given where always all are.

        Returns:
            The function from action values to v(s'), ``[N, B, A]`` → ``[B]``, and the bonus to add to v(s'),
            ``[B]`` or 0. With a mask, the values that the function gets are
            :func:`~sqn_rl.functional.masked`; all others are masked here.
        """

    def reward(self, batch: Batch, q_NBA: Tensor) -> Tensor:
        """The reward in the target, ``[B]``; a subclass may add a bonus."""
        return batch.reward

    def log_policy(
        self, observation: Tensor, q_NBA: Tensor, action_mask: Tensor | None = None
    ) -> Tensor | None:
        """The log π(·|s), ``[B, A]``, with π = softmax(Q_1/α)  (eq. 20); None without a temperature.

        The values are masked; the mask, ``[B, A]``, is given only where there is one.
        """
        return None if self.temperature is None else F.log_policy(q_NBA[0], self.temperature.alpha)

    def policy_losses(self, log_pi_BA: Tensor, q_NBA: Tensor) -> dict[str, Tensor]:
        """Losses of a policy network, by name; none if the policy is Q's softmax."""
        return {}

    # --- methods of all losses ------------------------------------------------------------------------------

    @property
    def consumes(self) -> Sequence[str]:
        """The keys that it reads, as the wiring shows them."""
        return ["action_value", *BATCH_KEYS, *([] if self.temperature is None else ["alpha"])]

    @property
    def randomness(self) -> Mapping[str, torch.Generator | Noise]:
        """The loss's generator, and the noise of each of its networks."""
        noises = {f"noise of {network}": noise for network, noise in self._noises.items()}
        return {"generator": self.generator, **noises}

    def use_backup(self, name: str) -> None:
        """Set the backup of :meth:`backup_under`, a name in :data:`sqn_rl.functional.BACKUPS`.

        Raises:
            SettingError: there is no such backup.
        """
        require_one_of(F.BACKUPS, "backup", name)
        self._named_backup = F.BACKUPS[name]

    @property
    def samples_action(self) -> bool:
        """Whether the backup has one sampled action in place of the policy."""
        return self._named_backup is F.sampled

    def backup_under(self, log_pi_BA: Tensor) -> Backup:
        """The chosen backup under log π(·|s'), ``[B, A]``, with the noise from :meth:`redraw`."""
        if not self.samples_action:
            return partial(self._named_backup, log_pi_BA=log_pi_BA)
        noise_BA = self._exponential_BA
        if noise_BA is None or noise_BA.shape != log_pi_BA.shape:  # not sampled yet, outside an update
            noise_BA = F.exponentials(log_pi_BA, self.generator)
        return partial(F.sampled, log_pi_BA=log_pi_BA, exponential_BA=noise_BA)

    def compute(self, batch: Batch) -> Terms:
        """The losses of one batch, with new noise."""
        with recalling(batch.sequences, self.q_net, self.target_q_net):
            self.redraw(batch)
            return self.terms(batch)

    def redraw(self, batch: Batch) -> None:
        """Sample all noise of one update: the noisy layers' of each network, and the backup's."""
        for noise in self._noises.values():
            noise.sample(self.generator)
        if self.samples_action:
            states = len(batch.action) if batch.path is None else batch.path.next_action.numel()
            if self._exponential_BA is None or len(self._exponential_BA) != states:
                with torch.no_grad():  # for dtype and width; in eval mode, so it changes nothing
                    q_BA = self.target_q_net.first(batch.observation)
                self._exponential_BA = q_BA.new_empty(states, q_BA.shape[-1])
            self._exponential_BA = F.exponentials(self._exponential_BA, self.generator)

    def terms(self, batch: Batch) -> Terms:
        """The losses of one batch, with the noise from :meth:`redraw`."""
        distribution = self.q_net.distribution
        prediction = self.q_net.predict(batch.observation)
        q_NBA = distribution.mean(prediction.detach())
        target = self.target(batch, q_NBA)
        loss_NB, td_error_NB = distribution.loss(prediction, batch.action, target)
        losses = {"loss_q": F.td_loss(loss_NB, batch.weight)}
        masks, masked_q_NBA = _given(batch.action_mask), F.masked(q_NBA, batch.action_mask)
        if (log_pi_BA := self.log_policy(batch.observation, masked_q_NBA, *masks)) is not None:
            losses |= self.policy_losses(log_pi_BA, masked_q_NBA)
            log_pi_BA = log_pi_BA.detach()
        if self.temperature is not None and log_pi_BA is not None:
            losses["loss_alpha"] = self._temperature_loss(F.entropy(log_pi_BA), batch.action_mask)
        return Terms(losses, td_error_NB.detach(), _filled(q_NBA, batch.action_mask), log_pi_BA)

    def _temperature_loss(self, entropy_B: Tensor, action_mask: Tensor | None) -> Tensor:
        assert self.temperature is not None
        if action_mask is None or self._masked_loss is None:
            return self.temperature.loss(entropy_B)
        return self._masked_loss(entropy_B, action_mask)

    @torch.no_grad()
    def target(self, batch: Batch, q_NBA: Tensor) -> Tensor:
        """The target y of every transition  (line 12): ``[B]``, or a distributional head's target.

        If every network has a target of its own, it is ``[N, …]``.

        Args:
            batch: the transitions.
            q_NBA: Q_i(s, ·), ``[N, B, A]``.
        """
        distribution, path = self.q_net.distribution, batch.path
        next_observation, mask = batch.next_observation, batch.next_action_mask
        if path is not None:
            next_observation, mask = path.next_observation.flatten(0, 1), path.next_action_mask
            mask = mask if mask is None else mask.flatten(0, 1)
        if mask is not None:  # a terminal state may allow nothing; its value is not used, but must be finite
            mask = mask | ~mask.any(-1, keepdim=True)
        prediction = self.target_q_net.predict(next_observation)
        backup, bonus = self.backup(distribution.mean(prediction), next_observation, *_given(mask))
        if mask is not None:
            backup = partial(_masked_backup, backup, mask)
        backup = partial(self._state_values, backup)
        if isinstance(bonus, Tensor):
            self._require_one_each("the bonus of backup", bonus, len(next_observation))
        reward_B = self.reward(batch, F.masked(q_NBA, batch.action_mask))
        self._require_one_each("reward", reward_B, len(batch.reward))
        target_of: Callable[[Tensor], Tensor]
        if path is None:
            discount_B = batch.discount * ~batch.terminated
            reward_B = reward_B + discount_B * bonus
            target_of = partial(distribution.target, backup=backup, reward_B=reward_B, discount_B=discount_B)
        else:
            reward_BT = torch.cat([reward_B.unsqueeze(-1), path.reward[:, 1:]], -1)
            bonus_BT = bonus.view_as(reward_BT) if isinstance(bonus, Tensor) else bonus
            reward_BT = reward_BT + path.discount * bonus_BT
            target_of = partial(distribution.path_target, backup=backup, reward_BT=reward_BT, path=path)
        if self._named_backup is F.own:
            return torch.stack([target_of(network) for network in prediction.split(1)])
        return target_of(prediction)

    def _state_values(self, backup: Backup, q_NBA: Tensor) -> Tensor:
        value_B = backup(q_NBA)
        self._require_one_each("the function of backup", value_B, q_NBA.shape[1])
        return value_B

    def _require_one_each(self, what: str, given: Tensor, number: int) -> None:
        """Refuse another shape than ``[number]``, which would be broadcast to other targets."""
        if given.shape != (number,):
            problem = f"{what} gives {[*given.shape]}; expected [{number}], a number for each transition"
            raise WiringError("loss", f"loss: {type(self).__name__}: {problem}")

    # --- TorchRL's side -------------------------------------------------------------------------------------

    @property
    def in_keys(self) -> list[NestedKey]:
        """The required keys."""
        observation, keys = self.q_net.in_keys[0], self.tensor_keys
        following = [("next", key) for key in (observation, keys.reward, keys.terminated)]
        return [observation, keys.action, *following]

    @property
    def out_keys(self) -> list[str]:
        """The keys of the returned TensorDict."""
        soft = [] if self.temperature is None else ["loss_alpha", "alpha", "entropy"]
        return ["loss_q", "q_mean", *soft]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The losses of a TensorDict of transitions, of any batch shape."""
        terms = self.compute(self._read(tensordict))
        td_error_BN = terms.td_error.abs().mT
        tensordict.set(self.tensor_keys.td_error, td_error_BN.reshape(*tensordict.shape, -1))
        results = {**terms.losses, "q_mean": terms.q.mean()}
        if self.temperature is not None and terms.log_pi is not None:
            results |= {
                "alpha": self.temperature.alpha.clone(),
                "entropy": F.entropy(terms.log_pi).mean(),
            }
        return TensorDict({key: results[key] for key in self.out_keys})

    def _read(self, tensordict: TensorDictBase) -> Batch:
        keys, observation, flat = self.tensor_keys, self.q_net.in_keys[0], self._observation_spec.flat
        for key in self.in_keys:
            if tensordict.get(key, None) is None:
                raise KeyError(f"{key}: not in the TensorDict; the loss reads {self.in_keys} (see set_keys)")
        following = tensordict.get("next")
        action_B = tensordict.get(keys.action)
        if action_B.is_floating_point() or action_B.numel() != tensordict.numel():
            given = f"{[*action_B.shape]} {action_B.dtype}"
            raise ValueError(f"{keys.action}: expected the number of each action, not one-hot; got {given}")
        terminated_B = following.get(keys.terminated).reshape(-1)
        steps, weight, path = (tensordict.get(key, None) for key in (keys.steps, keys.weight, keys.path))
        discount_B = torch.full_like(terminated_B, self.gamma, dtype=torch.get_default_dtype())
        mask, next_mask = tensordict.get(keys.action_mask, None), following.get(keys.action_mask, None)
        if (mask is None) != (next_mask is None):
            raise KeyError(f"{keys.action_mask}: expected both it and the one under `next`, or neither")
        return Batch(
            observation=flat(tensordict.get(observation)),
            action=action_B.reshape(-1),
            reward=following.get(keys.reward).reshape(-1).to(torch.get_default_dtype()),
            next_observation=flat(following.get(observation)),
            terminated=terminated_B,
            discount=discount_B if steps is None else discount_B ** steps.reshape(-1),
            place=torch.arange(len(terminated_B)),
            weight=None if weight is None else weight.reshape(-1),
            path=None if path is None else Path(**path.reshape(-1).to_dict()),
            action_mask=None if mask is None else mask.reshape(len(terminated_B), -1),
            next_action_mask=None if next_mask is None else next_mask.reshape(len(terminated_B), -1),
        )


def _given(action_mask: Tensor | None) -> tuple[Tensor, ...]:
    """The mask as an argument, if there is one; a subclass may lack it if all actions are allowed."""
    return () if action_mask is None else (action_mask,)


def _filled(q_NBA: Tensor, allowed_BA: Tensor | None) -> Tensor:
    """The values, with those of excluded actions replaced by the mean of the others. ``[..., A]``."""
    if allowed_BA is None:
        return q_NBA
    mean_NB1 = q_NBA.where(allowed_BA, 0).sum(-1, keepdim=True) / allowed_BA.sum(-1, keepdim=True)
    return q_NBA.where(allowed_BA, mean_NB1)


def _masked_backup(backup: Backup, action_mask: Tensor, q_NBA: Tensor) -> Tensor:
    """The backup of the allowed actions' values."""
    return backup(F.masked(q_NBA, action_mask))
