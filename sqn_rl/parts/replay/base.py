"""The base of all replays: a ring buffer and a sampler, with the interface of a TorchRL replay buffer.

Legend: N environments, T steps of each, B transitions; *place* is a transition's index in the ring; ``*S`` is
the shape of an observation.
"""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data.replay_buffers import TensorDictReplayBuffer

from sqn_rl.parts.replay.ring import ROW_BYTES, Ring
from sqn_rl.parts.replay.storage import Returns, RingSampler, RingStorage, RingWriter, refuse
from sqn_rl.types import Batch, Chunk, Step


class RingReplay(TensorDictReplayBuffer):
    """A replay over a ring; abstract: the sampler of a subclass decides how transitions are sampled.

    Our loop calls ``store`` and ``draw``, on plain tensors. The rest is a TorchRL replay buffer: ``extend``
    takes a collector's output, ``sample`` returns a loss's input. Both interfaces may be mixed.

    Args:
        capacity: transitions, over all environments.
        ring: stores the transitions.
        returns: computes a batch from the sampled places.
        sampler: samples places.
        generator: the sampler's random generator.
    """

    def __init__(
        self,
        *,
        capacity: int,
        ring: Ring,
        returns: Returns,
        sampler: RingSampler,
        generator: torch.Generator,
    ) -> None:
        super().__init__(
            storage=RingStorage(capacity, ring, returns),
            sampler=sampler,
            writer=RingWriter(ring, sampler),
            generator=generator,
            collate_fn=_identity,
        )
        self.capacity, self.ring, self.returns = capacity, ring, returns

    @property
    def transition_bytes(self) -> tuple[int, int]:
        """Bytes of a transition: in memory, beyond those of the empty replay, and in a checkpoint."""
        own = self.ring.frame_bytes + self.ring.optional_bytes
        return own + self.sampler.place_bytes, own + ROW_BYTES

    @property
    def lanes(self) -> int:
        """The groups of environments that step together."""
        return self.ring.lanes

    @property
    def prioritized(self) -> bool:
        """Whether initial priorities make a difference."""
        return self.sampler.prioritized

    def cut(self, *, lane: int | None = None) -> None:
        """Mark a discontinuity: the next step stored, of a lane or of all, does not continue the last one."""
        environments = self.ring.environments(lane) if lane is not None else slice(None)
        self.ring.cut(torch.arange(self.ring.num_envs)[environments])

    def store(
        self,
        observation: Tensor,
        action: Tensor,
        step: Step,
        *,
        lane: int = 0,
        priority: Tensor | None = None,
    ) -> None:
        """Store one step of every environment of a lane: ``[E, *S]``, ``[E]``, and its result (line 6).

        ``priority`` is the initial TD error of every network, ``[n, E]``; None: the highest priority so far.
        """
        self.writer.write(observation, action, step, lane, priority)

    def store_chunk(self, chunk: Chunk, *, lane: int) -> None:
        """Store the rows of a chunk in its actor's lane."""
        if chunk.begins:
            self.cut(lane=lane)
        priority = None if chunk.priority is None else torch.tensor(chunk.priority)
        for row, (observation, action, step) in enumerate(chunk.steps(stacked=self.ring.frame_stack > 1)):
            of_row = None if priority is None else priority[:, row]
            self.store(observation, action, step, lane=lane, priority=of_row)

    def draw(self, batch_size: int) -> Batch:
        """Sample ``batch_size`` transitions (line 9); fewer may be stored, but at least one must be.

        Raises:
            IndexError: nothing is stored.
        """
        place, weight = self.sampler.draw(self.ring, batch_size)
        batch = self.returns.gather(self.ring, place)
        return batch if weight is None else batch._replace(weight=weight)

    @property
    def independent(self) -> bool:
        """Whether batches do not depend on updates since the last batch, so that several can be drawn."""
        return self.sampler.independent and self.returns.independent

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        """Set priorities at places ``[B]`` from TD errors δ: of every network, ``[*, B]``, or ``[B]``."""
        self.sampler.update_priority(index, priority)

    def lazy_state_dict(self) -> dict[str, Any]:
        """Like :meth:`state_dict`, but the ring's rows are :class:`~sqn_rl.types.Rows`, which read lazily."""
        return super().state_dict()

    # --- TorchRL's side ------------------------------------------------------------------------------------

    def extend(self, tensordicts: TensorDictBase, *, update_priority: bool | None = None) -> Tensor:
        """Store T steps of N environments, ``[N, T]``, or one of each, ``[N]``; for N = 1 also ``[T]``.

        Keys read: ``observation`` and ``action``; under ``next`` ``observation``, ``reward``, ``terminated``
        and ``truncated``, or else ``done``. Other keys are ignored. Where an observation is not the last next
        observation of its environment, that was reset, or stepped elsewhere: no return crosses that point.
        Priorities are set from ``td_error``, if present, unless ``update_priority`` is False.

        Returns:
            The places, in the same shape.

        Raises:
            KeyError: a key is missing.
            ValueError: a shape or dtype differs from the ring's, or a frame stack begins in mid-episode.
        """
        index = super().extend(tensordicts, update_priority=False)
        td_error = tensordicts.get(self.priority_key, None)
        if update_priority is not False and td_error is not None:
            self.sampler.on_extend(*_flat(index, td_error))
        return index

    def add(self, data: TensorDictBase) -> Tensor:
        """Store one step of every environment, ``[N]``: see :meth:`extend`."""
        return self.extend(data)

    def update_tensordict_priority(self, data: TensorDictBase) -> None:
        """Like :meth:`update_priority`, for a sample into which a loss has written ``td_error``.

        Its shape is ``[*]``, or ``[*, N]`` with every network's error in the last dimension.
        """
        self.update_priority(*_flat(data["index"], data[self.priority_key]))

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as tensors and plain values; the ring's rows are copied."""
        state = self.lazy_state_dict()
        state["_storage"]["rows"] = [*state["_storage"]["rows"]]
        return state

    __setitem__ = set_ = set_at_ = update_ = write_all = empty = query = dumps = loads = refuse


def _flat(index: Tensor, td_error: Tensor) -> tuple[Tensor, Tensor]:
    """Places and every network's TD error: ``[*]``, ``[*]`` or ``[*, n]`` → ``[B]``, ``[n, B]``."""
    return index.reshape(-1), td_error.reshape(index.numel(), -1).T


def _identity(batch: TensorDict) -> TensorDict:
    return batch
