"""How a head's output represents the return of an action: as its mean, or as a distribution.

The soft policy is the softmax of the means. The target is the distribution of
``r + γ^m (1 − d) (Z + bonus)``. Z is the loss's backup of the next state's returns, a mixture with the
weights of :func:`~sqn_rl.functional.mixture_weights`, and the bonus is its entropy bonus.

Legend: N networks, B transitions, A actions, K atoms or quantiles of an action.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import require
from sqn_rl.types import Backup


class Distribution(nn.Module, ABC):
    """The meaning of a head's predictions, ``[N, B, A]`` or ``[N, B, A, K]``; abstract."""

    @abstractmethod
    def mean(self, prediction: Tensor) -> Tensor:
        """The action values, ``[N, B, A]``, reward units."""

    @abstractmethod
    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Any:
        """The target: reward plus discounted return of the next state.

        Args:
            prediction: the target networks' predictions at s'.
            backup: maps action values of the next state to its value.
            reward_B: ``[B]``, bonuses included.
            discount_B: γ^m (1 − d), ``[B]``.

        Returns:
            The ``target`` argument of :meth:`loss`.
        """

    @abstractmethod
    def loss(self, prediction: Tensor, action_B: Tensor, target: Any) -> tuple[Tensor, Tensor]:
        """The loss, with gradient, and δ of the actions taken: ``[N, B]`` each."""


class Scalar(Distribution):
    """The mean itself, learned with the squared error  (eq. 10)."""

    def mean(self, prediction: Tensor) -> Tensor:
        """The prediction."""
        return prediction

    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """y, ``[B]``."""
        return F.td_target(reward_B, discount_B, backup(prediction))

    def loss(self, prediction: Tensor, action_B: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """δ² and δ."""
        td_error_NB = F.td_error(prediction, action_B, target)
        return td_error_NB.square(), td_error_NB


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

    def __init__(self, *, v_min: float, v_max: float, atoms: int) -> None:
        super().__init__()
        require(v_min < v_max, "v_min", v_min, f"a number below v_max, {v_max}")
        require(isinstance(atoms, int) and atoms > 1, "atoms", atoms, "a whole number of at least 2")
        self.register_buffer("support", torch.linspace(v_min, v_max, atoms), persistent=False)

    def mean(self, prediction: Tensor) -> Tensor:
        """Σ_k p_k z_k."""
        return prediction.softmax(-1) @ self.support

    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """The probabilities of the support, ``[B, K]``."""
        weight_NBA = F.mixture_weights(backup, self.mean(prediction))
        mixture_BK = (weight_NBA.unsqueeze(-1) * prediction.softmax(-1)).sum((0, 2))
        return F.project(
            mixture_BK, reward_B.unsqueeze(-1) + discount_B.unsqueeze(-1) * self.support, self.support
        )

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

    def __init__(self, *, quantiles: int, kappa: float) -> None:
        super().__init__()
        whole = isinstance(quantiles, int) and quantiles > 0
        require(whole, "quantiles", quantiles, "a whole number of at least 1")
        require(kappa >= 0, "kappa", kappa, "a number of at least 0")
        self.quantiles, self.kappa = quantiles, kappa

    def mean(self, prediction: Tensor) -> Tensor:
        """The mean of the quantiles."""
        return prediction.mean(-1)

    def target(self, prediction: Tensor, backup: Backup, reward_B: Tensor, discount_B: Tensor) -> Tensor:
        """The quantiles, ``[B, K]``: the weighted average over all networks and actions."""
        weight_NBA = F.mixture_weights(backup, self.mean(prediction))
        average_BK = (weight_NBA.unsqueeze(-1) * prediction).sum((0, 2))
        return reward_B.unsqueeze(-1) + discount_B.unsqueeze(-1) * average_BK

    def loss(self, prediction: Tensor, action_B: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The quantile Huber loss, and the difference of the means."""
        quantile_NBK = _of_action(prediction, action_B)
        td_error_NB = quantile_NBK.detach().mean(-1) - target.mean(-1)
        return F.quantile_loss(quantile_NBK, target, self.kappa), td_error_NB


def _of_action(prediction_NBAK: Tensor, action_B: Tensor) -> Tensor:
    """The predictions for the actions taken, ``[N, B, K]``."""
    return prediction_NBAK[:, torch.arange(len(action_B), device=action_B.device), action_B]
