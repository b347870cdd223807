"""The soft Q-network's loss (Algorithm 1, lines 10 to 16)."""

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor
from torchrl.objectives import LossModule

from sqn_rl import functional as F
from sqn_rl.contracts import QNetwork
from sqn_rl.data import Batch
from sqn_rl.errors import require, require_one_of
from sqn_rl.losses.temperature import Temperature

POLICY_SOURCES = ("q1", "target_q1", "min", "target_min")


class SQNTerms(NamedTuple):
    """The two losses, and what they were made of, for logging and priorities."""

    loss_q: Tensor
    """scalar, with gradient."""
    loss_alpha: Tensor
    """scalar, with gradient."""
    td_error: Tensor
    """δ_i, ``[N, B]``."""
    q: Tensor
    """Q_i(s, ·), ``[N, B, A]``."""
    log_pi: Tensor
    """log π(·|s), ``[B, A]``."""


class SQNLoss(LossModule):
    """L_Q = Σ_i mean (Q_i(s, a) − y)², y = r + γ(1 − d) v(s'); and L_α = α · mean (H(π(·|s)) − H̄).

    Equations 10, 12 and 19, lines 11 to 16 of Algorithm 1. The entropy is the exact one. Departures from the
    text as printed: the target network is used in the target (eq. 13 has lost its bar and γ), both losses
    descend (lines 14 and 16 print ``+``), and ``expected`` is the default of ``backup``.

    As a TensorDict module it reads the Q-network's observation key here and under ``next``, ``action``,
    ``reward`` and ``terminated`` under ``next``, and, where present, ``steps_to_next_obs`` (m of m-step
    returns) and ``priority_weight`` (importance weights). It writes ``td_error`` (``[*]``, the mean of the
    two |δ_i|) into its input, and returns ``loss_q``, ``loss_alpha``, ``alpha``, ``entropy`` and ``q_mean``.
    :meth:`compute` is the same on plain tensors. After the optimizer's step, ``temperature.refresh()`` makes
    α what was learned.

    Args:
        q_net: the online networks; the target copies are made here.
        temperature: α.
        gamma: γ, the discount per environment step, in [0, 1].
        backup: what the next state is worth, a name of :data:`sqn_rl.functional.BACKUPS`.
        policy_source: whose softmax is the policy in the backup: ``q1`` (the paper's), ``target_q1``,
            ``min``, ``target_min``.
        backup_entropy: whether the entropy bonus is part of the target.
        seed: of the generator that draws a' for the ``sampled`` backup.

    Raises:
        SettingError: a value is out of range or unknown.
    """

    @dataclass
    class _AcceptedKeys:
        action: NestedKey = "action"
        reward: NestedKey = "reward"
        terminated: NestedKey = "terminated"
        steps: NestedKey = "steps_to_next_obs"
        weight: NestedKey = "priority_weight"
        td_error: NestedKey = "td_error"

    default_keys = _AcceptedKeys

    def __init__(
        self,
        *,
        q_net: QNetwork,
        temperature: Temperature,
        gamma: float,
        backup: str,
        policy_source: str,
        backup_entropy: bool,
        seed: int,
    ) -> None:
        super().__init__()
        require(0 <= gamma <= 1, "gamma", gamma, "a number in [0, 1]")
        require_one_of(F.BACKUPS, "backup", backup)
        require_one_of(POLICY_SOURCES, "policy_source", policy_source)
        self.q_net, self.temperature = q_net, temperature
        self.target_q_net = deepcopy(q_net).requires_grad_(False)
        self.gamma, self.backup_entropy = gamma, backup_entropy
        self.backup, self.policy_source = backup, policy_source
        self.generator = torch.Generator(device=temperature.alpha.device).manual_seed(seed)
        draws = {"generator": self.generator} if backup == "sampled" else {}
        self._backup = partial(F.BACKUPS[backup], **draws)
        self._from_target, self._from_min = policy_source.startswith("target_"), policy_source.endswith("min")

    @property
    def in_keys(self) -> list[NestedKey]:
        """The keys that must be there."""
        observation, keys = self.q_net.in_keys[0], self.tensor_keys
        following = [("next", key) for key in (observation, keys.reward, keys.terminated)]
        return [observation, keys.action, *following]

    @property
    def out_keys(self) -> list[str]:
        """The keys of the returned TensorDict."""
        return ["loss_q", "loss_alpha", "alpha", "entropy", "q_mean"]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The losses of a TensorDict of transitions, of any batch shape."""
        batch, weight_B = self._read(tensordict)
        terms = self.compute(batch, weight_B)
        td_error_B = terms.td_error.abs().mean(0)
        tensordict.set(self.tensor_keys.td_error, td_error_B.reshape(tensordict.shape))
        alpha, entropy = self.temperature.alpha.clone(), F.entropy(terms.log_pi).mean()
        values = (terms.loss_q, terms.loss_alpha, alpha, entropy, terms.q.mean())
        return TensorDict(dict(zip(self.out_keys, values, strict=True)))

    def compute(self, batch: Batch, weight: Tensor | None = None) -> SQNTerms:
        """The losses of one batch, on plain tensors; ``weight`` are importance weights, ``[B]``."""
        q_NBA = self.q_net.values(batch.observation)
        discount_B = batch.discount * ~batch.terminated
        target_B = F.td_target(batch.reward, discount_B, self.next_value(batch.next_observation))
        td_error_NB = F.td_error(q_NBA, batch.action, target_B)
        log_pi_BA = F.log_policy(q_NBA[0].detach(), self.temperature.alpha)
        return SQNTerms(
            loss_q=F.td_loss(td_error_NB, weight),
            loss_alpha=self.temperature.loss(F.entropy(log_pi_BA)),
            td_error=td_error_NB.detach(),
            q=q_NBA.detach(),
            log_pi=log_pi_BA,
        )

    @torch.no_grad()
    def next_value(self, next_observation: Tensor) -> Tensor:
        """v(s'), the soft value of the next state  (line 11). ``[B, *S]`` → ``[B]``."""
        target_q_NBA = self.target_q_net.values(next_observation)
        policy_q_NBA = target_q_NBA if self._from_target else self.q_net.values(next_observation)
        policy_q_BA = policy_q_NBA.amin(0) if self._from_min else policy_q_NBA[0]
        alpha = self.temperature.alpha
        log_pi_BA = F.log_policy(policy_q_BA, alpha)
        value_B = self._backup(target_q_NBA, log_pi_BA)
        return value_B + alpha * F.entropy(log_pi_BA) if self.backup_entropy else value_B

    def _read(self, tensordict: TensorDictBase) -> tuple[Batch, Tensor | None]:
        keys, observation, shape = self.tensor_keys, self.q_net.in_keys[0], self.q_net.observation_shape
        following = tensordict.get("next")
        terminated_B = following.get(keys.terminated).reshape(-1)
        steps = tensordict.get(keys.steps, None)
        discount_B = torch.full_like(terminated_B, self.gamma, dtype=torch.float32)
        weight = tensordict.get(keys.weight, None)
        batch = Batch(
            observation=tensordict.get(observation).reshape(-1, *shape),
            action=tensordict.get(keys.action).reshape(-1),
            reward=following.get(keys.reward).reshape(-1),
            next_observation=following.get(observation).reshape(-1, *shape),
            terminated=terminated_B,
            discount=discount_B if steps is None else discount_B ** steps.reshape(-1),
            place=torch.arange(len(terminated_B)),
        )
        return batch, None if weight is None else weight.reshape(-1)
