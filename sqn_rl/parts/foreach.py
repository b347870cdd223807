"""Operations on many tensors at once: PyTorch has no public names for them, and a loop takes far longer."""

import torch
from torch import Tensor


def copy_each(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy each source into its target."""
    torch._foreach_copy_(targets, sources)


def lerp_each(targets: list[Tensor], sources: list[Tensor], weight: float) -> None:
    """Move each target towards its source: target ← target + weight (source − target)."""
    torch._foreach_lerp_(targets, sources, weight)
