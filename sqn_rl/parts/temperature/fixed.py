"""A constant temperature (fig. 2d)."""

import torch
from torch import Tensor

from sqn_rl.parts.arguments import typed
from sqn_rl.parts.temperature.base import Alpha, Temperature


class FixedTemperature(Temperature):
    """A constant α: the large and the small one of figure 2d.

    Args:
        alpha: in reward units, > 0.

    Raises:
        SettingError: α is not in [1e-12, 1e12].
    """

    consumes = ()

    @typed
    def __init__(self, *, alpha: Alpha) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.tensor(float(alpha)))

    @property
    def target_entropy(self) -> None:
        """None: a fixed α has no target entropy."""
        return None

    def loss(self, entropy_B: Tensor) -> Tensor:
        """Zero, as α is not learned."""
        return entropy_B.new_zeros(())
