"""What all replays are: a ring, a sampler over it, and from outside a TorchRL replay buffer.

Legend: N environments, T steps of each, B transitions; *place* is where a transition lies in the ring; ``*S``
is the shape of an observation.
"""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data.replay_buffers import TensorDictReplayBuffer

from sqn_rl.parts.replay.ring import ROW_BYTES, Ring
from sqn_rl.parts.replay.storage import Returns, RingSampler, RingStorage, RingWriter, refuse
from sqn_rl.types import Batch, Step


class RingReplay(TensorDictReplayBuffer):
    """A replay over a ring; abstract: a kind of replay says by its sampler how places are drawn.

    Our loop calls ``store`` and ``draw``, on plain tensors. The rest is a TorchRL replay buffer: ``extend``
    takes what a collector gives, ``sample`` gives what a loss takes. Both sides may be mixed.

    Args:
        capacity: transitions, over all environments.
        ring: where they lie.
        returns: makes a batch of the places drawn.
        sampler: draws the places.
        generator: what it draws with.
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
            collate_fn=_as_it_is,
        )
        self.capacity, self.ring, self.returns = capacity, ring, returns
        self.transition_bytes = ring.frame_bytes + sampler.place_bytes, ring.frame_bytes + ROW_BYTES
        """What a transition takes: in memory beyond what the empty replay has, and in a checkpoint."""

    def cut(self) -> None:
        """Experience starts anew: what comes next does not follow from what came last."""
        self.ring.cut()

    def store(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """Store one step of every environment: ``[N, *S]``, ``[N]``, and their answer (line 6)."""
        self._writer.write(observation, action, step)

    def draw(self, batch_size: int) -> Batch:
        """Draw ``batch_size`` transitions (line 9); fewer may be stored, but not none.

        Raises:
            IndexError: nothing is stored.
        """
        place, weight = self._sampler.draw(self.ring, batch_size)
        batch = self.returns.gather(self.ring, place)
        return batch if weight is None else batch._replace(weight=weight)

    @property
    def independent(self) -> bool:
        """Whether what is drawn does not depend on what was learned since the last was drawn."""
        return self._sampler.independent and self.returns.independent

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        """Be told the TD errors δ at these places, ``[B]``: of every network, ``[*, B]``, or just ``[B]``."""
        self._sampler.update_priority(index, priority)

    def state_unread(self) -> dict[str, Any]:
        """As :meth:`state_dict`, but the rows of the ring are :class:`~sqn_rl.types.Rows`, not read yet."""
        return super().state_dict()

    # --- TorchRL's side ------------------------------------------------------------------------------------

    def extend(self, tensordicts: TensorDictBase, *, update_priority: bool | None = None) -> Tensor:
        """Store steps of all environments, ``[N, T]``, or one of each, ``[N]``; of a single one also ``[T]``.

        Keys read: ``observation`` and ``action``; under ``next`` ``observation``, ``reward``, ``terminated``
        and ``truncated``, or else ``done``. Others are not kept. Where an observation is not what its
        environment's last step led to, that was reset, or stepped elsewhere: no return reaches across.
        Priorities are taken from ``td_error``, if it is there and ``update_priority`` is not False.

        Returns:
            The places, in the same shape.

        Raises:
            KeyError: a key is missing.
            ValueError: a shape or dtype is not that of the ring, or a stack of frames begins in mid-episode.
        """
        index = super().extend(tensordicts, update_priority=False)
        td_error = tensordicts.get(self.priority_key, None)
        if update_priority is not False and td_error is not None:
            self._update_priority_from(index, td_error)
        return index

    def add(self, data: TensorDictBase) -> Tensor:
        """Store one step of every environment, ``[N]``: see :meth:`extend`."""
        return self.extend(data)

    def update_tensordict_priority(self, data: TensorDictBase) -> None:
        """As :meth:`update_priority`, of a sample into which a loss has written ``td_error``.

        ``[*]``, or with the error of every network in the last dimension, ``[*, N]``.
        """
        self._update_priority_from(data["index"], data[self.priority_key])

    def _update_priority_from(self, index: Tensor, td_error: Tensor) -> None:
        self.update_priority(index.reshape(-1), td_error.reshape(index.numel(), -1).T)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as tensors and plain values; a copy of the ring."""
        state = self.state_unread()
        state["_storage"]["rows"] = [*state["_storage"]["rows"]]
        return state

    __setitem__ = set_ = set_at_ = update_ = write_all = empty = query = dumps = loads = refuse


def _as_it_is(batch: TensorDict) -> TensorDict:
    return batch
