"""The storage of all replays: a ring buffer of environment steps that stores each frame once.

Row ``t`` holds one step of N environments. A transition's next observation is the observation of the next
row, except where the episode ended: final observations are stored in a spill area behind the last row, so
that a reset observation is never a next observation. The row after the newest transition holds only its next
observation. If observations are stacks of the last k frames, only the newest frame is stored; the others are
read from the k - 1 rows before, which are kept longer than their transitions.

Legend: N environments, B transitions; a transition's *place* is its index ``row · N + environment``; ``*S``
is the shape of an observation, ``*F`` that of a frame: ``*S`` itself, or with stacks ``*S = [k, *F]``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import SettingError, require
from sqn_rl.parts.machine import available_bytes
from sqn_rl.types import Step

ROW_BYTES = 8 + 4 + 1 + 1 + 8 + 1
"""Bytes of a transition without its frame: action, reward, two flags, successor, frames before."""


class Ring:
    """The newest ``capacity`` transitions of N environments that step together.

    Args:
        capacity: transitions, over all environments; rounded down to a multiple of ``num_envs``.
        num_envs: N, the number of environments.
        observation_shape: S, of one observation.
        observation_dtype: dtype in which observations are stored.
        frame_stack: k; above 1 an observation is ``[k, *F]``, the last k frames, oldest first, with zeros for
            frames from before the episode. An episode begins at the first step, after an episode that ended,
            and after a cut, but not after a lost life.
        device: device of the tensors.

    Raises:
        SettingError: the capacity has no room for one step of every environment, or memory has no room for
            the capacity; or an observation is not ``frame_stack`` frames.
    """

    row_count: int
    """Rows appended so far, including overwritten ones."""
    newest_row: slice
    """The places of the row that was appended last."""
    retired_row: slice
    """The places of the row whose transitions this append removed; empty while the ring fills."""

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
        self.successor = self._next_row(torch.arange(places, device=device))  # index of the next observation
        # torch.empty: pages that were never written take no memory, and are never read. Behind the rows come
        # a frame that stays zero, and the spill area for final observations. It suffices for episodes of 8
        # steps or more; with shorter ones it overflows.
        self._frames = torch.empty(
            places + 1 + places // 8, *frame_shape, dtype=observation_dtype, device=device
        )
        self._frames[places] = 0
        self._overflow = self._frames[:0].clone()
        self._free_spill: list[int] = []
        self._rows_with_finals: set[int] = set()  # first places of rows in which an episode ended
        self._spill_end = places + 1  # one past the last index of the spill area that was ever used
        self._offset = torch.arange(frame_stack - 1, -1, -1, device=device)
        self._frames_before = torch.zeros(places, dtype=torch.uint8, device=device)
        self._episode_age = torch.zeros(num_envs, dtype=torch.uint8, device=device)
        self.action_mask: Tensor | None = None
        """The actions allowed at each observation, ``[places, A]`` bool, once a step has such masks."""
        self.next_action_mask: Tensor | None = None
        """And those of its next observation."""
        self._advance(0)

    def __len__(self) -> int:
        """The number of transitions."""
        return min(self.row_count, self._window) * self.num_envs

    def append(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step of N environments: ``[N, *S]``, ``[N]``, and its result."""
        self._advance(self.row_count + 1)
        if self.retired_row.start in self._rows_with_finals and self.retired_row.stop:
            self._release_finals(self.retired_row)
        row = self.newest_row
        self._frames[row] = self._newest_frame(observation)
        self.action[row] = action
        self.reward[row] = step.reward
        self.terminated[row] = step.terminated
        self.truncated[row] = step.truncated
        self._frames[self._row(self.row_count)] = self._newest_frame(step.next_observation)
        if self.frame_stack > 1:
            self._frames_before[row] = self._episode_age
            self._episode_age.add_(1).clamp_(max=self.frame_stack - 1)
        if step.action_mask is not None and step.next_action_mask is not None:
            masks = self.masks(step.action_mask.shape[-1])
            for column, mask in zip(masks, (step.action_mask, step.next_action_mask), strict=True):
                column[row] = mask
        if step.ended.any():
            ended = step.ended.nonzero().squeeze(-1).to(self.successor.device)
            self._spill_finals(row.start + ended)
            self._episode_age[ended] = 0

    def cut(self, environments: Tensor | None = None) -> None:
        """Mark a discontinuity: the next row does not continue the last one.

        Args:
            environments: the environments to cut, ``[*]`` int64; None: all.
        """
        which = slice(None) if environments is None else environments
        place = torch.arange(self.newest_row.start, self.newest_row.stop, device=self.successor.device)[which]
        self._spill_finals(place[self.successor[place] < self.places])
        self._episode_age[which] = 0

    def place(self, age_rank: Tensor) -> Tensor:
        """The places of transitions counted from the oldest, ``[B]`` in [0, len) → ``[B]``."""
        oldest = max(0, self.row_count - self._window) * self.num_envs
        return (oldest + age_rank) % self.places if oldest else age_rank

    def observe(self, place: Tensor) -> Tensor:
        """The observation of each transition, ``[B]`` → ``[B, *S]``."""
        if self.frame_stack == 1:
            return self._frames.index_select(0, place)
        return self._frames.index_select(0, self._stack(place).flatten()).view(-1, *self.observation_shape)

    def observe_next(self, place: Tensor) -> Tensor:
        """The true next observation of each transition, ``[B]`` → ``[B, *S]``."""
        index = self.successor.index_select(0, place)
        if self.frame_stack == 1:
            return self._read(index)
        index = torch.cat([self._stack(place)[:, 1:], index.unsqueeze(-1)], dim=-1)
        return self._read(index.flatten()).view(-1, *self.observation_shape)

    def masks(self, n_actions: int) -> tuple[Tensor, Tensor]:
        """Both columns of masks, which are made here; in rows stored before them all actions are allowed."""
        if self.action_mask is None or self.next_action_mask is None:
            _require_memory(self._window * self.num_envs, 0, 2 * n_actions)
            make = torch.ones if self.row_count > 1 else torch.empty  # what was never written takes no memory
            self.action_mask, self.next_action_mask = (
                make(self.places, n_actions, dtype=torch.bool, device=self.action.device) for _ in "12"
            )
        return self.action_mask, self.next_action_mask

    @property
    def mask_bytes(self) -> int:
        """Bytes of a transition's masks."""
        return 0 if self.action_mask is None else 2 * self.action_mask.shape[-1]

    def allowed(self, place: Tensor) -> Tensor | None:
        """The actions allowed at each transition's observation, ``[B]`` → ``[B, A]``; None: all, always."""
        return None if self.action_mask is None else self.action_mask.index_select(0, place)

    def allowed_next(self, place: Tensor) -> Tensor | None:
        """The actions allowed at its next observation, ``[B]`` → ``[B, A]``."""
        return None if self.next_action_mask is None else self.next_action_mask.index_select(0, place)

    def next_places(self, place: Tensor, steps: int) -> Tensor:
        """Each place and its environment's places in the rows that follow, ``[B]`` → ``[B, steps]``."""
        rows = torch.arange(0, steps * self.num_envs, self.num_envs, device=place.device)
        return (place.unsqueeze(-1) + rows) % self.places

    def is_last(self, place: Tensor) -> Tensor:
        """Whether no transition follows: end of episode, cut, or newest row. ``[*]`` → ``[*]`` bool."""
        newest = (place >= self.newest_row.start) & (place < self.newest_row.stop)
        return newest | (self.successor.take(place) > self.places)

    def lookahead(self, place: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The next rows' places, ``[B, steps]``, and how many of them belong together, ``[B, 1]``.

        They end with the first step that terminated or was truncated, or that :meth:`is_last`.
        """
        place_BK = self.next_places(place, steps)
        last_BK = self.terminated.take(place_BK) | self.truncated.take(place_BK) | self.is_last(place_BK)
        return place_BK, F.steps_to_last(last_BK).unsqueeze(-1)

    def _advance(self, row_count: int) -> None:
        """Set the number of rows appended, and the rows that follow from it."""
        self.row_count, retired = row_count, row_count - 1 - self._window
        self.newest_row = self._row(row_count - 1) if row_count else slice(0, 0)
        self.retired_row = self._row(retired) if retired >= 0 else slice(0, 0)

    def _row(self, row: int) -> slice:
        first = row % self._rows * self.num_envs
        return slice(first, first + self.num_envs)

    def _next_row(self, place: Tensor) -> Tensor:
        return (place + self.num_envs) % self.places

    def _newest_frame(self, observation: Tensor) -> Tensor:
        return observation if self.frame_stack == 1 else observation[:, -1]

    def _read(self, index: Tensor) -> Tensor:
        """Read frames from the ring or the spill area, ``[M]`` → ``[M, *F]``."""
        room = len(self._frames)
        if self._spill_end <= room or index.max().item() < room:
            return self._frames.index_select(0, index)
        frames = self._frames.index_select(0, index.clamp(max=room - 1))
        over = (index >= room).nonzero().squeeze(-1)
        return frames.index_copy_(0, over, self._overflow.index_select(0, index[over] - room))

    def _stack(self, place: Tensor) -> Tensor:
        """The indices of an observation's frames, oldest first, ``[B]`` → ``[B, k]``."""
        frames = (place.unsqueeze(-1) - self.num_envs * self._offset) % self.places
        missing = self._frames_before[place].unsqueeze(-1) < self._offset
        return frames.masked_fill_(missing, self.places)

    def _spill_finals(self, place: Tensor) -> None:
        """Copy the next observations of these transitions to the spill area, before resets overwrite them."""
        if (more := len(place) - len(self._free_spill)) > 0:
            self._free_spill.extend(range(self._spill_end, self._spill_end + more))
            self._spill_end += more
        spill = place.new_tensor([self._free_spill.pop() for _ in range(len(place))])
        self._rows_with_finals.add(self.newest_row.start)
        self._write_spill(spill, self._frames.index_select(0, self.successor[place]))
        self.successor[place] = spill

    def _write_spill(self, spill: Tensor, finals: Tensor) -> None:
        """Write frames to the spill area, ``[M]``, ``[M, *F]``; beyond ``_frames`` it is ``_overflow``."""
        room = len(self._frames)
        over = spill >= room
        self._frames[spill[~over]] = finals[~over]
        if (needed := self._spill_end - room) > len(self._overflow):
            grown = self._overflow.new_empty(2 * needed, *finals.shape[1:])
            grown[: len(self._overflow)] = self._overflow
            self._overflow = grown
        self._overflow[spill[over] - room] = finals[over]

    def _release_finals(self, row: slice) -> None:
        """Free the spill area of a row's final observations."""
        successor = self.successor[row]
        self._free_spill.extend(successor[successor > self.places].tolist())
        self.successor[row] = self._next_row(torch.arange(row.start, row.stop, device=successor.device))
        self._rows_with_finals.remove(row.start)


def _require_memory(capacity: int, more: int, place_bytes: int) -> None:
    """Refuse a capacity that, with ``more`` places, does not fit in memory once full; spill not included."""
    free = available_bytes()
    if free is not None and (capacity + more) * place_bytes > free:
        fits = max(free // place_bytes - more, 0)
        expected = (
            f"at most {fits:,}: a transition takes {place_bytes:,} bytes, and {free / 1e9:.1f} GB are free"
        )
        raise SettingError("capacity", capacity, expected)
