"""The temperature α: fixed, learned, or learned towards a target entropy that decays (eq. 18-19, fig. 2d)."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from sqn_rl import functional as F
from sqn_rl.errors import SettingError, require, require_one_of


class Temperature(nn.Module, ABC):
    """α > 0, in reward units: the buffer ``alpha``, which everybody reads and only the temperature writes."""

    alpha: Tensor
    tensors_only = True  # so that it may be compiled with the optimizer's step

    @property
    @abstractmethod
    def target_entropy(self) -> float | None:
        """H̄ in nats; None where nothing is aimed at."""

    @abstractmethod
    def loss(self, entropy_B: Tensor) -> Tensor:
        """L_α  (eq. 19), from the policy's entropy at B states, ``[B]``, nats. → scalar."""

    def refresh(self) -> None:
        """Make ``alpha`` what the optimizer's step has made of the parameter."""

    def metrics(self) -> dict[str, float | None]:
        """α and H̄, for logs."""
        return {"alpha": self.alpha.item(), "target_entropy": self.target_entropy}

    def advice(self) -> str | None:
        """What a person should change; None where there is nothing."""
        return None


class FixedTemperature(Temperature):
    """A constant α: the large and the small one of figure 2d.

    Args:
        alpha: in reward units, > 0.

    Raises:
        SettingError: α is not positive and finite.
    """

    def __init__(self, *, alpha: float) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.tensor(_positive("alpha", alpha)))

    @property
    def target_entropy(self) -> None:
        """None: a fixed α aims at no entropy."""
        return None

    def loss(self, entropy_B: Tensor) -> Tensor:
        """Zero: there is nothing to learn."""
        return entropy_B.new_zeros(())


class DualTemperature(Temperature):
    """Approximate dual descent on α: rises while H < H̄, falls while H > H̄  (eq. 18-19)."""

    def __init__(self, *, initial: float, lr: float, minimum: float, maximum: float, optimise: str) -> None:
        super().__init__()
        for field, value in {"initial": initial, "lr": lr, "minimum": minimum, "maximum": maximum}.items():
            _positive(field, value)
        require(minimum <= initial <= maximum, "initial", initial, f"a number in [{minimum}, {maximum}]")
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
        """What to change where α cannot go further."""
        for bound, name, other in ((self._minimum, "minimum", "higher"), (self._maximum, "maximum", "lower")):
            if self.parameter.item() == torch.tensor(bound).item():
                mend = f"set temperature.{name} elsewhere, or aim at a {other} target entropy"
                return f"α has reached its {name}, {self.alpha.item():.3g}: {mend}"
        return None

    def _encode(self, alpha: float) -> float:
        return math.log(alpha) if self.optimise == "log_alpha" else float(alpha)

    def _decode(self, parameter: Tensor) -> Tensor:
        return parameter.exp() if self.optimise == "log_alpha" else parameter


class LearnedTemperature(DualTemperature):
    """α learned by dual descent towards a constant target entropy  (eq. 18-19).

    Args:
        initial: α at the start, reward units.
        target_entropy: H̄ in nats, below log A; or None.
        target_entropy_fraction: H̄ as a fraction of log A instead; exactly one of the two is given.
        lr: the learning rate of α's parameter.
        minimum: α is clamped to at least this after each step.
        maximum: and to at most this.
        optimise: ``log_alpha`` or, as line 16 is printed, ``alpha``.
        n_actions: A, the number of actions.

    Raises:
        SettingError: a value is out of range, or both or neither of the target entropies are given.
    """

    def __init__(
        self,
        *,
        initial: float,
        target_entropy: float | None,
        target_entropy_fraction: float | None,
        lr: float,
        minimum: float,
        maximum: float,
        optimise: str,
        n_actions: int,
    ) -> None:
        super().__init__(initial=initial, lr=lr, minimum=minimum, maximum=maximum, optimise=optimise)
        if (target_entropy is None) == (target_entropy_fraction is None):
            raise SettingError(
                "target_entropy",
                target_entropy,
                "nats here, or target_entropy_fraction, and null for the other",
            )
        if target_entropy_fraction is not None:
            require(
                0 < target_entropy_fraction < 1,
                "target_entropy_fraction",
                target_entropy_fraction,
                "a fraction of log A in (0, 1)",
            )
            self._target = target_entropy_fraction * math.log(n_actions)
        else:
            self._target = _reachable("target_entropy", target_entropy, n_actions)

    @property
    def target_entropy(self) -> float:
        """H̄, nats."""
        return self._target


class AnnealedTemperature(DualTemperature):
    """α learned towards a target entropy that falls linearly from ``start`` to ``end``, both in nats.

    Args:
        initial: α at the start, reward units.
        start: H̄ at the first environment step, nats, below log A.
        end: H̄ from ``over`` of the budget on, nats, below log A.
        over: the fraction of the budget over which H̄ falls, in (0, 1].
        lr: the learning rate of α's parameter.
        minimum: α is clamped to at least this after each step.
        maximum: and to at most this.
        optimise: ``log_alpha`` or ``alpha``.
        n_actions: A, the number of actions.
        steps: the budget, in environment steps.

    Raises:
        SettingError: a value is out of range.
    """

    _aim: Tensor

    def __init__(
        self,
        *,
        initial: float,
        start: float,
        end: float,
        over: float,
        lr: float,
        minimum: float,
        maximum: float,
        optimise: str,
        n_actions: int,
        steps: int,
    ) -> None:
        super().__init__(initial=initial, lr=lr, minimum=minimum, maximum=maximum, optimise=optimise)
        self._start, self._end = _reachable("start", start, n_actions), _reachable("end", end, n_actions)
        self._over = _fraction("over", over) * steps
        self.register_buffer("_aim", torch.zeros(()), persistent=False)  # H̄; a number would be compiled in
        self.anneal(0)

    def anneal(self, env_steps: int) -> None:
        """Set H̄ for this many environment steps taken."""
        progress = min(1.0, env_steps / self._over)
        self._target = self._start + progress * (self._end - self._start)
        self._aim.fill_(self._target)

    def loss(self, entropy_B: Tensor) -> Tensor:
        """α · mean (H − H̄), with the gradient of α's parameter."""
        return F.temperature_loss(self._decode(self.parameter), entropy_B, self._aim)

    @property
    def target_entropy(self) -> float:
        """H̄ at the present step, nats."""
        return self._target


def no_temperature() -> None:
    """None: for losses and actors that have no temperature."""


def _positive(field: str, value: float) -> float:
    require(0 < value < math.inf, field, value, "a positive number")
    return float(value)


def _fraction(field: str, value: float) -> float:
    require(0 < value <= 1, field, value, "a fraction in (0, 1]")
    return value


def _reachable(field: str, nats: float | None, n_actions: int) -> float:
    limit = math.log(n_actions)
    if n_actions == 1 and nats is not None and nats >= 0:
        return 0.0  # which the entropy is, whatever the policy
    expected = f"nats in [0, {limit:.3f}): log {n_actions} is the entropy of a random policy"
    if nats is None or not 0 <= nats < limit:
        raise SettingError(field, nats, expected)
    return nats
