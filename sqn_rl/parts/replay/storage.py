"""Adapters from a ring to the components of a TorchRL replay buffer: storage, writer, sampler.

Legend: N environments, T steps of each, B transitions; *place* is a transition's index in the ring; ``*S`` is
the shape of an observation.
"""

from abc import abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple, NoReturn, Protocol

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data.replay_buffers import Sampler, Storage, Writer

from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.ring_state import load_ring_state, ring_state
from sqn_rl.types import Batch, Step

NOTHING_STORED = "nothing is stored yet: there is nothing to draw from"
"""The message of an ``IndexError``."""


class Returns(Protocol):
    """The ``returns`` slot: computes a batch from the transitions at some places of a ring."""

    @property
    def independent(self) -> bool:
        """Whether batches do not depend on what is learned."""

    def gather(self, ring: Ring, place: Tensor) -> Batch:
        """The transitions at these places, ``[B]``."""

    def steps(self, ring: Ring, place: Tensor) -> Tensor:
        """m, the number of steps in each return, ``[B]`` → ``[B]`` int64."""


def refuse(self: object, *_: object, **__: object) -> NoReturn:
    """Replaces the methods of TorchRL's classes that a ring does not support.

    Raises:
        NotImplementedError: always.
    """
    name = type(self).__name__
    raise NotImplementedError(
        f"{name}: a ring is written by store and extend, saved by state_dict, and never emptied"
    )


