"""A temperature learned towards a falling target entropy, which is not in the paper."""

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.arguments import Count, Fraction, Positive, typed
from sqn_rl.parts.schedule import linear
from sqn_rl.parts.temperature.base import Alpha, DualTemperature, require_reachable


class AnnealedTemperature(DualTemperature):
    """α learned towards a target entropy that changes linearly from ``start`` to ``end``, both in nats.

    Args:
        initial: α at the start, reward units.
        start: H̄ at the first environment step, nats, below log A.
        end: H̄ from ``over`` of the budget on, nats, below log A.
        over: the fraction of the budget over which H̄ changes, in (0, 1].
        lr: the learning rate of α's parameter.
        minimum: α is clamped to at least this after each step.
        maximum: and to at most this.
        optimise: ``log_alpha`` or ``alpha``.
        n_actions: A, the number of actions.
        steps: the budget, in environment steps.

    Raises:
        SettingError: a value is out of range.
    """

    _target_buffer: Tensor

    @typed
    def __init__(
        self,
        *,
        initial: Alpha,
        start: float,
        end: float,
        over: Fraction,
        lr: Positive,
        minimum: Alpha,
        maximum: Alpha,
        optimise: str,
        n_actions: Count,
        steps: Count,
    ) -> None:
        super().__init__(initial=initial, lr=lr, minimum=minimum, maximum=maximum, optimise=optimise)
        self._start = require_reachable("start", start, n_actions)
        self._end = require_reachable("end", end, n_actions)
        self._over = over * steps
        # H̄ as a buffer: a number would become a constant of compiled code
        self.register_buffer("_target_buffer", torch.zeros(()), persistent=False)
        self.anneal(0)

    def anneal(self, env_steps: int) -> None:
        """Set H̄ for this number of environment steps."""
        self._target = linear(self._start, self._end, env_steps / self._over)
        self._target_buffer.fill_(self._target)

    def loss(self, entropy_B: Tensor) -> Tensor:
        """α · mean (H − H̄), with the gradient of α's parameter."""
        return F.temperature_loss(self._decode(self.parameter), entropy_B, self._target_buffer)

    @property
    def target_entropy(self) -> float:
        """H̄ at the current step, nats."""
        return self._target
