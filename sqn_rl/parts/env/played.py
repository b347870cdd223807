"""The result of one step of one environment; without torch, for worker processes."""

from typing import NamedTuple

import numpy as np


class Played(NamedTuple):
    """The result of one step of one environment; fields as in :class:`~sqn_rl.types.Step`."""

    observation: np.ndarray
    reward: float
    score: float
    terminated: bool
    truncated: bool
    ended: bool
