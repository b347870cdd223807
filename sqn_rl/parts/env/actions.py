"""Gymnasium's actions as one of A choices, and the masks that say which of them are allowed."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from sqn_rl.errors import AnswerError, SettingError, require
from sqn_rl.parts.env.checks import as_array, describe

MOST = 1024
"""The most combined actions of a MultiDiscrete or MultiBinary space: a network has an output for each."""

KEY = "action_mask"
"""Where environments give masks: in ``info``, or in an observation that is a Dict."""


class Actions:
    """The actions of an environment, counted from 0; a product space's are all combinations of its choices.

    Args:
        space: Discrete, MultiDiscrete or MultiBinary.
        id: of the environment, for messages.

    Raises:
        SettingError: it is another space, or has more than :data:`MOST` combinations.
    """

    def __init__(self, space: spaces.Space, id: Any) -> None:
        hint = "; wrappers=[{DiscretizeAction: {bins: 5}}] makes them discrete"
        kinds = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
        expected = "Discrete, MultiDiscrete or MultiBinary actions; it has"
        boxed = hint if isinstance(space, spaces.Box) else ""
        require(isinstance(space, kinds), "id", id, f"{expected} {space}{boxed}")
        self.first, self._table = 0, None
        if isinstance(space, spaces.Discrete):
            self.n, self.first = int(space.n), int(space.start)
            return
        multi = isinstance(space, spaces.MultiDiscrete)
        sizes = space.nvec.flatten().tolist() if multi else [2] * math.prod(space.shape)
        self.n = math.prod(sizes)
        require(self.n <= MOST, "id", id, f"at most {MOST:,} combined actions; it has {self.n:,}, {space}")
        choices = np.stack(np.unravel_index(np.arange(self.n), sizes), -1).reshape(self.n, *space.shape)
        self._table = (choices + space.start if multi else choices).astype(space.dtype)

    def outside(self, action: Any) -> Any:
        """Actions as the environment takes them; of a product space always new arrays."""
        return action + self.first if self._table is None else self._table[action].copy()

    @property
    def names(self) -> list[str] | None:
        """The choices in each combination, ``1,0``; None of a Discrete space."""
        return None if self._table is None else [",".join(map(str, row.flat)) for row in self._table]


def without_mask(space: spaces.Space, n_actions: int, id: Any) -> tuple[spaces.Space, bool]:
    """The space of observations without a mask among them, and whether there was one.

    Raises:
        SettingError: the mask has another size than the actions, or is the whole observation.
    """
    if not (isinstance(space, spaces.Dict) and KEY in space.spaces):
        return space, False
    mask, rest = space[KEY], {key: part for key, part in space.spaces.items() if key != KEY}
    require(
        mask.shape == (n_actions,), "id", id, f"an {KEY} [{n_actions}] in its observations; it has {mask}"
    )
    require(bool(rest), "id", id, f"observations besides their {KEY}; it has {space}")
    return spaces.Dict(rest), True


def listed(action_N: Tensor, num_envs: int, n_actions: int) -> list[int]:
    """Actions, ``[N]``, as a list.

    Raises:
        SettingError: they are not one for each environment, or one is not in [0, n_actions).
    """
    actions = action_N.tolist() if isinstance(action_N, Tensor | np.ndarray) else action_N
    are_whole = isinstance(actions, list) and all(isinstance(action, int) for action in actions)
    if not are_whole or len(actions) != num_envs or min(actions) < 0 or max(actions) >= n_actions:
        raise SettingError("action", actions, f"{num_envs} of them, each in [0, {n_actions})")
    return actions


def mask_in(answer: Any) -> Any:
    """What an observation or ``info`` gives as mask; None if it gives none."""
    return answer.get(KEY) if isinstance(answer, Mapping) else None


def masks_in(observation: Any) -> Any:
    """The masks of a Dict observation, or of a list of them; None if it gives none."""
    if not isinstance(observation, list | tuple):
        return mask_in(observation)
    masks = [mask_in(each) for each in observation]
    without = [f"without {KEY}: {row}" for row, mask in enumerate(masks) if mask is None]
    if len(without) == len(masks):
        return None
    require(not without, "observation", without[:1], f"an {KEY} in every row, or in none")
    return masks


def read_mask(mask: Any, n_actions: int, terminated: bool) -> np.ndarray | bool:
    """A mask as bools, ``[A]``; True, which allows all, of a terminal state that allows none.

    Raises:
        AnswerError: it has another shape or type, or allows no action.
    """
    numbers = as_array(mask)
    fits = numbers.shape == (n_actions,) and numbers.dtype.kind in "biuf"
    if not (fits and ((numbers == 0) | (numbers == 1)).all()):
        raise AnswerError(f"{KEY} is {describe(mask)}; expected [{n_actions}] of 0 and 1")
    allowed = numbers.astype(np.bool_)
    if not allowed.any():
        if not terminated:
            raise AnswerError(f"{KEY} allows no action, and the state is not terminal")
        return True
    return allowed
