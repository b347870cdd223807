"""The store of all replays: a ring of environment steps in which each observation lies once.

Row ``t`` holds what N environments did at one step. A transition's next observation is the observation of the
row after it, except where the game ended: there the true final observation lies aside, so that a reset
observation is never anybody's successor. The row after the newest transition holds the observation it led to,
and no transition.

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
"""Action, reward, terminated, truncated, and where a final observation lies."""


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
        self.observation = torch.zeros(places, *observation_shape, dtype=observation_dtype, device=device)
        self.action = torch.zeros(places, dtype=torch.int64, device=device)
        self.reward = torch.zeros(places, dtype=torch.float32, device=device)
        self.terminated = torch.zeros(places, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(places, dtype=torch.bool, device=device)
        self.final = torch.full((places,), -1, dtype=torch.int64, device=device)
        self._finals = self.observation.new_zeros(0, *observation_shape)
        self._free_finals: list[int] = []
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
            self._keep_finals(row.start + step.ended.nonzero().squeeze(-1), step.next_observation[step.ended])

    def place(self, age_rank: Tensor) -> Tensor:
        """The places of transitions counted from the oldest, ``[B]`` in [0, len) → ``[B]``."""
        oldest = (self._head - self._steps) * self.num_envs
        return (oldest + age_rank) % len(self.action)

    def next_observation(self, place: Tensor) -> Tensor:
        """The true successor of each transition, ``[B]`` → ``[B, *S]``."""
        following = self.observation[(place + self.num_envs) % len(self.action)]
        final = self.final[place]
        ended = final >= 0
        if ended.any():
            following[ended] = self._finals[final[ended]]
        return following

    def _places(self, row: int) -> slice:
        return slice(row * self.num_envs, (row + 1) * self.num_envs)

    def _keep_finals(self, place: Tensor, observation: Tensor) -> None:
        while len(self._free_finals) < len(place):
            used = len(self._finals)
            grown = self._finals.new_zeros(max(64, 2 * used), *self._finals.shape[1:])
            grown[:used] = self._finals
            self._finals = grown
            self._free_finals.extend(range(len(grown) - 1, used - 1, -1))
        slot = torch.tensor([self._free_finals.pop() for _ in range(len(place))], device=place.device)
        self.final[place] = slot
        self._finals[slot] = observation

    def _drop_finals(self, row: slice) -> None:
        final = self.final[row]
        if (final >= 0).any():
            self._free_finals.extend(final[final >= 0].tolist())
            self.final[row] = -1


def _require_memory(capacity: int, observation_bytes: int) -> None:
    each, free = observation_bytes + ROW_BYTES, available_bytes()
    if free is not None and capacity * each > free:
        expected = (
            f"at most {free // each:,}: a transition takes {each:,} bytes, and {free / 1e9:.1f} GB are free"
        )
        raise SettingError("capacity", capacity, expected)
