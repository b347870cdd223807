"""Flatten Gymnasium observations, check them against their space, and find images among them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sqn_rl.errors import AnswerError, require, require_whole
from sqn_rl.parts.env.checks import array, array_or_batch, as_array, describe
from sqn_rl.parts.observations import Entry

OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuples and Dicts of these"

COMPOSED = (spaces.Tuple, spaces.Dict)


@dataclass(frozen=True)
class Layout:
    """The layout of an image outside; inside, its channels come first.

    Args:
        outside: the shape outside: ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]``, or K of the last two stacked.
        channels: ``last``, ``first``, or ``no`` where there are none.
    """

    outside: tuple[int, ...]
    channels: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape inside, ``[C, H, W]`` or ``[K, C, H, W]``; ``[H, W]`` without channels."""
        if self.channels != "last":
            return self.outside
        *stack, height, width, channels = self.outside
        return (*stack, channels, height, width)

    def arranged(self, numbers: np.ndarray) -> np.ndarray:
        """Images with their channels first: ``[*, *outside]`` or flat → ``[B, *shape]``."""
        images = numbers.reshape(-1, *self.outside)
        return np.moveaxis(images, -1, -3) if self.channels == "last" else images

    def __str__(self) -> str:
        return f"an image of shape {list(self.outside)} with {self.channels} channels"