class RingSampler(Sampler):
    """Samples places of a ring with the replay's generator; abstract: a subclass implements ``draw``."""

    place_bytes = 0
    """Bytes that it stores for each place."""

    independent = False
    """Whether sampling does not depend on TD errors."""

    prioritized = False
    """Whether initial priorities make a difference."""

    @abstractmethod
    def draw(self, ring: Ring, batch_size: int) -> tuple[Tensor, Tensor | None]:
        """Sample places, ``[B]``, and their importance weights, ``[B]`` float32, or None.

        Raises:
            IndexError: nothing is stored.
        """

    @property
    def generator(self) -> torch.Generator:
        """The generator for sampling. TorchRL's buffer sets ``_rng``, which has no public name."""
        return self._rng

    def on_append(self, ring: Ring, priority: Tensor | None = None) -> None:
        """Called after a row was appended, with its initial TD errors, ``[n, E]``, where they are known."""

    def on_extend(self, place: Tensor, td_error: Tensor) -> None:
        """Called after ``extend``, with the initial TD errors at these places, ``[n, B]``."""

    def update_priority(self, index: Tensor, priority: Tensor, *, storage: Storage | None = None) -> None:
        """Set priorities from TD errors; a sampler without priorities ignores them."""

    def sample(self, storage: Storage, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """:meth:`draw`, as TorchRL calls it."""
        place, weight = self.draw(storage.ring, batch_size)
        return place, {} if weight is None else {"priority_weight": weight}

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state, without its generator's."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the sampler's state."""

    _empty = dumps = loads = refuse


class RingStorage(Storage):
    """A ring as a TorchRL storage, indexed by place; a slice counts from the oldest transition."""

    def __init__(self, capacity: int, ring: Ring, returns: Returns) -> None:
        # compilable: otherwise TorchRL allocates semaphores to share it between processes
        super().__init__(max_size=capacity // ring.num_envs * ring.num_envs, compilable=True)
        self.ring, self.returns, self.device = ring, returns, ring.action.device

    def __len__(self) -> int:
        """The number of transitions."""
        return len(self.ring)

    def get(self, index: Any) -> TensorDict:
        """The transitions at these places, of any shape.

        Raises:
            IndexError: a place holds no transition.
        """
        ring, place = self.ring, self._place(index)
        place_B = place.reshape(-1)
        batch, steps_B = self.returns.gather(ring, place_B), self.returns.steps(ring, place_B)
        truncated_B = ring.truncated[(place_B + (steps_B - 1) * ring.num_envs) % ring.places]
        columns = {
            "reward": batch.reward,
            "terminated": batch.terminated,
            "truncated": truncated_B,
            "done": batch.terminated | truncated_B,
        }
        next_columns = {key: column.unsqueeze(-1) for key, column in columns.items()}
        transitions = TensorDict(
            {
                "observation": batch.observation,
                "action": batch.action,
                "steps_to_next_obs": steps_B.unsqueeze(-1),
                "next": {"observation": batch.next_observation, **next_columns},
            },
            batch_size=place_B.shape,
            device=self.device,
        )
        if batch.path is not None:
            transitions["path"] = TensorDict(batch.path.columns(), place_B.shape, device=self.device)
        if batch.action_mask is not None:
            transitions["action_mask"] = batch.action_mask
            transitions["next", "action_mask"] = batch.next_action_mask
        return transitions.reshape(place.shape)

    def _place(self, index: Any) -> Tensor:
        ring = self.ring
        if isinstance(index, slice):
            return ring.place(torch.arange(len(ring), device=self.device)[index])
        place = torch.as_tensor(index, device=self.device)
        misses = (place < 0) | (place >= ring.places) | ~ring.holds(place.long() % ring.places)
        if place.dtype == torch.bool or misses.any():
            raise IndexError(f"{index}: expected places that hold a transition")
        return place

    def state_dict(self) -> dict[str, Any]:
        """The ring's state: see :func:`~sqn_rl.parts.replay.ring_state.ring_state`."""
        return ring_state(self.ring)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the ring's state.

        Raises:
            ValueError: it is the state of another kind of ring, or rows are missing.
        """
        load_ring_state(self.ring, state_dict)

    set = _empty = dumps = loads = refuse


class RingWriter(Writer):
    """Appends rows to a ring, and notifies its sampler."""

    def __init__(self, ring: Ring, sampler: RingSampler) -> None:
        super().__init__(compilable=True)
        self.ring, self.sampler, self._write_count = ring, sampler, 0
        self._is_extended = False
        """Whether the newest row is from :meth:`extend`, which learns of an end only from the next row."""

    def write(
        self,
        observation: Tensor,
        action: Tensor,
        step: Step,
        lane: int = 0,
        priority: Tensor | None = None,
    ) -> None:
        """Append one row; after :meth:`extend` no return crosses a reset before it."""
        if self._is_extended:
            first = observation.to(self.ring.action.device).unsqueeze(1)
            self._cut(self._find_resets(first, first)[:, 0])
            self._is_extended = False
        self._append(observation, action, step, lane, priority)

    def _append(
        self, observation: Tensor, action: Tensor, step: Step, lane: int = 0, priority: Tensor | None = None
    ) -> None:
        self.ring.append(observation, action, step, lane)
        self.sampler.on_append(self.ring, priority)
        self._write_count += self.ring.lane_envs

    def extend(self, data: TensorDictBase) -> Tensor:
        """See :meth:`RingReplay.extend`."""
        ring, read = self.ring, _Reader(data.to(self.ring.action.device), self._shape(data))
        kind = (ring.observation_dtype, ring.observation_shape)
        observation, next_observation = read("observation", *kind), read(("next", "observation"), *kind)
        action, reward = read("action", torch.int64), read(("next", "reward"), torch.float32)
        terminated = read(("next", "terminated"), torch.bool)
        if ("next", "truncated") in data.keys(include_nested=True):
            truncated = read(("next", "truncated"), torch.bool)
        else:
            truncated = read(("next", "done"), torch.bool) & ~terminated
        reset_NT = self._find_resets(observation, next_observation)
        ended = torch.zeros_like(terminated)  # the ends show in ``reset_NT``
        steps = Step(next_observation, next_observation, reward, terminated, truncated, ended, reward)
        if (mask := data.get("action_mask", None)) is not None:
            kind = (torch.bool, mask.shape[-1:])
            mask, next_mask = read("action_mask", *kind), read(("next", "action_mask"), *kind)
            steps = steps._replace(action_mask=mask, next_action_mask=next_mask)
        places = []
        for t in range(reset_NT.shape[1]):
            self._cut(reset_NT[:, t])
            now = {name: column[:, t] for name, column in steps._asdict().items() if column is not None}
            self._append(observation[:, t], action[:, t], Step(**now))
            places.append(self._newest())
        self._is_extended = True
        return torch.stack(places, -1).reshape(data.shape)

    def add(self, data: TensorDictBase) -> Tensor:
        """Like :meth:`extend`, for one step."""
        return self.extend(data)

    def _shape(self, data: TensorDictBase) -> tuple[int, int]:
        """N and T."""
        n, shape = self.ring.num_envs, data.shape
        if self.ring.lanes > 1:
            raise ValueError("extend: the lanes of a replay are written by store, each by an actor")
        if n == 1 and len(shape) < 2:
            return 1, data.numel()
        if len(shape) in (1, 2) and shape[0] == n:
            return n, data.numel() // n
        raise ValueError(
            f"a TensorDict of shape {[*shape]}: expected [{n}] or [{n}, T], for {n} environments"
        )

    def _newest(self) -> Tensor:
        return torch.arange(
            self.ring.newest_row.start, self.ring.newest_row.stop, device=self.ring.action.device
        )

    def _cut(self, reset_N: Tensor) -> None:
        if len(self.ring) and reset_N.any():
            self.ring.cut(reset_N.nonzero().squeeze(-1))

    def _find_resets(self, observation: Tensor, next_observation: Tensor) -> Tensor:
        """Where an observation is not the next observation of the step before, ``[N, T]`` bool."""
        ring = self.ring
        first = ring.observe_next(self._newest()) if len(ring) else torch.zeros_like(observation[:, 0])
        expected = torch.cat([first.unsqueeze(1), next_observation[:, :-1]], 1)
        reset_NT = (observation != expected).flatten(2).any(-1)
        reset_NT[:, 0] |= not len(ring)
        if ring.frame_stack > 1 and observation[reset_NT][:, :-1].any():
            raise ValueError("observation: expected zeros for the frames from before an episode's first")
        return reset_NT

    def state_dict(self) -> dict[str, Any]:
        """The number of transitions written, and whether the newest are from :meth:`extend`."""
        return {"write_count": self._write_count, "is_extended": self._is_extended}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        self._write_count = state_dict["write_count"]
        self._is_extended = state_dict.get("is_extended", False)  # earlier versions did not write it

    _empty = dumps = loads = refuse


class _Reader(NamedTuple):
    """Reads columns of a TensorDict of steps as ``[N, T]``, whatever its own batch shape."""

    data: TensorDictBase
    size: tuple[int, int]

    def __call__(self, key: NestedKey, dtype: torch.dtype, shape: tuple[int, ...] = ()) -> Tensor:
        """Read a column as ``[N, T, *shape]``; in the TensorDict it may have a last dimension of 1."""
        column = self.data[key]
        if column.dtype != dtype or column.numel() != prod(self.size) * prod(shape):
            actual, expected = f"{[*column.shape]} {column.dtype}", f"{[*self.data.shape, *shape]} {dtype}"
            raise ValueError(f"{key}: {actual}, expected {expected}")
        return column.reshape(*self.size, *shape)
