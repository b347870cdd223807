"""Shape and dtype checks of a network's observations."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import ObservationError
from sqn_rl.protocols import ObservationTyped
from sqn_rl.types import dtype_name


class Entry(NamedTuple):
    """An entry of a Dict or Tuple in its flat observation ``[F]``."""

    name: str
    """As in ``observation['pose'][0]``: ``pose.0``."""
    columns: slice
    """Where it lies."""
    shape: tuple[int, ...]
    """Of an image with its channels first, ``[C, H, W]`` or ``[K, C, H, W]``; else ``[n]``."""
    is_image: bool = False
    channels_last: bool = False
    """Whether an image has its channels last, where it lies."""

    def of(self, observation: Tensor) -> Tensor:
        """Its numbers; those of an image scaled to [0, 1]. ``[B, F]`` → ``[B, *shape]``."""
        numbers = observation[:, self.columns]
        if not self.is_image:
            return numbers
        if numbers.dtype != torch.uint8:  # the bytes of an image became floats beside other floats
            numbers = numbers / 255
        if not self.channels_last:
            return numbers.reshape(-1, *self.shape)
        *stack, channels, height, width = self.shape
        return numbers.reshape(-1, *stack, height, width, channels).movedim(-1, -3)


class ObservationSpec:
    """The shape S and dtype of the observations that a network was built for; others are refused.

    Bytes (uint8) and other dtypes are not interchangeable, as encoders scale bytes. All other real dtypes
    are: encoders convert them to floats.

    Args:
        shape: S, of one observation.
        dtype: the environment's dtype; None: unknown, and any real dtype is accepted.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype | None) -> None:
        self.shape, self.dtype = tuple(shape), dtype

    def require(self, observation: Tensor) -> None:
        """Refuse an observation that is not ``[B, *S]``, or of another dtype.

        Raises:
            ObservationError: with the expected and the given dtype and shape, and how to fix it.
        """
        fits = isinstance(observation, Tensor) and observation.shape[1:] == self.shape
        if not (fits and self._accepts(observation.dtype)):
            raise self._error(observation, "B, ")

    def flat(self, observation: Tensor) -> Tensor:
        """Flatten the batch dimensions. ``[*, *S]`` → ``[B, *S]``.

        Raises:
            ObservationError: see :meth:`require`.
        """
        if observation.shape[observation.dim() - len(self.shape) :] != self.shape:
            raise self._error(observation, "*, ")
        flat = observation.reshape(-1, *self.shape)
        self.require(flat)
        return flat

    def batch(self, observation: Any) -> tuple[Tensor, bool]:
        """A batch ``[B, *S]``, and whether it was made from a single observation, ``S``.

        Args:
            observation: a tensor, an array, or a list that NumPy can convert.

        Raises:
            ObservationError: see :meth:`require`.
        """
        if not isinstance(observation, Tensor):
            try:
                observation = torch.from_numpy(np.array(observation, order="C"))
            except (TypeError, ValueError) as error:
                raise self._error(observation, "B, ") from error
        if observation.is_meta or observation.layout is not torch.strided:
            kind = "meta" if observation.is_meta else dtype_name(observation.layout)
            fix = "give it a dense tensor with data"
            raise ObservationError("numbers in memory", f"a {kind} tensor", fix)
        if single := observation.shape == self.shape:
            observation = observation.unsqueeze(0)
        self.require(observation)
        return observation, single

    def _accepts(self, dtype: torch.dtype) -> bool:
        if dtype is self.dtype:
            return True
        return not dtype.is_complex and (self.dtype is None or torch.uint8 not in (dtype, self.dtype))

    def _error(self, observation: Any, lead: str) -> ObservationError:
        dtype = "" if self.dtype is None else f"{dtype_name(self.dtype)} "
        expected = f"{dtype}[{lead}{', '.join(map(str, self.shape))}]"
        given = type(observation).__name__
        if isinstance(observation, Tensor | np.ndarray):
            given = f"{dtype_name(observation.dtype)} {list(observation.shape)}"
        return ObservationError(expected, given, self._hint(observation))

    def _hint(self, observation: Any) -> str:
        if not isinstance(observation, Tensor):
            return "make it a tensor: torch.as_tensor(array); gymnasium.spaces.flatten makes arrays of Dicts"
        shape, size = observation.shape, math.prod(self.shape)
        if shape == self.shape:
            return "add the batch's dimension: observation.unsqueeze(0)"
        if shape[observation.dim() - len(self.shape) :] != self.shape:
            if any(math.prod(shape[axis:]) == size for axis in range(observation.dim())):
                return f"reshape it: observation.reshape(-1, {', '.join(map(str, self.shape))})"
            return "give it the observations of the environment for which it was built"
        if shape[1:] != self.shape:
            return f"make it one batch: observation.reshape(-1, {', '.join(map(str, self.shape))})"
        if observation.dtype.is_complex:
            return "give it real numbers"
        if self.dtype is torch.uint8:
            return "give it the bytes as they are, which it scales itself: observation.to(torch.uint8)"
        return "observation.float(); or build the network with observation_dtype=torch.uint8"


def observation_spec_of(q_net: Any) -> ObservationSpec:
    """The observations that a Q-network was built for."""
    dtype = q_net.observation_dtype if isinstance(q_net, ObservationTyped) else None
    return ObservationSpec(q_net.observation_shape, dtype)
