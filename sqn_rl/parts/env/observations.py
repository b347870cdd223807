"""Flattening of Gymnasium observations, with a check against their space."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import spaces

from sqn_rl.errors import AnswerError
from sqn_rl.parts.env.checks import array, describe

OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuples and Dicts of these"

COMPOSED = (spaces.Tuple, spaces.Dict)


def flattens(space: Any) -> bool:
    """Whether ``space`` is one of :data:`OBSERVATIONS`, with at least one number in it."""
    if isinstance(space, COMPOSED):
        parts = [part for _, part in _parts(space)]
        return bool(parts) and all(map(flattens, parts))
    flat = isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    return flat and spaces.flatdim(space) > 0


def flatten(space: spaces.Space, answer: Any) -> np.ndarray:
    """Flatten an observation to one dimension, in the order of ``gymnasium.spaces.flatten``.

    Lists are accepted as arrays, and other number sizes than the space's. The bounds of a Box are not
    checked: in many environments they are rough.

    Raises:
        AnswerError: its shape or type is wrong, or it is a choice that the space does not have.
    """
    if isinstance(space, spaces.Box):
        return array("observation", answer, space.shape, space.dtype).ravel()
    if isinstance(space, spaces.Discrete):  # same as Gymnasium's, in a third of the time
        one_hot = np.zeros(int(space.n), np.int8)
        one_hot[_choice(space, answer, "observation")] = 1
        return one_hot
    _require_fits(space, answer, "observation")
    return spaces.flatten(space, answer)


def _require_fits(space: spaces.Space, answer: Any, name: str) -> None:
    if isinstance(space, spaces.Discrete):
        _choice(space, answer, name)
    elif isinstance(space, COMPOSED):
        for key, part in _parts(space):
            _require_fits(part, _item(answer, key, space, name), f"{name}[{key!r}]")
    else:
        numbers = array(name, answer, space.shape, space.dtype)
        if not isinstance(space, spaces.Box) and not space.contains(numbers):
            raise AnswerError(f"{name} is {describe(answer)}; expected one of {space}")


def _choice(space: spaces.Discrete, answer: Any, name: str) -> int:
    """The index of a Discrete observation, counted from 0."""
    number = np.asarray(answer)
    if number.dtype.kind in "biu" and number.size == 1:
        choice = int(number.item()) - int(space.start)
        if 0 <= choice < space.n:
            return choice
    raise AnswerError(f"{name} is {describe(answer)}; expected one of {space}")


def _parts(space: spaces.Tuple | spaces.Dict) -> Iterable[tuple[Any, spaces.Space]]:
    return space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)


def _item(answer: Any, key: Any, space: spaces.Tuple | spaces.Dict, name: str) -> Any:
    try:
        if isinstance(space, spaces.Dict) or len(answer) == len(space.spaces):
            return answer[key]
    except (TypeError, LookupError):
        pass
    raise AnswerError(f"{name} is {describe(answer)}; expected one of {space}")
