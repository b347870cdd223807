"""What one game answers; without torch, for the processes that only play."""

from typing import NamedTuple

import numpy as np


class Played(NamedTuple):
    """What one game answers to one action; the names mean what they mean in :class:`~sqn_rl.types.Step`."""

    observation: np.ndarray
    reward: float
    score: float
    terminated: bool
    truncated: bool
    ended: bool
