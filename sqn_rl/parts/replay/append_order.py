"""The order in which the rows of a ring's lanes were appended, which is their order in checkpoints.

Legend: R rows, U runs: consecutive rows of the same lane.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor


class AppendOrder:
    """The lanes of the rows appended, without the oldest rows, which no lane needs any more.

    A row's *position* counts the rows of all lanes from the first ever appended; its *number* counts those of
    its own lane. Only the oldest rows are dropped, so the row of a slow lane keeps all that follow it.

    Args:
        dropped: the number of rows dropped of each lane, one number for each.
    """

    def __init__(self, dropped: Sequence[int]) -> None:
        self.dropped = [*dropped]
        """Rows of each lane that were dropped: the number of its oldest row here."""
        self.begin = self.end = sum(dropped)
        """The positions of the oldest row here, and one past that of the newest."""
        self._runs: deque[list[int]] = deque()  # lane and number of rows, oldest first

    @property
    def newest_lane(self) -> int | None:
        """The lane of the newest row; None without rows."""
        return self._runs[-1][0] if self._runs else None

    def append(self, lane: int, rows: int = 1) -> None:
        """Append consecutive rows of one lane."""
        if lane == self.newest_lane:
            self._runs[-1][1] += rows
        else:
            self._runs.append([lane, rows])
        self.end += rows

    def extend(self, lane_R: Tensor) -> None:
        """Append one row of each of these lanes, ``[R]``."""
        lane_U, rows_U = lane_R.unique_consecutive(return_counts=True)
        for lane, rows in zip(lane_U.tolist(), rows_U.tolist(), strict=True):
            self.append(lane, rows)

    def drop(self, counts: Sequence[int], keep: int) -> None:
        """Drop the oldest rows, until one is among the last ``keep`` of its lane's ``counts`` rows."""
        while self._runs:
            run = self._runs[0]
            lane = run[0]
            if self.dropped[lane] >= counts[lane] - keep:
                break
            self.dropped[lane] += 1
            self.begin += 1
            run[1] -= 1
            if not run[1]:
                self._runs.popleft()

    def rows(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """The lanes and the numbers of the rows at the positions ``[begin, end)``, ``[R]`` each."""
        lane_U, rows_U = torch.tensor([*self._runs]).unbind(-1)
        lane = lane_U.repeat_interleave(rows_U)
        number = torch.empty_like(lane)
        for each, oldest in enumerate(self.dropped):
            own = lane == each
            number[own] = torch.arange(oldest, oldest + int(own.sum()))
        asked = slice(begin - self.begin, end - self.begin)
        return lane[asked], number[asked]
