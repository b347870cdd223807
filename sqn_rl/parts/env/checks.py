"""What an environment must answer: the shapes and kinds that it promised, and numbers."""

import math
from collections.abc import Callable
from reprlib import Repr
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import AnswerError, NumericsError
from sqn_rl.types import Step

_short = Repr()
_short.maxother = _short.maxstring = 60


def shown(answer: Any) -> str:
    """A value in an error message, in a line: an array's shape and dtype, or a short ``repr``."""
    if isinstance(answer, np.ndarray | np.generic | Tensor):
        size = f"{list(answer.shape)} {str(answer.dtype).removeprefix('torch.')}"
        return size if answer.ndim else str(answer.item())
    return " ".join(_short.repr(answer).split())


def array(name: str, answer: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of this shape that loses nothing as a ``dtype`` but digits of a float; a list counts as one.

    Raises:
        AnswerError: it is none; names it, what it is, and what was expected.
    """
    if type(answer) is np.ndarray and answer.shape == shape and answer.dtype == dtype:
        return answer
    numbers, expected = _array(answer), f"expected {list(shape)} {dtype}"
    if numbers.dtype.kind not in "biufc":
        raise AnswerError(f"{name} is {shown(answer)}; {expected}")
    if numbers.shape != shape or numbers.dtype.kind not in ("biuf" if dtype.kind == "f" else "biu"):
        raise AnswerError(f"{name} is {list(numbers.shape)} {numbers.dtype}; {expected}")
    if dtype.kind != "f" and (lost := numbers != numbers.astype(dtype)).any():
        raise AnswerError(f"{name} holds {numbers[lost][0]}; {expected}")
    return numbers


def number(name: str, answer: Any) -> float:
    """A real number; an array of one counts as one.

    Raises:
        AnswerError: it is none.
    """
    numbers = _array(answer)
    if numbers.size != 1 or numbers.dtype.kind not in "biuf":
        raise AnswerError(f"{name} is {shown(answer)}; expected a number")
    return numbers.item()


def flag(name: str, answer: Any) -> bool:
    """True or False; 1 and 0 count as these, and an array of one.

    Raises:
        AnswerError: it is anything else.
    """
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    numbers = _array(answer)
    if numbers.size != 1 or numbers.dtype.kind not in "biuf" or numbers.item() not in (0, 1):
        raise AnswerError(f"{name} is {shown(answer)}; expected True or False")
    return bool(numbers.item())


def _array(answer: Any) -> np.ndarray:
    try:
        return np.asarray(answer)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths; a tensor that has a gradient
        return np.array(None)


def require_columns(step: Step, observation: Tensor) -> None:
    """Refuse answers of another shape or kind than this observation, ``[N, *S]``, and a value for each game.

    Raises:
        AnswerError: there is one.
    """
    numbers = {"reward": torch.float32, "score": torch.float64}
    for name, column in step._asdict().items():
        if "observation" in name:
            shape, dtype = observation.shape, observation.dtype
        else:
            shape, dtype = observation.shape[:1], numbers.get(name, torch.bool)
        fits = isinstance(column, Tensor) and column.shape == shape
        if fits and column.dtype == dtype:
            continue
        if not fits or not dtype.is_floating_point or column.dtype.is_complex:
            expected = f"{list(shape)} {str(dtype).removeprefix('torch.')}"
            raise AnswerError(f"{name} is {shown(column)}; expected {expected}")


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
