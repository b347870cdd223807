"""Checks of what an environment returns: types, shapes, and finite numbers."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from reprlib import Repr
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import AnswerError, NumericsError, require
from sqn_rl.types import Step, dtype_name

_short = Repr()
_short.maxother = _short.maxstring = 60


def describe(answer: Any) -> str:
    """A value for an error message, in one line: an array's shape and dtype, or a short ``repr``."""
    if isinstance(answer, np.ndarray | np.generic | Tensor):
        size = f"{list(answer.shape)} {dtype_name(answer.dtype)}"
        return size if answer.ndim else str(answer.item())
    return " ".join(_short.repr(answer).split())


def array(name: str, answer: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return ``answer`` as an array of this shape whose conversion to ``dtype`` loses at most float digits.

    Raises:
        AnswerError: it is not such an array or list; the message has name, type, and the expected type.
    """
    if type(answer) is np.ndarray and answer.shape == shape and answer.dtype == dtype:
        return answer
    numbers, expected = as_array(answer), f"expected {list(shape)} {dtype}"
    if numbers.dtype.kind not in "biufc":
        raise AnswerError(f"{name} is {describe(answer)}; {expected}")
    if numbers.shape != shape or numbers.dtype.kind not in ("biuf" if dtype.kind == "f" else "biu"):
        raise AnswerError(f"{name} is {list(numbers.shape)} {numbers.dtype}; {expected}")
    if dtype.kind != "f" and (lost := numbers != numbers.astype(dtype)).any():
        raise AnswerError(f"{name} holds {numbers[lost][0]}; {expected}")
    return numbers


def array_or_batch(
    name: str, answer: Any, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[np.ndarray, bool]:
    """As :func:`array`, for one array ``S`` or a batch: ``[B, *S]``, and whether it was a single array.

    Raises:
        AnswerError: it is neither.
    """
    dims = as_array(answer).shape
    single = len(dims) <= len(shape)
    numbers = array(name, answer, shape if single else (dims[0], *shape), dtype)
    return (numbers[None] if single else numbers), single


def number(name: str, answer: Any) -> float:
    """Return ``answer`` as a real number; an array with one element is accepted.

    Raises:
        AnswerError: it is not a real number.
    """
    numbers = as_array(answer)
    if numbers.size != 1 or numbers.dtype.kind not in "biuf":
        raise AnswerError(f"{name} is {describe(answer)}; expected a number")
    return numbers.item()


def flag(name: str, answer: Any) -> bool:
    """Return ``answer`` as a bool; 0, 1, and an array with one element are accepted.

    Raises:
        AnswerError: it is anything else.
    """
    if isinstance(answer, bool | np.bool_):
        return bool(answer)
    numbers = as_array(answer)
    if numbers.size != 1 or numbers.dtype.kind not in "biuf" or numbers.item() not in (0, 1):
        raise AnswerError(f"{name} is {describe(answer)}; expected True or False")
    return bool(numbers.item())


def as_array(answer: Any) -> np.ndarray:
    """``answer`` as an array; an array of None if it cannot be converted."""
    try:
        return np.asarray(answer)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths; a tensor that has a gradient
        return np.array(None)


def indices(rows: Sequence[int] | None, num_envs: int) -> Sequence[int]:
    """The indices of the environments ``rows``, each once; of all if it is None.

    Raises:
        SettingError: one is no index of an environment.
    """
    if rows is None:
        return range(num_envs)
    are_rows = isinstance(rows, Sequence | np.ndarray) and all(
        isinstance(row, Integral) and 0 <= int(row) < num_envs for row in rows
    )
    require(are_rows, "rows", rows, f"a list of whole numbers in [0, {num_envs})")
    return [*dict.fromkeys(rows)]


def require_columns(step: Step, observation: Tensor) -> None:
    """Check that observations are like ``observation``, ``[N, *S]``, and all other columns are ``[N]``.

    Optional columns, such as action masks, are checked if they are given.

    Raises:
        AnswerError: it is no step, a column has another shape or dtype, or the flags contradict each other.
    """
    if not isinstance(step, Step):
        raise AnswerError(f"advance() returned {describe(step)}; expected a sqn_rl.Step")
    numbers = {"reward": torch.float32, "score": torch.float64}
    for name, column in step._asdict().items():
        if column is None and name in Step._field_defaults:
            continue
        if "mask" in name:
            shape, dtype = torch.Size([len(observation), *column.shape[1:]]), torch.bool
        elif "observation" in name:
            shape, dtype = observation.shape, observation.dtype
        else:
            shape, dtype = observation.shape[:1], numbers.get(name, torch.bool)
        fits = isinstance(column, Tensor) and column.shape == shape
        if fits and column.dtype == dtype:
            continue
        if not fits or not dtype.is_floating_point or column.dtype.is_complex:
            expected = f"{list(shape)} {dtype_name(dtype)}"
            raise AnswerError(f"{name} is {describe(column)}; expected {expected}")
    terminated, truncated, ended = (flags.numpy(force=True) for flags in step[3:6])
    if (truncated & ~ended).any():
        raise AnswerError("an episode is truncated and not ended; expected `ended` where it is truncated")
    if (ended & ~(terminated | truncated)).any():
        raise AnswerError("an episode is ended and neither terminated nor truncated; expected one of the two")


def require_finite(name: str, column: np.ndarray, where: Callable[[int], str]) -> None:
    """Refuse NaN and infinity in a column of all environments, ``[N, *]``; takes a microsecond.

    Args:
        name: the column's name, for the message.
        column: the numbers; bytes are always finite.
        where: gives the environment of a row, for the message.

    Raises:
        NumericsError: a number is NaN or infinite.
    """
    if column.dtype.kind != "f" or math.isfinite(np.vdot(column, column)):
        return
    bad = np.argwhere(~np.isfinite(column)).tolist()
    if bad:  # otherwise only the dot product overflowed
        row, *place = bad[0]
        raise NumericsError(f"{where(row)}: {name}{place or ''} = {column[(row, *place)]}")
