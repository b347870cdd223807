"""Frames by index: those of a ring's rows, and behind them a spill area for final observations.

Legend: M frames; ``*F`` is the shape of a frame.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class FrameStore:
    """The frames of a ring's rows, one frame of zeros, and a spill area, in one range of indices.

    Index ``places`` is the frame of zeros; the indices beyond it are the spill area. It has room for final
    observations of an eighth of the places, as episodes of 8 steps need, and beyond that it grows.

    Args:
        places: the number of frames in the ring's rows, the first indices.
        shape: F.
        dtype: dtype of the frames.
        device: device of the frames.
    """

    def __init__(
        self, places: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str
    ) -> None:
        # torch.empty: pages never written take no memory, and are never read
        self.main = torch.empty(places + 1 + places // 8, *shape, dtype=dtype, device=device)
        """The rows, the frame of zeros and the spill area's first part; it never moves."""
        self.main[places] = 0
        self._overflow = self.main[:0].clone()  # the rest of the spill area
        self.spill_end = places + 1
        """One past the last index of the spill area that was ever used."""
        self.free_spill: list[int] = []
        """Indices of the spill area that were used and released."""

    def read(self, index: Tensor) -> Tensor:
        """The frames at any indices, ``[M]`` → ``[M, *F]``."""
        room = len(self.main)
        if self.spill_end <= room or not len(index) or index.max().item() < room:
            return self.main.index_select(0, index)
        frames = self.main.index_select(0, index.clamp(max=room - 1))
        over = (index >= room).nonzero().squeeze(-1)
        return frames.index_copy_(0, over, self._overflow.index_select(0, index[over] - room))

    def spill(self, frames: Tensor) -> Tensor:
        """Copy frames to the spill area, ``[M, *F]``; returns their indices, ``[M]``."""
        if (more := len(frames) - len(self.free_spill)) > 0:
            self.free_spill.extend(range(self.spill_end, self.spill_end + more))
            self.spill_end += more
        taken = [self.free_spill.pop() for _ in range(len(frames))]
        index = torch.tensor(taken, dtype=torch.int64, device=frames.device)
        self.write_spill(index, frames)
        return index

    def write_spill(self, index: Tensor, frames: Tensor) -> None:
        """Write frames at indices of the spill area that are in use, ``[M]``, ``[M, *F]``."""
        room = len(self.main)
        over = index >= room
        self.main[index[~over]] = frames[~over]
        if (needed := self.spill_end - room) > len(self._overflow):
            grown = self._overflow.new_empty(2 * needed, *frames.shape[1:])
            grown[: len(self._overflow)] = self._overflow
            self._overflow = grown
        self._overflow[index[over] - room] = frames[over]

    def release(self, index: Tensor) -> None:
        """Let indices of the spill area be used again, ``[M]``."""
        self.free_spill.extend(index.tolist())
