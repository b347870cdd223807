"""What an environment must answer: the shapes that it promised, and numbers."""

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from sqn_rl.data import Step
from sqn_rl.errors import NumericsError


def require_shapes(step: Step, observation: Tensor) -> None:
    """Refuse answers of another shape than this observation, ``[N, *S]``, and one number for each game.

    Raises:
        ValueError: there is one.
    """
    for name, column in step._asdict().items():
        shape = observation.shape if "observation" in name else observation.shape[:1]
        if column.shape != shape:
            raise ValueError(f"{name} is {list(column.shape)}; expected {list(shape)}")


def require_finite(name: str, column: np.ndarray, where: Callable[[int], str]) -> None:
    """Refuse NaN and infinity in what every game answered, ``[N, *]``; nothing else costs a microsecond.

    Args:
        name: what it is.
        column: bytes are always right.
        where: says which game a row is.

    Raises:
        NumericsError: there is one.
    """
    if column.dtype.kind != "f" or math.isfinite(np.vdot(column, column)):
        return
    bad = np.argwhere(~np.isfinite(column)).tolist()
    if bad:  # else only the product was too large
        row, *place = bad[0]
        raise NumericsError(f"{where(row)}: {name}{place or ''} = {column[(row, *place)]}")
