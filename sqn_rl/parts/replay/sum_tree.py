"""A sum tree: samples an index in proportion to its value, from a million values in three steps.

Legend: B indices or masses, C children of a node (``WIDTH``).
"""

import math

import numpy as np
from numpy.typing import NDArray

WIDTH = 16
"""Children of a node. A wide node means few levels; its children are summed at once."""

WIDEST_ROOT = 4096
"""Most children of the root, which are searched as one array."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class SumTree:
    """Non-negative values, and a tree of their sums with :data:`WIDTH` children per node.

    A parent is always recomputed as the sum of its children, never by adding a difference, so rounding errors
    do not accumulate. All numbers are float64.

    Args:
        capacity: the number of values, at least 1; all 0 at first.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._levels: list[Floats] = []  # [nodes, C] each, the values first
        nodes = capacity
        while nodes > WIDEST_ROOT or not self._levels:
            nodes = -(-nodes // WIDTH)
            self._levels.append(np.zeros((nodes, WIDTH)))
        self._root = np.zeros(nodes)
        self._root_sums, self._root_sums_valid = np.zeros(nodes + 1), False

    @property
    def value(self) -> Floats:
        """All values, ``[capacity]``; read only."""
        return self._levels[0].reshape(-1)[: self.capacity]

    @property
    def total(self) -> float:
        """The sum of all values."""
        return float(self._sums()[-1])

    def _sums(self) -> Floats:
        """Cumulative sums before each of the root's children, and the total; cached until a value changes."""
        if not self._root_sums_valid:
            self._root.cumsum(out=self._root_sums[1:])
            self._root_sums_valid = True
        return self._root_sums

    def update(self, index: Indices, value: Floats) -> None:
        """Set the values at these indices, ``[B]``, ``[B]``; if an index repeats, its last value is kept.

        Raises:
            IndexError: an index is negative or beyond the capacity. No value is set.
        """
        if not len(index):
            return
        lowest, highest = np.minimum.reduce(index), np.maximum.reduce(index)
        if lowest < 0 or highest >= self.capacity:
            raise IndexError(f"indices {lowest} to {highest}: expected 0 to {self.capacity - 1}")
        for level in self._levels:
            level.reshape(-1)[index] = value
            index = index // WIDTH
            value = level.take(index, 0).sum(-1)
        self._root[index], self._root_sums_valid = value, False

    def fill(self, indices: slice, value: float) -> None:
        """Set all values of a slice to ``value``; the slice may be empty but has no step."""
        begin, end = indices.start, indices.stop
        if begin == end:
            return
        self.value[begin:end] = value
        for level, above in zip(self._levels, [*self._levels[1:], self._root], strict=True):
            begin, end = begin // WIDTH, (end - 1) // WIDTH + 1
            above.reshape(-1)[begin:end] = level[begin:end].sum(-1)
        self._root_sums_valid = False

    def find(self, mass: Floats) -> Indices:
        """The index whose segment of the cumulative sum contains each mass: ``[B]`` in [0, total] → ``[B]``.

        The value at that index is always above 0, in spite of rounding.

        Raises:
            IndexError: all values are 0.
        """
        sums = self._sums()
        if not sums[-1] > 0:
            raise IndexError("all values are 0: there is none to find")
        mass = np.minimum(mass, math.nextafter(sums[-1], 0))
        node = sums[1:].searchsorted(mass, side="right")
        before = sums[node]
        for level in reversed(self._levels):
            sums_BC = level.take(node, 0).cumsum(-1)
            mass = np.minimum(mass - before, np.nextafter(sums_BC[:, -1], 0))
            child = (sums_BC > mass[:, None]).argmax(-1)  # so its own value is above 0
            node = node * WIDTH + child
            if level is not self._levels[0]:
                before = np.where(child, sums_BC[np.arange(len(child)), child - 1], 0)
        return node
