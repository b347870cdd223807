"""Scaling of observations to network inputs, from the bounds of their space."""

from typing import NamedTuple

import numpy as np
import torch

SMALL = 32
"""Numbers bounded by ±32 are not scaled: codes, and quantities such as Acrobot's ±9π rad/s."""

BYTE = (-128, 255)
"""The range of a byte, signed or not. Wider bounds are ignored: those of floats are often only formal."""


class Scaling(NamedTuple):
    """A network input is ``(x − shift) / scale``, elementwise; both have the shape ``S``."""

    shift: np.ndarray
    scale: np.ndarray


def unbounded(dtype: torch.dtype) -> tuple[int, int]:
    """Shift and scale of a dtype whose bounds are not known."""
    return (128, 128) if dtype == torch.uint8 else (0, 1)


def scaling_of(low: np.ndarray, high: np.ndarray, dtype: torch.dtype) -> Scaling | None:
    """The scaling of observations with the bounds ``low`` and ``high``, each ``S``, which may be infinite.

    An element is scaled to [−1, 1] if its bounds lie within a byte's and not both within ±32: the middle of
    its range is subtracted, and the result divided by half the range, both rounded up. So 0 to 255 gives
    (x − 128)/128, as in the authors' code. All other elements are x. Only the bounds decide, not the dtype:
    equal numbers with equal bounds give equal inputs, as bytes, integers or floats.

    Args:
        low: the lowest value of each element.
        high: the highest value of each element.
        dtype: dtype in which the observations are stored.

    Returns:
        None if it is the dtype's default: (x − 128)/128 for bytes (uint8), x for all others.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    wide = (low >= BYTE[0]) & (high <= BYTE[1]) & (np.maximum(-low, high) > SMALL)
    low, high = np.where(wide, low, -1), np.where(wide, high, 1)
    scaling = Scaling(np.ceil((low + high) / 2), np.maximum(np.ceil((high - low) / 2), 1))
    shift, scale = unbounded(dtype)
    return None if (scaling.shift == shift).all() and (scaling.scale == scale).all() else scaling


def describe_scaling(scaling: Scaling | None, dtype: torch.dtype) -> str:
    """A scaling in words, to follow "the observation is": ``scaled as (x − 128)/128``."""
    if scaling is None:
        scaling = Scaling(*map(np.array, unbounded(dtype)))
    pairs = np.stack([each.ravel() for each in scaling], 1)
    changed, kinds = int((pairs != (0, 1)).any(1).sum()), np.unique(pairs, axis=0)
    if not changed:
        return "taken as it is"
    if len(kinds) == 1:
        return "scaled as (x − {:g})/{:g}".format(*kinds[0])
    return f"{changed} of its {len(pairs)} numbers scaled to [−1, 1]"
