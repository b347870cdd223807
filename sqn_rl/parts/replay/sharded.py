"""Prioritized replay in shards, each in a process or on a machine of its own, so that none holds everything.

Frames go from an actor to a shard, and from there, in batches, to the learner, which passes actors' chunks on
without reading them. A batch is stratified over the shards' sums of priorities, which the learner knows from
the last batch; importance weights use the probabilities with which transitions were actually sampled.

Legend: S shards, B sampled transitions, of which B_s of shard s; T_s its sum of priorities p^ω.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import ReplayError, WiringError, require
from sqn_rl.parts.arguments import Count, NotNegative, Positive, Probability, typed
from sqn_rl.parts.hosting import Host, LocalHost
from sqn_rl.parts.replay.prioritized import (
    PrioritizedReplay,
    importance_weights,
    priority_of,
    require_finite,
    stratified,
)
from sqn_rl.parts.replay.storage import NOTHING_STORED, Returns
from sqn_rl.parts.replay.sum_tree import Floats
from sqn_rl.parts.schedule import linear
from sqn_rl.types import Batch, Chunk, Piece, Rows, Step

PLACE_BITS = 40
"""The lower bits of a place are the place in its shard; the higher bits are the shard's number."""


class Shard:
    """A part of a replay: the lanes of some actors.

    Args:
        replay: stores the transitions.
    """

    def __init__(self, replay: PrioritizedReplay) -> None:
        self._replay = replay
        self._pieces: list[Piece] = []

    def store(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step, as :meth:`PrioritizedReplay.store` does."""
        self._replay.store(observation, action, step)

    def store_chunk(self, chunk: Chunk, lane: int) -> None:
        """Store a chunk in a lane."""
        self._replay.store_chunk(chunk, lane=lane)

    def cut(self) -> None:
        """Mark a discontinuity in all lanes."""
        self._replay.cut()

    def total(self) -> float:
        """The sum of its priorities, T_s."""
        return self._replay.sampler.tree.total

    def draw(self, number: int) -> tuple[Mapping[str, np.ndarray], Floats, float]:
        """Sample ``number`` transitions: their columns, p_i^ω / T_s of each, and T_s."""
        total = self.total()
        if not number:
            return {}, np.empty(0), total
        batch = self._replay.draw(number)._replace(weight=None)
        share = self._replay.sampler.tree.value[batch.place.numpy()] / total
        return {name: column.numpy() for name, column in batch.columns().items()}, share, total

    def update_priority(self, place: np.ndarray, td_error: np.ndarray) -> None:
        """Set priorities from TD errors, ``[B_s]`` and ``[n, B_s]``."""
        self._replay.update_priority(torch.tensor(place), torch.tensor(td_error))

    def transition_bytes(self) -> tuple[int, int]:
        """Bytes of a transition, in memory and in a checkpoint."""
        return self._replay.transition_bytes

    def state(self) -> dict[str, Any]:
        """The state, with the range of its rows instead of the rows."""
        state = self._replay.lazy_state_dict()
        self._rows: Rows = state["_storage"]["rows"]
        state["_storage"]["rows"] = [self._rows.begin, self._rows.end, self._rows.step]
        return state

    def read(self, begin: int, end: int) -> Mapping[str, Tensor]:
        """Rows of the last :meth:`state`."""
        return self._rows.read(begin, end)

    def take(self, piece: Piece) -> None:
        """Receive the next rows of a state that will be loaded."""
        self._pieces.append(piece)

    def load(self, state: Mapping[str, Any]) -> None:
        """Load a state, with the rows received."""
        storage = state["_storage"] | {"rows": self._drained()}
        self._replay.load_state_dict({**state, "_storage": storage})

    def _drained(self) -> Iterator[Piece]:
        while self._pieces:
            yield self._pieces.pop(0)


class ShardedReplay:
    """Prioritized replay whose transitions lie in S shards, for :class:`~sqn_rl.RayCollect`.

    Each shard is a :class:`~sqn_rl.PrioritizedReplay` with the lanes of every S-th actor. Of a batch, shard s
    gives as many transitions, B_s, as points of a stratified draw over the sums fall on its own. So
    transition i was sampled with probability ``P(i) = (B_s / B) p_i^ω / T_s``, which its importance weight
    corrects, also where the sums have changed since the learner heard of them.

    Arguments are those of :class:`~sqn_rl.PrioritizedReplay`, and:

    Args:
        shards: S, a divisor of the number of actors.
        num_envs: N, the environments of all actors.
        device: device of the batches; shards store on the CPU.
        lanes: one for each actor; None: there are no actors.

    Raises:
        SettingError: a value is out of range.
        WiringError: there are no actors; or the returns read the policy, which a shard does not have.
    """

    prioritized = True

    @typed
    def __init__(
        self,
        *,
        capacity: Count,
        shards: Count,
        omega: NotNegative,
        beta: Probability,
        epsilon: Positive,
        td_error: str,
        steps: Count,
        num_envs: Count,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        frame_stack: Count,
        returns: Returns,
        seed: int,
        device: torch.device | str,
        lanes: Count | None = None,
    ) -> None:
        if lanes is None:
            hint = "choose collect=ray, or replay=prioritized"
            raise WiringError("replay", f"replay: shards take what actors collect; {hint}", "collect")
        require(lanes % shards == 0, "shards", shards, f"a divisor of {lanes}, the actors")
        room = f"at least {num_envs}, one step of every environment"
        require(capacity >= num_envs, "capacity", capacity, room)
        if not returns.independent:
            problem = "a shard has no policy, which soft returns read"
            hint = "set returns.soft=false, or choose replay=prioritized"
            raise WiringError("replay", f"replay: {problem}; {hint}", "returns.soft")
        self.capacity, self.shards, self.lanes, self.returns = capacity, shards, lanes, returns
        self._seed, self._device, self._beta, self._steps, self.beta = seed, device, beta, steps, beta
        self._generator = torch.Generator().manual_seed(seed)
        self._omega = omega
        self._priority_of = partial(priority_of, epsilon=epsilon, reduction=td_error)
        self._replay = partial(
            PrioritizedReplay,
            omega=omega,
            beta=beta,
            epsilon=epsilon,
            td_error=td_error,
            steps=steps,
            num_envs=num_envs // shards,
            observation_shape=observation_shape,
            observation_dtype=observation_dtype,
            frame_stack=frame_stack,
            returns=returns,
            device="cpu",
            lanes=lanes // shards,
        )
        self._totals = [0.0] * shards  # T_s at the last batch
        self._tables = [*range(shards)]  # the numbers of the shards' rows in checkpoints
        self._emptied: list[int] = []
        one_step = num_envs // shards
        self._host: Host = LocalHost(lambda number: Shard(self._make_replay(number, one_step)), shards)

    def make_shard(self, number: int) -> Shard:
        """A shard with its part of the capacity."""
        return Shard(self._make_replay(number, self.capacity // self.shards))

    def _make_replay(self, number: int, capacity: int) -> PrioritizedReplay:
        return self._replay(capacity=capacity, seed=self._seed + 1 + number)

    def use_host(self, host: Host) -> None:
        """Keep the shards in this host; until then they hold one step, for the checks before a run."""
        self._host = host

    @property
    def transition_bytes(self) -> tuple[int, int]:
        """Bytes of a transition: in memory, beyond those of the empty replay, and in a checkpoint."""
        in_memory, on_disk = self._host.answer(self._host.call(0, "transition_bytes"))
        return in_memory, on_disk

    def anneal(self, env_steps: int) -> None:
        """Set β for this number of environment steps."""
        self.beta = linear(self._beta, 1.0, env_steps / self._steps)

    def metrics(self) -> dict[str, float]:
        """β, for logs."""
        return {"beta": self.beta}

    def advice(self) -> str | None:
        """A note on the shards that began empty."""
        which = ", ".join(map(str, self._emptied))
        return f"replay: shard {which} began empty, as its transitions were lost" if which else None

    # --- storing --------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Mark a discontinuity in all lanes."""
        for number in range(self.shards):
            self._host.call(number, "cut")

    def store(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step of the environments of the first actor, as the checks before a run do."""
        self._host.call(0, "store", observation, action, step)

    def store_chunk(self, chunk: Any, *, lane: int) -> None:
        """Let a shard store a chunk, or a reference to it, in its actor's lane."""
        self._host.call(lane % self.shards, "store_chunk", chunk, lane // self.shards)

    # --- sampling -------------------------------------------------------------------------------------------

    def draw(self, batch_size: int) -> Batch:
        """Sample ``batch_size`` transitions.

        Raises:
            IndexError: nothing is stored.
            ReplayError: a shard is lost.
        """
        if not any(self._totals):
            self._totals = self._answers("total")
        drawn = self._answers("draw", *zip(self._shares(batch_size), strict=True))
        self._totals = [total for *_, total in drawn]
        columns, probabilities = list[Mapping[str, np.ndarray]](), list[Floats]()
        for number, (own, share, _) in enumerate(drawn):
            if len(share):
                columns.append({**own, "place": own["place"] + (number << PLACE_BITS)})
                probabilities.append(share * (len(share) / batch_size))
        weight = importance_weights(np.concatenate(probabilities), self.beta).astype(np.float32)
        joined = {name: np.concatenate([own[name] for own in columns]) for name in columns[0]}
        joined["weight"] = weight
        return Batch.of({name: torch.from_numpy(each).to(self._device) for name, each in joined.items()})

    def _shares(self, batch_size: int) -> Sequence[int]:
        """B_s, ``[S]``: how many of B points, one in each of B equal segments, fall on the sum of a shard."""
        ends: Floats = np.cumsum(self._totals)
        if not ends[-1] > 0:
            raise IndexError(NOTHING_STORED)
        uniform_B = torch.rand(batch_size, dtype=torch.float64, generator=self._generator).numpy()
        shard_B = np.searchsorted(ends, stratified(uniform_B, ends[-1]), side="right")
        last = int(np.flatnonzero(self._totals)[-1])  # a point may be rounded up to the end
        shares: list[int] = np.bincount(np.minimum(shard_B, last), minlength=self.shards).tolist()
        return shares

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        """Set priorities at places ``[B]`` from TD errors δ of every network, ``[n, B]``.

        Raises:
            NumericsError: a TD error is NaN or infinite, or too large.
        """
        place_B, td_error = index.numpy(force=True), priority.numpy(force=True).reshape(-1, len(index))
        p_B = self._priority_of(td_error.astype(np.float64))
        require_finite(p_B, self._omega)  # here, as a shard may be far away
        shard_B, place_B = place_B >> PLACE_BITS, place_B & ((1 << PLACE_BITS) - 1)
        for number in np.unique(shard_B).tolist():
            own_B = shard_B == number
            self._host.call(number, "update_priority", place_B[own_B], td_error[:, own_B])

    def _answers(self, method: str, *arguments: Sequence[Any]) -> list[Any]:
        """The answers of all shards, which work in parallel; ``arguments`` has one tuple for each shard."""
        each = arguments or [()] * self.shards
        tickets = [self._host.call(number, method, *given) for number, given in enumerate(each)]
        return [self._host.answer(ticket) for ticket in tickets]

    # --- state ------------------------------------------------------------------------------------------

    def lazy_state_dict(self) -> dict[str, Any]:
        """Like :meth:`state_dict`, but rows are :class:`~sqn_rl.types.Rows`; None for a lost shard."""
        return {
            "totals": [*self._totals],
            "tables": [*self._tables],
            "beta": self.beta,
            "generator": self._generator.get_state(),
            "shards": [self._state_of(number) for number in range(self.shards)],
        }

    def _state_of(self, number: int) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = self._host.answer(self._host.call(number, "state"))
        except ReplayError:
            return None
        begin, end, step = state["_storage"]["rows"]
        read = partial(self._read, number)
        state["_storage"]["rows"] = Rows(begin, end, step, read, self._tables[number])
        return state

    def _read(self, number: int, begin: int, end: int) -> Mapping[str, Tensor]:
        columns: Mapping[str, Tensor] = self._host.answer(self._host.call(number, "read", begin, end))
        return columns

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as tensors and plain values."""
        state = self.lazy_state_dict()
        for shard in filter(None, state["shards"]):
            shard["_storage"]["rows"] = [*shard["_storage"]["rows"]]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state; a shard that was lost begins empty.

        Raises:
            ValueError: it is the state of another kind of replay.
        """
        if len(state["shards"]) != self.shards:
            raise ValueError(
                f"shards was {len(state['shards'])} in the replay saved; here it is {self.shards}"
            )
        self._totals, self._tables, self.beta = [*state["totals"]], [*state["tables"]], state["beta"]
        self._generator.set_state(state["generator"])
        for number, shard in enumerate(state["shards"]):
            if shard is None:
                self._emptied.append(number)
                self._tables[number] += self.shards  # as files with its lost rows may still be there
                self._totals[number] = 0.0
                continue
            for piece in shard["_storage"]["rows"]:
                self._host.answer(self._host.call(number, "take", piece))
            rest = {name: value for name, value in shard["_storage"].items() if name != "rows"}
            self._host.answer(self._host.call(number, "load", {**shard, "_storage": rest}))
