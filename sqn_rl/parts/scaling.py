"""How the numbers of an observation become the inputs of a network: by what their space says of them."""

from typing import NamedTuple

import numpy as np
import torch

SMALL = 32
"""Numbers that stay within ±32 are inputs as they are: codes, and quantities such as Acrobot's ±9π rad/s."""

BYTE = (-128, 255)
"""What a byte holds, signed or not. Wider bounds say little: those of floats are often only formal."""


class Scaling(NamedTuple):
    """An input is ``(x − shift) / scale``, element by element; both are ``S``."""

    shift: np.ndarray
    scale: np.ndarray


def plain(dtype: torch.dtype) -> tuple[int, int]:
    """Shift and scale of numbers without bounds."""
    return (128, 128) if dtype == torch.uint8 else (0, 1)


def scaling_of(low: np.ndarray, high: np.ndarray, dtype: torch.dtype) -> Scaling | None:
    """The scaling of observations between ``low`` and ``high``, elements of ``S``, which may be infinite.

    An element is brought to [−1, 1] where its bounds lie within a byte's and not both within ±32: less the
    middle of its range, divided by half the range, both rounded up; so that 0 to 255 gives (x − 128)/128,
    as in the authors' code. All others are x. The bounds decide, never the dtype: equal numbers of equal
    bounds give equal inputs, as bytes, integers or floats.

    Args:
        low: the least value of each element.
        high: the greatest.
        dtype: as the observations are stored.

    Returns:
        None where it is that of the dtype without bounds: (x − 128)/128 of bytes (uint8), x of all others.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    wide = (low >= BYTE[0]) & (high <= BYTE[1]) & (np.maximum(-low, high) > SMALL)
    low, high = np.where(wide, low, -1), np.where(wide, high, 1)
    scaling = Scaling(np.ceil((low + high) / 2), np.maximum(np.ceil((high - low) / 2), 1))
    shift, scale = plain(dtype)
    return None if (scaling.shift == shift).all() and (scaling.scale == scale).all() else scaling


def in_words(scaling: Scaling | None, dtype: torch.dtype) -> str:
    """What :func:`scaling_of` says, after "the observation is": ``scaled as (x − 128)/128``."""
    if scaling is None:
        scaling = Scaling(*map(np.array, plain(dtype)))
    pairs = np.stack([each.ravel() for each in scaling], 1)
    changed, kinds = int((pairs != (0, 1)).any(1).sum()), np.unique(pairs, axis=0)
    if not changed:
        return "taken as it is"
    if len(kinds) == 1:
        return "scaled as (x − {:g})/{:g}".format(*kinds[0])
    return f"{changed} of its {len(pairs)} numbers scaled to [−1, 1]"
