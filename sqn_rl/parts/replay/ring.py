"""The storage of all replays: a ring buffer of environment steps that stores each frame once.

Row ``t`` holds one step of N environments. A transition's next observation is the observation of the next
row, except where the episode ended: final observations are stored in a spill area behind the last row, so
that a reset observation is never a next observation. The row after the newest transition holds only its next
observation. If observations are stacks of the last k frames, only the newest frame is stored; the others are
read from the k - 1 rows before, which are kept longer than their transitions.

With L lanes the environments are L groups of N / L, one for each actor, and every lane has rows of its own:
it loses a transition only to a newer one of the same lane. One lane is the plain ring.

Legend: N environments, L lanes of E = N / L, B transitions; a transition's *place* is its index
``row · N + environment``; ``*S`` is the shape of an observation, ``*F`` that of a frame: ``*S`` itself, or
with stacks ``*S = [k, *F]``.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import SettingError, require
from sqn_rl.parts.machine import available_bytes
from sqn_rl.parts.replay.append_order import AppendOrder
from sqn_rl.parts.replay.frames import FrameStore
from sqn_rl.parts.replay.sequence_starts import SequenceStarts
from sqn_rl.types import Step

ROW_BYTES = 8 + 4 + 1 + 1 + 8 + 1
"""Bytes of a transition without its frame: action, reward, two flags, successor, frames before."""


class Ring:
    """The newest ``capacity`` transitions of N environments, of which those in one lane step together.

    Args:
        capacity: transitions, over all environments; rounded down to a multiple of ``num_envs``.
        num_envs: N, the number of environments.
        observation_shape: S, of one observation.
        observation_dtype: dtype in which observations are stored.
        frame_stack: k; above 1 an observation is ``[k, *F]``, the last k frames, oldest first, with zeros for
            frames from before the episode. An episode begins at the first step, after an episode that ended,
            and after a cut, but not after a lost life.
        device: device of the tensors.
        lanes: L, a divisor of ``num_envs``.

    Raises:
        SettingError: the capacity has no room for one step of every environment, or memory has no room for
            the capacity; or an observation is not ``frame_stack`` frames; or the lanes are not equal.
    """

    newest_row: slice
    """The places of the row that was appended last, in its lane."""
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
        lanes: int = 1,
    ) -> None:
        _require_sizes(capacity, num_envs, observation_shape, frame_stack, lanes)
        self.num_envs, self.lanes, self.lane_envs = num_envs, lanes, num_envs // lanes
        self.observation_shape, self.observation_dtype = tuple(observation_shape), observation_dtype
        self.frame_stack = frame_stack
        frame_shape = self.observation_shape[1:] if frame_stack > 1 else self.observation_shape
        self.frame_bytes = math.prod(frame_shape) * observation_dtype.itemsize
        _require_memory(device, capacity, frame_stack * num_envs, self.frame_bytes + ROW_BYTES)
        self._window = capacity // num_envs
        """Rows of each lane that hold transitions."""
        self._rows = self._window + frame_stack
        """Rows of each lane: also k - 1 older ones, and that of the newest transition's next observation."""
        self.places = places = self._rows * num_envs
        self.action = torch.zeros(places, dtype=torch.int64, device=device)
        self.reward = torch.zeros(places, dtype=torch.float32, device=device)
        self.terminated = torch.zeros(places, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(places, dtype=torch.bool, device=device)
        self.frames = FrameStore(places, frame_shape, observation_dtype, device)
        self.successor = self._next_row(torch.arange(places, device=device))
        """The index in :attr:`frames` of each transition's next observation, ``[places]``."""
        self._rows_with_finals: set[int] = set()
        """The first places of the rows with a transition whose next observation is in the spill area."""
        self._frames_before = torch.zeros(places, dtype=torch.uint8, device=device)
        """How many frames of each observation's stack precede the newest one in its episode, ``[places]``."""
        self._episode_age = torch.zeros(num_envs, dtype=torch.uint8, device=device)
        """Steps of each environment's episode so far, but at most k - 1."""
        self._rows_back = torch.arange(frame_stack - 1, -1, -1, device=device)
        """How many rows before the newest frame of a stack each of its frames is, ``[k]``, oldest first."""
        self.action_mask: Tensor | None = None
        """The actions allowed at each observation, ``[places, A]`` bool, once a step has such masks."""
        self.next_action_mask: Tensor | None = None
        """The actions allowed at each next observation, ``[places, A]`` bool."""
        self.log_mu: Tensor | None = None
        """The log-probability with which each action was taken, ``[places]``, once a step has it."""
        self.starts: SequenceStarts | None = None
        """The beginnings of sequences, and the memory there, if the networks are recurrent."""
        self._counts = [0] * lanes  # rows appended to each lane so far, including overwritten ones
        self.order = AppendOrder([0] * lanes)
        """The order of the rows in checkpoints."""
        self._advance(0, 0)

    def __len__(self) -> int:
        """The number of transitions."""
        return sum(min(count, self._window) for count in self._counts) * self.lane_envs

    @property
    def row_count(self) -> int:
        """Rows appended so far, over all lanes, including overwritten ones."""
        return sum(self._counts)

    def append(self, observation: Tensor, action: Tensor, step: Step, lane: int = 0) -> None:
        """Store one step of a lane's environments: ``[E, *S]``, ``[E]``, and its result."""
        environments = self.environments(lane)
        self._advance(lane, self._counts[lane] + 1)
        self.order.append(lane)
        self.order.drop(self._counts, keep=self._rows - 1)
        if self.retired_row.stop and self.retired_row.start in self._rows_with_finals:
            self._release_finals(self.retired_row)
        row = self.newest_row
        self.frames.main[row] = self._newest_frame(observation)
        self.action[row] = action
        self.reward[row] = step.reward
        self.terminated[row] = step.terminated
        self.truncated[row] = step.truncated
        self.frames.main[self._row(lane, self._counts[lane])] = self._newest_frame(step.next_observation)
        self._append_optional(row, step)
        episode_age = self._episode_age[environments]
        if self.frame_stack > 1:
            self._frames_before[row] = episode_age
            episode_age.add_(1).clamp_(max=self.frame_stack - 1)
        if self.starts is not None:
            self.starts.append(row, self._counts[lane] - 1, environments, step)
        if step.ended.any():
            ended = step.ended.nonzero().squeeze(-1).to(self.successor.device)
            self._spill_finals(row.start + ended)
            episode_age[ended] = 0

    def _append_optional(self, row: slice, step: Step) -> None:
        """Store the masks and log-probabilities of a step, or those of a step that has none."""
        if step.action_mask is not None:
            self.create_masks(step.action_mask.shape[-1])
        if self.action_mask is not None and self.next_action_mask is not None:
            self.action_mask[row] = True if step.action_mask is None else step.action_mask
            self.next_action_mask[row] = True if step.next_action_mask is None else step.next_action_mask
        if step.log_mu is not None:
            self.create_log_mu()
        if self.log_mu is not None:
            self.log_mu[row] = 0 if step.log_mu is None else step.log_mu

    def cut(self, environments: Tensor | None = None) -> None:
        """Mark a discontinuity: the next row of a lane does not continue its last one.

        Args:
            environments: the environments to cut, ``[*]`` int64; None: all.
        """
        which = slice(None) if environments is None else environments
        place = self.newest_places()[which]
        place = place[place >= 0]
        self._spill_finals(place[self.successor[place] < self.places])
        self._episode_age[which] = 0
        if self.starts is not None:
            self.starts.cut(which)

    def environments(self, lane: int) -> slice:
        """The environments of a lane."""
        return slice(lane * self.lane_envs, (lane + 1) * self.lane_envs)

    def newest_places(self) -> Tensor:
        """The place of every environment's newest transition, ``[N]``; -1 where there is none."""
        row_L = torch.tensor([(count - 1) % self._rows if count else -1 for count in self._counts])
        row_N = row_L.to(self.successor.device).repeat_interleave(self.lane_envs)
        column_N = torch.arange(self.num_envs, device=row_N.device)
        return torch.where(row_N < 0, -1, row_N * self.num_envs + column_N)

    def holds(self, place: Tensor) -> Tensor:
        """Whether there is a transition at a place, ``[*]`` in [0, places) → ``[*]`` bool."""
        count = self.count(place)
        return (count - 1 - place // self.num_envs) % self._rows < count.clamp(max=self._window)

    def row_number(self, place: Tensor) -> Tensor:
        """The number of the row that a place is in, counted from the first of its lane, ``[*]`` → ``[*]``."""
        last = self.count(place) - 1
        return last - (last - place // self.num_envs) % self._rows

    def count(self, place: Tensor) -> Tensor:
        """Rows appended so far to the lanes of these places or transition numbers, ``[*]`` → ``[*]``."""
        return torch.tensor(self._counts, device=place.device)[place % self.num_envs // self.lane_envs]

    def place(self, age_rank: Tensor) -> Tensor:
        """The places of transitions counted from the oldest, ``[B]`` in [0, len) → ``[B]``.

        With several lanes one lane is counted after the other.
        """
        if self.lanes == 1:
            oldest = max(0, self._counts[0] - self._window) * self.num_envs
            return (oldest + age_rank) % self.places if oldest else age_rank
        sizes = [min(count, self._window) * self.lane_envs for count in self._counts]
        end_L = torch.tensor([*accumulate(sizes)], device=age_rank.device)
        lane = torch.searchsorted(end_L, age_rank, right=True)
        rank = age_rank - (end_L - torch.tensor(sizes, device=end_L.device))[lane]
        oldest_L = torch.tensor([max(0, count - self._window) for count in self._counts], device=end_L.device)
        row = (oldest_L[lane] + rank // self.lane_envs) % self._rows
        return row * self.num_envs + lane * self.lane_envs + rank % self.lane_envs

    def observe(self, place: Tensor) -> Tensor:
        """The observation of each transition, ``[B]`` → ``[B, *S]``."""
        if self.frame_stack == 1:
            return self.frames.main.index_select(0, place)
        index = self._stack(place).flatten()
        return self.frames.main.index_select(0, index).view(-1, *self.observation_shape)

    def observe_next(self, place: Tensor) -> Tensor:
        """The true next observation of each transition, ``[B]`` → ``[B, *S]``."""
        index = self.successor.index_select(0, place)
        if self.frame_stack == 1:
            return self.frames.read(index)
        index = torch.cat([self._stack(place)[:, 1:], index.unsqueeze(-1)], dim=-1)
        return self.frames.read(index.flatten()).view(-1, *self.observation_shape)

    def create_masks(self, n_actions: int) -> None:
        """Create the columns of masks, if there are none; in rows stored before, all actions are allowed."""
        if self.action_mask is None:
            _require_memory(self.action.device, self._window * self.num_envs, 0, 2 * n_actions)
            make = torch.ones if self.row_count > 1 else torch.empty  # what was never written takes no memory
            self.action_mask, self.next_action_mask = (
                make(self.places, n_actions, dtype=torch.bool, device=self.action.device) for _ in range(2)
            )

    def create_log_mu(self) -> None:
        """Create the column of log-probabilities, if there is none; in rows stored before, they are 0."""
        if self.log_mu is None:
            self.log_mu = torch.zeros_like(self.reward)

    @property
    def optional_bytes(self) -> int:
        """Bytes of a transition's masks and log-probability."""
        masks = 0 if self.action_mask is None else 2 * self.action_mask.shape[-1]
        return masks + (0 if self.log_mu is None else 4)

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
        if self.lanes == 1:
            newest = (place >= self.newest_row.start) & (place < self.newest_row.stop)
        else:
            newest = place == self.newest_places()[place % self.num_envs]
        return newest | (self.successor.take(place) > self.places)

    def lookahead(self, place: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The next rows' places, ``[B, steps]``, and how many of them belong together, ``[B, 1]``.

        They end with the first step that terminated or was truncated, or that :meth:`is_last`.
        """
        place_BT = self.next_places(place, steps)
        last_BT = self.terminated.take(place_BT) | self.truncated.take(place_BT) | self.is_last(place_BT)
        return place_BT, F.steps_to_last(last_BT).unsqueeze(-1)

    def _advance(self, lane: int, row_count: int) -> None:
        """Set the number of rows appended to a lane, and the rows that follow from it."""
        self._counts[lane], retired = row_count, row_count - 1 - self._window
        self.newest_row = self._row(lane, row_count - 1) if row_count else slice(0, 0)
        self.retired_row = self._row(lane, retired) if retired >= 0 else slice(0, 0)

    def _row(self, lane: int, row: int) -> slice:
        first = row % self._rows * self.num_envs + lane * self.lane_envs
        return slice(first, first + self.lane_envs)

    def _next_row(self, place: Tensor) -> Tensor:
        return (place + self.num_envs) % self.places

    def _newest_frame(self, observation: Tensor) -> Tensor:
        return observation if self.frame_stack == 1 else observation[:, -1]

    def _stack(self, place: Tensor) -> Tensor:
        """The indices of an observation's frames, oldest first, ``[B]`` → ``[B, k]``."""
        frames = (place.unsqueeze(-1) - self.num_envs * self._rows_back) % self.places
        missing = self._frames_before[place].unsqueeze(-1) < self._rows_back
        return frames.masked_fill_(missing, self.places)

    def _spill_finals(self, place: Tensor) -> None:
        """Copy the next observations of these transitions to the spill area, before resets overwrite them."""
        self.successor[place] = self.frames.spill(self.frames.main.index_select(0, self.successor[place]))
        self._rows_with_finals.update((place - place % self.lane_envs).tolist())

    def _release_finals(self, row: slice) -> None:
        """Free the spill area of a row's final observations."""
        successor = self.successor[row]
        self.frames.release(successor[successor > self.places])
        self.successor[row] = self._next_row(torch.arange(row.start, row.stop, device=successor.device))
        self._rows_with_finals.remove(row.start)


def _require_sizes(
    capacity: int, num_envs: int, observation_shape: Sequence[int], frame_stack: int, lanes: int
) -> None:
    room = f"at least {num_envs}, one step of every environment"
    require(capacity >= num_envs, "capacity", capacity, room)
    require(frame_stack <= 255, "frame_stack", frame_stack, "at most 255, as ages of episodes are bytes")
    require(num_envs % lanes == 0, "lanes", lanes, f"a divisor of {num_envs}, the environments")
    if frame_stack > 1 and observation_shape[0] != frame_stack:
        expected = f"{observation_shape[0]}, the first size of an observation {list(observation_shape)}"
        raise SettingError("frame_stack", frame_stack, expected)


def _require_memory(device: torch.device | str, capacity: int, more: int, place_bytes: int) -> None:
    """Refuse a capacity that, with ``more`` places, does not fit in memory once full; spill not included."""
    free = available_bytes(device)
    if free is not None and (capacity + more) * place_bytes > free:
        fits = max(free // place_bytes - more, 0)
        expected = f"at most {fits:,}: each takes {place_bytes:,} bytes, and {free / 1e9:.1f} GB are free"
        raise SettingError("capacity", capacity, expected)
