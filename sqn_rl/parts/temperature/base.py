"""The base of all temperatures: the buffer ``alpha``, and dual descent on it (eq. 18-19)."""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import SettingError, require, require_one_of
from sqn_rl.parts.arguments import Range

Alpha = Annotated[float, Range(lambda alpha: 1e-12 <= alpha <= 1e12, "a number in [1e-12, 1e12]")]
"""α, reward units. Beyond, float32 cannot divide by it, or samples actions that are not allowed."""


class Temperature(nn.Module, ABC):
    """α > 0, in reward units: the buffer ``alpha``, which other parts only read; abstract."""

    alpha: Tensor
    lr: float = 0.0  # where nothing is learned
    tensors_only = True  # it may be compiled with the optimizer's step

    @property
    @abstractmethod
    def target_entropy(self) -> float | None:
        """H̄ in nats; None if there is no target entropy."""

    @abstractmethod
    def loss(self, entropy_B: Tensor) -> Tensor:
        """L_α  (eq. 19), from the policy's entropy in B states, ``[B]``, nats. → scalar."""

    def refresh(self) -> None:
        """Update ``alpha`` from the parameter after the optimizer's step."""

    def metrics(self) -> dict[str, float | None]:
        """α and H̄, for logs."""
        return {"alpha": self.alpha.item(), "target_entropy": self.target_entropy}

    def advice(self) -> str | None:
        """A recommendation to the user; None if there is none."""
        return None


class DualTemperature(Temperature):
    """Approximate dual descent on α: rises while H < H̄, falls while H > H̄  (eq. 18-19)."""

    consumes = ("entropy",)

    def __init__(self, *, initial: float, lr: float, minimum: float, maximum: float, optimise: str) -> None:
        super().__init__()
        expected = f"a number in [minimum, maximum] = [{minimum}, {maximum}]"
        require(minimum <= initial <= maximum, "initial", initial, expected)
        require_one_of(("log_alpha", "alpha"), "optimise", optimise)
        self.lr, self.optimise = lr, optimise
        self._minimum, self._maximum = self._encode(minimum), self._encode(maximum)
        self.parameter = nn.Parameter(torch.tensor(self._encode(initial)))
        self.register_buffer("alpha", self._decode(self.parameter).detach().clone())

    def loss(self, entropy_B: Tensor) -> Tensor:
        """α · mean (H − H̄), with the gradient of α's parameter."""
        assert self.target_entropy is not None
        return F.temperature_loss(self._decode(self.parameter), entropy_B, self.target_entropy)

    @torch.no_grad()
    def refresh(self) -> None:
        """Clamp the parameter after the optimizer's step and write ``alpha``, in place."""
        self.parameter.clamp_(self._minimum, self._maximum)
        if self.optimise == "log_alpha":
            torch.exp(self.parameter, out=self.alpha)
        else:
            self.alpha.copy_(self.parameter)

    def advice(self) -> str | None:
        """A recommendation if α has reached a bound."""
        for bound, name, other in ((self._minimum, "minimum", "higher"), (self._maximum, "maximum", "lower")):
            if self.parameter.item() == torch.tensor(bound).item():
                hint = f"change temperature.{name}, or set a {other} target entropy"
                return f"α has reached its {name}, {self.alpha.item():.3g}: {hint}"
        return None

    def _encode(self, alpha: float) -> float:
        return math.log(alpha) if self.optimise == "log_alpha" else float(alpha)

    def _decode(self, parameter: Tensor) -> Tensor:
        return parameter.exp() if self.optimise == "log_alpha" else parameter


def require_reachable(field: str, nats: float | None, n_actions: int) -> float:
    """Return a target entropy; :class:`~sqn_rl.errors.SettingError` unless a policy can have it."""
    limit = math.log(n_actions)
    if n_actions == 1 and nats is not None and nats >= 0:
        return 0.0  # with one action the entropy is always 0
    expected = f"nats in [0, {limit:.3f}): log {n_actions} is the entropy of a random policy"
    if nats is None or not 0 <= nats < limit:
        raise SettingError(field, nats, expected)
    return nats
