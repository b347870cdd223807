"""The observations that a network was built for, checked wherever somebody gives it some."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import ObservationError


class Observations:
    """The shape S and the dtype of the observations that a network was built for; others are refused.

    Bytes (uint8) and other numbers are not taken for each other, as encoders scale bytes. Numbers of any
    other real dtype are: encoders compute with floats.

    Args:
        shape: S, of one observation.
        dtype: how the environment gives them; None: not known, and any real one is taken.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype | None) -> None:
        self.shape, self.dtype = tuple(shape), dtype

    def require(self, observation: Tensor) -> None:
        """Refuse what is not ``[B, *S]``, or of another kind of number.

        Raises:
            ObservationError: says what was expected, what was given, and how to fix it.
        """
        fits = isinstance(observation, Tensor) and observation.shape[1:] == self.shape
        if not (fits and self._takes(observation.dtype)):
            raise self._refusal(observation, "B, ")

    def flat(self, observation: Tensor) -> Tensor:
        """``[*, *S]`` → ``[B, *S]``.

        Raises:
            ObservationError: as of :meth:`require`.
        """
        if observation.shape[observation.dim() - len(self.shape) :] != self.shape:
            raise self._refusal(observation, "*, ")
        flat = observation.reshape(-1, *self.shape)
        self.require(flat)
        return flat

    def batch(self, observation: Any) -> tuple[Tensor, bool]:
        """A batch ``[B, *S]``, and whether it was made of one observation, ``S``.

        Args:
            observation: a tensor, or what NumPy makes an array of.

        Raises:
            ObservationError: as of :meth:`require`.
        """
        if not isinstance(observation, Tensor):
            try:
                observation = torch.from_numpy(np.array(observation, order="C"))
            except (TypeError, ValueError) as error:
                raise self._refusal(observation, "B, ") from error
        if single := observation.shape == self.shape:
            observation = observation.unsqueeze(0)
        self.require(observation)
        return observation, single

    def _takes(self, dtype: torch.dtype) -> bool:
        if dtype is self.dtype:
            return True
        return not dtype.is_complex and (self.dtype is None or torch.uint8 not in (dtype, self.dtype))

    def _refusal(self, observation: Any, lead: str) -> ObservationError:
        dtype = "" if self.dtype is None else f"{_name(self.dtype)} "
        expected = f"{dtype}[{lead}{', '.join(map(str, self.shape))}]"
        given = type(observation).__name__
        if isinstance(observation, Tensor | np.ndarray):
            given = f"{_name(observation.dtype)} {list(observation.shape)}"
        return ObservationError(expected, given, self._fix(observation))

    def _fix(self, observation: Any) -> str:
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


def observations_of(q_net: Any) -> Observations:
    """The observations that a Q-network was built for."""
    return Observations(q_net.observation_shape, getattr(q_net, "observation_dtype", None))


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