def layout_of(space: spaces.Space) -> Layout | None:
    """The layout of a space of images: a Box of bytes from 0 to 255 with 2, 3 or 4 dimensions; else None.

    Two sides that are equal are height and width; otherwise, the channels are fewer than the rows or columns
    at the other end. Where neither decides, they are last.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3, 4):
        return None
    if math.prod(space.shape) == 0 or space.low.any() or (space.high != 255).any():
        return None
    if len(space.shape) == 2:
        return Layout(space.shape, "no")
    first, middle, last = space.shape[-3:]
    is_first = first < last if (first == middle) == (middle == last) else middle == last
    return Layout(space.shape, "first" if is_first else "last")


class View:
    """Observations of a space as the networks take them: flat, or images with their channels first; stacked.

    Bytes (uint8 with values above 1) stay bytes; all else becomes float32.

    Args:
        space: the space of one observation.
        frame_stack: above 1, the frames of that many last steps, ``[frame_stack, *F]``, of a Box only.
        id: the id of the environment, for messages.

    Raises:
        SettingError: it has another space than :data:`OBSERVATIONS`; or ``frame_stack`` is not positive, or
            above 1 without a Box.
    """

    def __init__(self, space: spaces.Space, frame_stack: int, id: Any) -> None:
        require_whole("frame_stack", frame_stack, 1)
        require(flattens(space), "id", id, f"observations of {OBSERVATIONS}; it has {space}")
        is_box = isinstance(space, spaces.Box)
        stackable = frame_stack == 1 or is_box
        require(stackable, "frame_stack", frame_stack, f"1, as observations are {space} and no Box")
        flat, self.layout = spaces.flatten_space(space), layout_of(space)
        frame_shape = self.layout.shape if self.layout else flat.shape
        if self.layout and self.layout.channels == "no" and frame_stack == 1:
            frame_shape = (1, *frame_shape)
        self.space, self.frame_stack, self.frame_shape = space, frame_stack, frame_shape
        self.shape = (frame_stack, *frame_shape) if frame_stack > 1 else frame_shape
        self.dtype = np.dtype(np.uint8 if flat.dtype == np.uint8 and flat.high.max() > 1 else np.float32)
        self.low, self.high = (np.tile(bound, frame_stack) for bound in (flat.low, flat.high))
        stack = [frame_stack] if frame_stack > 1 else []
        self.accepts = f"{[*stack, *space.shape]} {space.dtype}" if is_box else str(space)
        """What :meth:`rows` accepts, for an error message."""

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """Flat observations as frames, images with their channels first. ``[*, *outside]`` → ``[B, *F]``."""
        arranged = self.layout.arranged(numbers) if self.layout else numbers
        return arranged.reshape(-1, *self.frame_shape)

    def rows(self, observation: Any) -> tuple[np.ndarray, bool]:
        """Observations from outside, ``[B, *S]``, and whether it was one; raises :class:`AnswerError`."""
        if self.frame_stack == 1:
            rows, single = flatten_batch(self.space, observation)
        else:
            shape, dtype = (self.frame_stack, *self.space.shape), self.space.dtype
            rows, single = array_or_batch("observation", observation, shape, dtype)
        return self.frames(rows).reshape(-1, *self.shape), single


def flattens(space: Any) -> bool:
    """Whether ``space`` is one of :data:`OBSERVATIONS`, with at least one number in it."""
    if isinstance(space, COMPOSED):
        parts = [part for _, part in _parts(space)]
        return bool(parts) and all(map(flattens, parts))
    flat = isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    return flat and spaces.flatdim(space) > 0


def entries_of(space: spaces.Space, name: str = "", begin: int = 0) -> list[Entry]:
    """The entries of a Dict or Tuple, and of those in it, in the order of :func:`flatten`; else none.

    Args:
        space: the space.
        name: of ``space``, inside another.
        begin: where ``space`` begins in the flat observation.
    """
    entries: list[Entry] = []
    for key, part in _parts(space) if isinstance(space, COMPOSED) else ():
        own, end = f"{name}.{key}" if name else str(key), begin + spaces.flatdim(part)
        if isinstance(part, COMPOSED):
            entries += entries_of(part, own, begin)
        elif layout := layout_of(part):
            shape = (1, *layout.shape) if layout.channels == "no" else layout.shape
            entries.append(Entry(own, slice(begin, end), shape, True, layout.channels == "last"))
        else:
            entries.append(Entry(own, slice(begin, end), (end - begin,)))
        begin = end
    return entries


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


def flatten_batch(space: spaces.Space, answer: Any) -> tuple[np.ndarray, bool]:
    """Flatten one observation, or a batch of them, as :func:`flatten` does.

    A batch has the first dimension in every part of a Tuple or Dict, as Gymnasium's vector environments
    return it; or it is a list of Dicts or of tuples.

    Returns:
        ``[B, F]``, and whether it was one observation.

    Raises:
        AnswerError: a shape or type is wrong, or one is a choice that the space does not have.
    """
    if isinstance(space, spaces.Box):
        numbers, single = array_or_batch("observation", answer, space.shape, space.dtype)
        return numbers.reshape(len(numbers), spaces.flatdim(space)), single
    if not _is_batch(space, answer):
        return flatten(space, answer)[None], True
    rows = [flatten(space, each) for each in _unstacked(space, answer)]
    return np.array(rows).reshape(len(rows), spaces.flatdim(space)), False


def flatten_columns(space: spaces.Space, answer: Any, rows: int) -> np.ndarray:
    """Flatten a batch of observations that has ``rows`` in every part, without a loop over them: ``[B, F]``.

    For environments whose answers have the shapes and types of their space. A choice that the space does not
    have is all zeros: step counters reach their end at a time limit.
    """
    if isinstance(space, COMPOSED):
        parts = [flatten_columns(part, answer[key], rows) for key, part in _parts(space)]
        return np.concatenate(parts, axis=1)
    numbers = np.asarray(answer).reshape(rows, -1)
    if not isinstance(space, spaces.Discrete):
        return numbers
    return numbers - space.start == np.arange(space.n)


def _is_batch(space: spaces.Space, answer: Any) -> bool:
    """Whether ``answer`` must be a batch, by the number of dimensions of its first part."""
    if not isinstance(space, COMPOSED):
        return as_array(answer).ndim > len(space.shape)
    if not _has_parts(space, answer):
        return isinstance(answer, list | tuple)
    key, part = next(iter(_parts(space)))
    return _is_batch(part, _item(answer, key, space, "observation"))


def _has_parts(space: spaces.Tuple | spaces.Dict, answer: Any) -> bool:
    """Whether ``answer`` itself has the parts of ``space``, and is not a list of such answers."""
    if isinstance(space, spaces.Dict):
        return isinstance(answer, Mapping)
    return not (isinstance(answer, list) and answer and all(isinstance(each, tuple) for each in answer))


def _unstacked(space: spaces.Space, answer: Any) -> Any:
    """The observations in a batch."""
    if not isinstance(space, COMPOSED):
        numbers = as_array(answer)
        if numbers.ndim == 0:
            raise AnswerError(f"observation has {describe(answer)}; expected a batch of {space}")
        return numbers
    if not _has_parts(space, answer):
        return answer
    columns = {key: _unstacked(part, _item(answer, key, space, "observation")) for key, part in _parts(space)}
    lengths = {key: len(column) for key, column in columns.items()}
    if len({*lengths.values()}) > 1:
        raise AnswerError(f"observation has batches of {lengths}; expected one size")
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) if isinstance(space, spaces.Dict) else row for row in rows]


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
    number = as_array(answer)
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
