"""How a head's output represents the return of an action: as its mean, or as a distribution.

The soft policy is the softmax of the means. The target is the distribution of
``r + γ^m (1 − d) (Z + bonus)``. Z is the loss's backup of the next state's returns, a mixture with the
weights of :func:`~sqn_rl.functional.mixture_weights`, and the bonus is its entropy bonus.

Along a path of several steps, the share of the action taken in that mixture is replaced by the target of the
step that follows (:func:`~sqn_rl.functional.tree_backup`): in expectation this is the tree backup, exactly.

Legend: N networks, B transitions, A actions, K atoms or quantiles of an action, T steps of a path; Z numbers
represent the returns of one action: 1, K probabilities or K quantiles.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import require
from sqn_rl.parts.arguments import Count, NotNegative, Range, typed
from sqn_rl.types import Backup, Path


class Distribution(nn.Module, ABC):
    """The meaning of a head's predictions, ``[N, B, A]`` or ``[N, B, A, K]``; abstract."""

    is_mean = False
    """Whether one number stands for the returns, so that a part of it may be subtracted, as Retrace does."""

    @abstractmethod
    def mean(self, prediction: Tensor) -> Tensor:
        """The action values, ``[N, B, A]``, reward units."""

    @abstractmethod
    def returns(self, prediction: Tensor) -> Tensor:
        """What represents the returns of every action, and is averaged in a mixture, ``[N, B, A, Z]``."""

    @abstractmethod
    def discounted(self, mixture_BZ: Tensor, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """What represents reward plus discounted return, ``[B, Z]``."""

    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """The target: reward plus discounted return of the next state.

        Args:
            prediction: the target networks' predictions at s'.
            backup: maps action values of the next state to its value.
            reward_B: ``[B]``, bonuses included.
            discount_B: γ^m (1 − d), ``[B]``.

        Returns:
            ``[B, Z]``; of a :class:`PointEstimate` ``[B]``.
        """
        weight_NBA = F.mixture_weights(backup, self.mean(prediction))
        mixture_BZ = (weight_NBA.unsqueeze(-1) * self.returns(prediction)).sum((0, 2))
        return self.discounted(mixture_BZ, reward_B, discount_B)

    def path_target(self, prediction: Tensor, backup: Backup, reward_BT: Tensor, path: Path) -> Tensor:
        """The target of the first step of each path, computed backwards from the last.

        Args:
            prediction: the target networks' predictions at ``path.next_observation``, the B paths one after
                the other: ``[N, B·T, A]`` or ``[N, B·T, A, K]``.
            backup: maps the action values of those B·T states to their values.
            reward_BT: ``[B, T]``, bonuses included.
            path: the actions taken, γ (1 − d), and λ.

        Returns:
            As :meth:`target`.
        """
        weight = F.mixture_weights(backup, self.mean(prediction))
        weighted_BTAZ = (weight.unsqueeze(-1) * self.returns(prediction)).sum(0).unflatten(0, reward_BT.shape)
        weight_BTA = weight.sum(0).unflatten(0, reward_BT.shape)
        action_BT1 = path.next_action.unsqueeze(-1)
        pi_BT, trace_BT = weight_BTA.gather(-1, action_BT1).squeeze(-1), path.trace
        if path.next_log_mu is not None:  # Retrace: c = λ min(1, π/μ) in place of λ π; c/π is finite at π = 0
            trace_BT = trace_BT * torch.minimum(1 / pi_BT, (-path.next_log_mu.to(pi_BT.dtype)).exp())
        coefficient_BT = trace_BT * pi_BT  # c
        taken_BT1Z = action_BT1.unsqueeze(-1).expand(-1, -1, 1, weighted_BTAZ.shape[-1])
        taken_BTZ = trace_BT.unsqueeze(-1) * weighted_BTAZ.gather(2, taken_BT1Z).squeeze(2)
        value_BTZ = weighted_BTAZ.sum(2)
        last = reward_BT.shape[1] - 1
        target_BZ = self.discounted(value_BTZ[:, last], reward_BT[:, last], path.discount[:, last])
        for t in reversed(range(last)):
            value_BZ = F.tree_backup(value_BTZ[:, t], taken_BTZ[:, t], coefficient_BT[:, t], target_BZ)
            target_BZ = self.discounted(value_BZ, reward_BT[:, t], path.discount[:, t])
        return target_BZ

    @abstractmethod
    def loss(self, prediction: Tensor, action_B: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, with gradient, and δ of the actions taken: ``[N, B]`` each.

        The target is one for all networks, as :meth:`target` returns it, or one for each, ``[N, …]``.
        """


class PointEstimate(Distribution):
    """One number for the returns of an action, their mean; abstract: a subclass predicts and learns it."""

    is_mean = True

    def returns(self, prediction: Tensor) -> Tensor:
        """The mean, Z = 1."""
        return self.mean(prediction).unsqueeze(-1)

    def discounted(self, mixture_BZ: Tensor, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """R + γ v, ``[B, 1]``, reward units."""
        return F.td_target(reward_B.unsqueeze(-1), discount_B.unsqueeze(-1), mixture_BZ)

    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """y, ``[B]``, reward units: without the weights, which a number does not need."""
        return F.td_target(reward_B, discount_B, backup(self.mean(prediction)))

    def path_target(self, prediction: Tensor, backup: Backup, reward_BT: Tensor, path: Path) -> Tensor:
        """y, ``[B]``, reward units."""
        return super().path_target(prediction, backup, reward_BT, path).squeeze(-1)


class Scalar(PointEstimate):
    """The mean itself, learned with the squared error  (eq. 10)."""

    def mean(self, prediction: Tensor) -> Tensor:
        """The prediction."""
        return prediction

    def loss(self, prediction: Tensor, action_B: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """δ² and δ."""
        td_error_NB = F.td_error(prediction, action_B, target)
        return td_error_NB.square(), td_error_NB


Atoms = Annotated[int, Range(lambda value: value >= 2, "a whole number, at least 2")]


class Categorical(Distribution):
    """Logits of the probabilities of K evenly spaced returns: C51 (Bellemare et al. 2017).

    Args:
        v_min: the lowest return, reward units.
        v_max: the highest.
        atoms: K, the number of returns.

    Raises:
        SettingError: ``v_min`` is not below ``v_max``, or there are fewer than two atoms.
    """

    support: Tensor

    @typed
    def __init__(self, *, v_min: float, v_max: float, atoms: Atoms) -> None:
        super().__init__()
        require(-math.inf < v_min < v_max, "v_min", v_min, f"a finite number below v_max, {v_max}")
        require(v_max < math.inf, "v_max", v_max, "a finite number")
        self.register_buffer("support", torch.linspace(float(v_min), float(v_max), atoms), persistent=False)

    def mean(self, prediction: Tensor) -> Tensor:
        """Σ_k p_k z_k."""
        return prediction.softmax(-1) @ self.support

    def returns(self, prediction: Tensor) -> Tensor:
        """The probabilities of the support, Z = K."""
        return prediction.softmax(-1)

    def discounted(self, mixture_BZ: Tensor, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """The probabilities of the support once its atoms have moved, ``[B, K]``."""
        atom_BK = reward_B.unsqueeze(-1) + discount_B.unsqueeze(-1) * self.support
        return F.project(mixture_BZ, atom_BK, self.support)

    def loss(self, prediction: Tensor, action_B: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The cross entropy, and the difference of the means."""
        logit_NBK = _of_action(prediction, action_B)
        td_error_NB = self.mean(logit_NBK.detach()) - target @ self.support
        return F.cross_entropy(logit_NBK, target), td_error_NB


class Quantile(Distribution):
    """Returns at K even quantiles: QR (Dabney et al. 2018), by :func:`~sqn_rl.functional.quantile_loss`.

    Args:
        quantiles: K, the number of quantiles.
        kappa: κ, reward units, below which the loss is quadratic; 0 for plain quantile regression.

    Raises:
        SettingError: there is no quantile, or κ is negative.
    """

    @typed
    def __init__(self, *, quantiles: Count, kappa: NotNegative) -> None:
        super().__init__()
        self.quantiles, self.kappa = quantiles, kappa

    def mean(self, prediction: Tensor) -> Tensor:
        """The mean of the quantiles."""
        return prediction.mean(-1)

    def returns(self, prediction: Tensor) -> Tensor:
        """The quantiles, Z = K: a mixture is their weighted average over all networks and actions."""
        return prediction

    def discounted(self, mixture_BZ: Tensor, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """The quantiles, moved, ``[B, K]``."""
        return reward_B.unsqueeze(-1) + discount_B.unsqueeze(-1) * mixture_BZ

    def loss(self, prediction: Tensor, action_B: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The quantile Huber loss, and the difference of the means."""
        quantile_NBK = _of_action(prediction, action_B)
        td_error_NB = quantile_NBK.detach().mean(-1) - target.mean(-1)
        return F.quantile_loss(quantile_NBK, target, self.kappa), td_error_NB


def _of_action(prediction_NBAK: Tensor, action_B: Tensor) -> Tensor:
    """The predictions for the actions taken, ``[N, B, K]``."""
    return prediction_NBAK[:, torch.arange(len(action_B), device=action_B.device), action_B]
