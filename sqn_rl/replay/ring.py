"""The store of all replays: a ring of environment steps in which each observation lies once.

Row ``t`` holds what N environments did at one step. A transition's next observation is the observation of the
row after it, except where the game ended: there the true final observation lies aside, behind the last row,
so that a reset observation is never anybody's successor. The row after the newest transition holds the
observation it led to, and no transition.

Legend: L rows, N environments; *place* ``k = row · N + environment`` numbers the transitions of the ring.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sqn_rl.data import Step
from sqn_rl.errors import SettingError, require
from sqn_rl.memory import available_bytes

ROW_BYTES = 8 + 4 + 1 + 1 + 8
"""Action, reward, terminated, truncated, and where the next observation lies."""


class Ring:
    """The newest ``capacity`` transitions of N environments that step together.

    Args:
        capacity: transitions, over all environments; rounded down to a multiple of ``num_envs``.
        num_envs: N.
        observation_shape: S.
        observation_dtype: how observations are stored.
        device: where.

    Raises:
        SettingError: the capacity has no room for one step of every environment, or the memory none for the
            capacity.
    """

    def __init__(
        self,
        *,
        capacity: int,
        num_envs: int,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        require(
            capacity >= num_envs, "capacity", capacity, f"at least {num_envs}, one step of every environment"
        )
        _require_memory(capacity, math.prod(observation_shape) * observation_dtype.itemsize)
        self.num_envs, self.rows = num_envs, capacity // num_envs + 1
        places = self.rows * num_envs
        aside = places // 8 + 64
        self.observation = torch.zeros(
            places + aside, *observation_shape, dtype=observation_dtype, device=device
        )
        self.action = torch.zeros(places, dtype=torch.int64, device=device)
        self.reward = torch.zeros(places, dtype=torch.float32, device=device)
        self.terminated = torch.zeros(places, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(places, dtype=torch.bool, device=device)
        self.following = self._next_row(torch.arange(places, device=device))
        self._free = list(range(len(self.observation) - 1, places - 1, -1))
        self._head = 0
        self._steps = 0

    def __len__(self) -> int:
        """The number of transitions."""
        return self._steps * self.num_envs

    def append(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store what N environments did at one step: ``[N, *S]``, ``[N]``, and their answer."""
        row = self._places(self._head)
        self.observation[row] = observation
        self.action[row] = action
        self.reward[row] = step.reward
        self.terminated[row] = step.terminated
        self.truncated[row] = step.truncated
        self._head = (self._head + 1) % self.rows
        self._steps = min(self._steps + 1, self.rows - 1)
        following = self._places(self._head)
        self._drop_finals(following)
        self.observation[following] = step.next_observation
        if step.ended.any():
            self._keep_finals(row.start + step.ended.nonzero().squeeze(-1))

    def cut(self) -> None:
        """Experience starts anew: what is appended next does not follow from what was appended last."""
        if self._steps:
            newest = self._places((self._head - 1) % self.rows)
            place = torch.arange(newest.start, newest.stop, device=self.following.device)
            self._keep_finals(place[self.following[place] < len(self.action)])

    def place(self, age_rank: Tensor) -> Tensor:
        """The places of transitions counted from the oldest, ``[B]`` in [0, len) → ``[B]``."""
        oldest = (self._head - self._steps) * self.num_envs
        return (oldest + age_rank) % len(self.action)

    def next_observation(self, place: Tensor) -> Tensor:
        """The true successor of each transition, ``[B]`` → ``[B, *S]``."""
        return self.observation[self.following[place]]

    def _places(self, row: int) -> slice:
        return slice(row * self.num_envs, (row + 1) * self.num_envs)

    def _next_row(self, place: Tensor) -> Tensor:
        return (place + self.num_envs) % len(self.action)

    def _keep_finals(self, place: Tensor) -> None:
        """Copy the successors of these transitions aside, before reset observations take their row."""
        while len(self._free) < len(place):
            used = len(self.observation)
            self.observation = torch.cat([self.observation, torch.zeros_like(self.observation[: used // 2])])
            self._free.extend(range(len(self.observation) - 1, used - 1, -1))
        aside = place.new_tensor([self._free.pop() for _ in range(len(place))])
        self.observation[aside] = self.next_observation(place)
        self.following[place] = aside

    def _drop_finals(self, row: slice) -> None:
        following = self.following[row]
        if (aside := following >= len(self.action)).any():
            self._free.extend(following[aside].tolist())
            place = torch.arange(row.start, row.stop, device=following.device)
            self.following[row] = self._next_row(place)


def _require_memory(capacity: int, observation_bytes: int) -> None:
    each, free = observation_bytes + ROW_BYTES, available_bytes()
    if free is not None and capacity * each > free:
        expected = (
            f"at most {free // each:,}: a transition takes {each:,} bytes, and {free / 1e9:.1f} GB are free"
        )
        raise SettingError("capacity", capacity, expected)
