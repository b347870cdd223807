"""A temperature learned towards a constant target entropy (eq. 18-19)."""

import math

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import SettingError, require
from sqn_rl.parts.arguments import Count, Positive, typed
from sqn_rl.parts.temperature.base import Alpha, DualTemperature, require_reachable


class LearnedTemperature(DualTemperature):
    """α learned by dual descent towards a constant target entropy  (eq. 18-19).

    Args:
        initial: α at the start, reward units.
        target_entropy: H̄ in nats, below log A; or None.
        target_entropy_fraction: H̄ as a fraction of log A instead; exactly one of the two is given. In a
            state that allows fewer actions, it is a fraction of the logarithm of their number.
        lr: the learning rate of α's parameter.
        minimum: α is clamped to at least this after each step.
        maximum: and to at most this.
        optimise: ``log_alpha`` or, as line 16 is printed, ``alpha``.
        n_actions: A, the number of actions.

    Raises:
        SettingError: a value is out of range, or both or neither of the target entropies are given.
    """

    @typed
    def __init__(
        self,
        *,
        initial: Alpha,
        target_entropy: float | None,
        target_entropy_fraction: float | None,
        lr: Positive,
        minimum: Alpha,
        maximum: Alpha,
        optimise: str,
        n_actions: Count,
    ) -> None:
        super().__init__(initial=initial, lr=lr, minimum=minimum, maximum=maximum, optimise=optimise)
        self._fraction: float | None = None
        if target_entropy is None and target_entropy_fraction is None:
            raise SettingError("target_entropy", None, "nats here, or a fraction: target_entropy_fraction")
        if target_entropy is not None and target_entropy_fraction is not None:
            expected = f"null, as target_entropy = {target_entropy}; or set that to null"
            raise SettingError("target_entropy_fraction", target_entropy_fraction, expected)
        if target_entropy_fraction is not None:
            require(
                0 < target_entropy_fraction < 1,
                "target_entropy_fraction",
                target_entropy_fraction,
                "a fraction of log A in (0, 1)",
            )
            self._target = target_entropy_fraction * math.log(n_actions)
            self._fraction = target_entropy_fraction
        else:
            self._target = require_reachable("target_entropy", target_entropy, n_actions)

    def masked_loss(self, entropy_B: Tensor, action_mask: Tensor) -> Tensor:
        """As :meth:`loss`, of states that allow the actions of a mask, ``[B, A]`` bool. → scalar."""
        if self._fraction is None:
            return self.loss(entropy_B)
        target_B = self._fraction * action_mask.sum(-1).log()
        return F.temperature_loss(self._decode(self.parameter), entropy_B, target_B.mean())

    @property
    def target_entropy(self) -> float:
        """H̄, nats; a fraction's is that of a state in which all actions are allowed."""
        return self._target
