"""Draws whose TD errors have not arrived yet, and which of their transitions were overwritten since."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqn_rl.parts.replay.sum_tree import Indices

MOST_OPEN = 256
"""The most draws that are remembered; the oldest is forgotten first."""


@dataclass(eq=False)
class Draw:
    """A draw that waits for its TD errors."""

    index: Tensor | None
    """The places as they were returned: this very tensor usually comes back."""
    place: Indices
    """A copy of them in host memory: fetching them would wait for a GPU."""
    version: NDArray[np.int32] | None = None
    """The versions of the places when they were drawn; None as long as no place was overwritten since."""

    def version_of(self, place: Indices) -> NDArray[np.int32]:
        """The versions of some of its places."""
        assert self.version is not None
        order = self.place.argsort()
        return self.version[order[self.place.searchsorted(place, sorter=order)]]

    def forget(self, place: Indices) -> None:
        """Wait for these places no longer."""
        waits = ~np.isin(self.place, place)
        self.index, self.place = None, self.place[waits]
        self.version = None if self.version is None else self.version[waits]


class OpenDraws:
    """Says for which places a TD error is valid: those not overwritten since they were drawn.

    A TD error may arrive late, and must not count for the transition that replaced its own. Its draw is the
    one that returned the same places. If there is none, as for a part of a batch, each of the places belongs
    to the oldest draw that waits for it; a place that no draw waits for is valid.

    Args:
        places: the number of places.
    """

    place_bytes = 4
    """Bytes for each place."""

    def __init__(self, places: int) -> None:
        self._version = np.zeros(places, np.int32)
        """How often each place was overwritten."""
        self._draws: deque[Draw] = deque(maxlen=MOST_OPEN)

    def add(self, index: Tensor, place: Indices) -> None:
        """Wait for the TD errors of these places, ``[B]``."""
        self._draws.append(Draw(index, place.copy()))

    def overwrite(self, row: slice) -> None:
        """The transitions at these places are gone."""
        for draw in reversed(self._draws):
            if draw.version is not None:
                break
            draw.version = self._version[draw.place]
        self._version[row] += 1

    def find(self, index: Tensor) -> Draw | None:
        """The draw that returned these places; of several the oldest, unless it was this very tensor."""
        for draw in reversed(self._draws):
            if draw.index is index:
                return draw
        if not self._draws:
            return None
        place = index.reshape(-1).numpy(force=True)
        return next((draw for draw in self._draws if np.array_equal(draw.place, place)), None)

    def close(self, draw: Draw | None, place: Indices) -> NDArray[np.bool_] | None:
        """The TD errors of these places have arrived: whether each is valid, ``[B]``; None: all are.

        Args:
            draw: the draw that returned them, as :meth:`find` found it.
            place: the places, ``[B]``.
        """
        if draw is None:
            return self._close_each(place)
        self._draws.remove(draw)
        return None if draw.version is None else draw.version == self._version[place]

    def _close_each(self, place: Indices) -> NDArray[np.bool_]:
        valid, due = np.ones(len(place), bool), np.ones(len(place), bool)
        for draw in [*self._draws]:
            found = due & np.isin(place, draw.place)
            if not found.any():
                continue
            if draw.version is not None:
                valid[found] = draw.version_of(place[found]) == self._version[place[found]]
            draw.forget(place[found])
            if not len(draw.place):
                self._draws.remove(draw)
            due &= ~found
        return valid

    def state_dict(self) -> dict[str, Any]:
        """The versions, and the open draws."""
        draws = []
        for draw in self._draws:
            version = self._version[draw.place] if draw.version is None else draw.version
            draws.append({"place": torch.tensor(draw.place), "version": torch.tensor(version)})
        return {"version": torch.tensor(self._version), "draws": draws}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state."""
        self._version[:] = state["version"].numpy()
        self._draws.clear()
        for draw in state["draws"]:
            self._draws.append(Draw(None, draw["place"].numpy().copy(), draw["version"].numpy().copy()))
