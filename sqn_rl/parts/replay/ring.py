"""The store of all replays: a ring of environment steps in which each frame lies once.

Row ``t`` holds what N environments did at one step. A transition's next observation is the observation of the
row after it, except where the game ended: there the true final observation lies aside, behind the last row,
so that a reset observation is never anybody's successor. The row after the newest transition holds the
observation it led to, and no transition. Of observations that are stacks of the last k frames only the newest
frame is stored; the others are those of the k - 1 rows before, which stay after their transitions are gone.

Legend: N environments, B transitions; *place* ``row · N + environment`` numbers what the ring stores; ``*S``
is the shape of an observation, ``*F`` that of a frame: ``*S`` itself, or with stacks ``*S = [k, *F]``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sqn_rl.errors import SettingError, require
from sqn_rl.parts.machine import available_bytes
from sqn_rl.types import Step

ROW_BYTES = 8 + 4 + 1 + 1 + 8 + 1
"""Action, reward, terminated, truncated, where the next observation lies, how many frames came before."""


class Ring:
    """The newest ``capacity`` transitions of N environments that step together.

    Args:
        capacity: transitions, over all environments; rounded down to a multiple of ``num_envs``.
        num_envs: N, the number of environments.
        observation_shape: S, of one observation.
        observation_dtype: how observations are stored.
        frame_stack: k; above 1 an observation is ``[k, *F]``, the last k frames, oldest first, those from
            before the episode zero. An episode begins at the first step, after one that ended, and after a
            cut, but not after a lost life.
        device: where.

    Raises:
        SettingError: the capacity has no room for one step of every environment, or the memory none for the
            capacity; or an observation is not ``frame_stack`` frames.
    """

    written: int
    """Rows ever appended."""
    newest: slice
    """The places of the row that was appended last."""
    retired: slice
    """The places of the row that then ceased to hold transitions; empty while the ring fills."""

    def __init__(
        self,
        *,
        capacity: int,
        num_envs: int,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        frame_stack: int,
        device: torch.device | str,
    ) -> None:
        require(
            capacity >= num_envs, "capacity", capacity, f"at least {num_envs}, one step of every environment"
        )
        if frame_stack > 1 and observation_shape[0] != frame_stack:
            expected = f"{observation_shape[0]}, the first size of an observation {list(observation_shape)}"
            raise SettingError("frame_stack", frame_stack, expected)
        frame_shape = tuple(observation_shape[1:] if frame_stack > 1 else observation_shape)
        self.num_envs, self.frame_stack = num_envs, frame_stack
        self.observation_shape, self.observation_dtype = tuple(observation_shape), observation_dtype
        self._window = capacity // num_envs
        self._rows = self._window + frame_stack
        self.places = places = self._rows * num_envs
        self.frame_bytes = math.prod(frame_shape) * observation_dtype.itemsize
        _require_memory(capacity, frame_stack * num_envs, self.frame_bytes + ROW_BYTES)
        self.action = torch.zeros(places, dtype=torch.int64, device=device)
        self.reward = torch.zeros(places, dtype=torch.float32, device=device)
        self.terminated = torch.zeros(places, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(places, dtype=torch.bool, device=device)
        self.following = self._next_row(torch.arange(places, device=device))
        # Empty: what was never written takes no memory, and is never read. Behind the rows come a frame that
        # stays zero, and room for the finals of games of 8 steps or more; those of shorter games overflow it.
        self._frames = torch.empty(
            places + 1 + places // 8, *frame_shape, dtype=observation_dtype, device=device
        )
        self._frames[places] = 0
        self._overflow = self._frames[:0].clone()
        self._free: list[int] = []
        self._ended: set[int] = set()  # the first places of rows in which a game ended
        self._aside_end = places + 1  # beyond it nothing ever lay aside
        self._back = torch.arange(frame_stack - 1, -1, -1, device=device)
        self._before = torch.zeros(places, dtype=torch.uint8, device=device)
        self._age = torch.zeros(num_envs, dtype=torch.uint8, device=device)
        self._advance(0)

    def __len__(self) -> int:
        """The number of transitions."""
        return min(self.written, self._window) * self.num_envs

    def append(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store what N environments did at one step: ``[N, *S]``, ``[N]``, and their answer."""
        self._advance(self.written + 1)
        if self.retired.start in self._ended and self.retired.stop:
            self._drop_finals(self.retired)
        row = self.newest
        self._frames[row] = self._newest_frame(observation)
        self.action[row] = action
        self.reward[row] = step.reward
        self.terminated[row] = step.terminated
        self.truncated[row] = step.truncated
        self._frames[self._row(self.written)] = self._newest_frame(step.next_observation)
        if self.frame_stack > 1:
            self._before[row] = self._age
            self._age.add_(1).clamp_(max=self.frame_stack - 1)
        if step.ended.any():
            ended = step.ended.nonzero().squeeze(-1).to(self.following.device)
            self._keep_finals(row.start + ended)
            self._age[ended] = 0

    def cut(self, environments: Tensor | None = None) -> None:
        """Experience starts anew: what is appended next does not follow from what was appended last.

        Args:
            environments: which, ``[*]`` int64; None: all.
        """
        which = slice(None) if environments is None else environments
        place = torch.arange(self.newest.start, self.newest.stop, device=self.following.device)[which]
        self._keep_finals(place[self.following[place] < self.places])
        self._age[which] = 0

    def place(self, age_rank: Tensor) -> Tensor:
        """The places of transitions counted from the oldest, ``[B]`` in [0, len) → ``[B]``."""
        oldest = max(0, self.written - self._window) * self.num_envs
        return (oldest + age_rank) % self.places if oldest else age_rank

    def observe(self, place: Tensor) -> Tensor:
        """The observation of each transition, ``[B]`` → ``[B, *S]``."""
        if self.frame_stack == 1:
            return self._frames.index_select(0, place)
        return self._frames.index_select(0, self._stack(place).flatten()).view(-1, *self.observation_shape)

    def observe_next(self, place: Tensor) -> Tensor:
        """The true successor of each transition, ``[B]`` → ``[B, *S]``."""
        index = self.following.index_select(0, place)
        if self.frame_stack == 1:
            return self._read(index)
        index = torch.cat([self._stack(place)[:, 1:], index.unsqueeze(-1)], dim=-1)
        return self._read(index.flatten()).view(-1, *self.observation_shape)

    def ahead(self, place: Tensor, steps: int) -> Tensor:
        """Each place and those of its environment in the rows after it, ``[B]`` → ``[B, steps]``."""
        rows = torch.arange(0, steps * self.num_envs, self.num_envs, device=place.device)
        return (place.unsqueeze(-1) + rows) % self.places

    def is_last(self, place: Tensor) -> Tensor:
        """Whether no transition follows: an ended game, a cut, or the newest row. ``[*]`` → ``[*]`` bool."""
        newest = (place >= self.newest.start) & (place < self.newest.stop)
        return newest | (self.following.take(place) > self.places)

    def _advance(self, written: int) -> None:
        """Be where so many rows were appended."""
        self.written, gone = written, written - 1 - self._window
        self.newest = self._row(written - 1) if written else slice(0, 0)
        self.retired = self._row(gone) if gone >= 0 else slice(0, 0)

    def _row(self, row: int) -> slice:
        first = row % self._rows * self.num_envs
        return slice(first, first + self.num_envs)

    def _next_row(self, place: Tensor) -> Tensor:
        return (place + self.num_envs) % self.places

    def _newest_frame(self, observation: Tensor) -> Tensor:
        return observation if self.frame_stack == 1 else observation[:, -1]

    def _read(self, index: Tensor) -> Tensor:
        """The frames that lie there, in the ring or aside, ``[M]`` → ``[M, *F]``."""
        room = len(self._frames)
        if self._aside_end <= room or index.max().item() < room:
            return self._frames.index_select(0, index)
        frames = self._frames.index_select(0, index.clamp(max=room - 1))
        over = (index >= room).nonzero().squeeze(-1)
        return frames.index_copy_(0, over, self._overflow.index_select(0, index[over] - room))

    def _stack(self, place: Tensor) -> Tensor:
        """Where the frames of an observation lie, oldest first, ``[B]`` → ``[B, k]``."""
        frames = (place.unsqueeze(-1) - self.num_envs * self._back) % self.places
        missing = self._before[place].unsqueeze(-1) < self._back
        return frames.masked_fill_(missing, self.places)

    def _keep_finals(self, place: Tensor) -> None:
        """Copy the successors of these transitions aside, before reset observations take their row."""
        if (more := len(place) - len(self._free)) > 0:
            self._free.extend(range(self._aside_end, self._aside_end + more))
            self._aside_end += more
        aside = place.new_tensor([self._free.pop() for _ in range(len(place))])
        self._ended.add(self.newest.start)
        self._lay_aside(aside, self._frames.index_select(0, self.following[place]))
        self.following[place] = aside

    def _lay_aside(self, aside: Tensor, finals: Tensor) -> None:
        """Put frames there, ``[M]``, ``[M, *F]``; what has no room behind the rows overflows."""
        room = len(self._frames)
        over = aside >= room
        self._frames[aside[~over]] = finals[~over]
        if (needed := self._aside_end - room) > len(self._overflow):
            grown = self._overflow.new_empty(2 * needed, *finals.shape[1:])
            grown[: len(self._overflow)] = self._overflow
            self._overflow = grown
        self._overflow[aside[over] - room] = finals[over]

    def _drop_finals(self, row: slice) -> None:
        following = self.following[row]
        self._free.extend(following[following > self.places].tolist())
        self.following[row] = self._next_row(torch.arange(row.start, row.stop, device=following.device))
        self._ended.remove(row.start)


def _require_memory(capacity: int, more: int, place_bytes: int) -> None:
    """Refuse what does not fit once it is full, with so many places more; the finals come on top."""
    free = available_bytes()
    if free is not None and (capacity + more) * place_bytes > free:
        fits = max(free // place_bytes - more, 0)
        expected = (
            f"at most {fits:,}: a transition takes {place_bytes:,} bytes, and {free / 1e9:.1f} GB are free"
        )
        raise SettingError("capacity", capacity, expected)
