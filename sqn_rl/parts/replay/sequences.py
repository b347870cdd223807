"""Replay of sequences, for recurrent networks  (R2D2, Kapturowski et al. 2019).

Legend: N environments; Q sequences of T observations, of which the first K = burn_in + length can be learned
from or burnt in; B transitions, the steps of all sequences that are learned from; n networks.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchrl.data.replay_buffers import Storage

from sqn_rl import functional as F
from sqn_rl.errors import WiringError, require
from sqn_rl.parts.arguments import Count, NotNegative, NotNegativeInt, Positive, Probability, typed
from sqn_rl.parts.memory import Memory, state_size
from sqn_rl.parts.replay.prioritized import (
    ERROR_REDUCTIONS,
    ProportionalSampler,
    WeightedReplay,
    require_priorities,
)
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.sequence_starts import SequenceStarts
from sqn_rl.parts.replay.storage import Returns, refuse
from sqn_rl.parts.replay.sum_tree import Floats, Indices
from sqn_rl.protocols import PathReturns, QNetwork, SoftReturns
from sqn_rl.types import Batch, Sequences


def sequence_error(error_B: Floats, sequence_B: Indices, eta: float) -> Floats:
    """η max_t |δ_t| + (1 − η) mean_t |δ_t| of each sequence  (section 2.3). ``[B]``, ``[B]`` → ``[Q]``.

    Args:
        error_B: |δ| of every transition.
        sequence_B: the number of its sequence, from 0 to Q − 1; each has at least one.
        eta: η, in [0, 1].
    """
    highest_Q = np.zeros(sequence_B.max() + 1)
    np.maximum.at(highest_Q, sequence_B, error_B)
    mean_Q = np.bincount(sequence_B, error_B) / np.bincount(sequence_B)
    return eta * highest_Q + (1 - eta) * mean_Q


class SequenceReplay(WeightedReplay):
    """Sequences of the newest ``capacity`` transitions, sampled in proportion to p^ω.

    A sequence begins at the first step of an episode or at every ``stride``-th after it, with the
    memory that the actor had there. Its first ``burn_in`` steps only serve to compute the networks' state
    anew; the next ``length`` steps are learned from. At an episode's first step the state is known to be
    empty, so there all ``burn_in + length`` steps are learned from. A sequence ends with the episode, with
    a cut, or with the newest step; one is drawn as soon as it has a step to learn from. The returns of its
    last steps reach beyond it.

    p = η max |δ| + (1 − η) mean |δ| + ε over a sequence's steps; a new one gets the highest p so far.

    Args:
        capacity: transitions, over all environments.
        length: steps of a sequence that are learned from.
        burn_in: steps before them.
        stride: steps from the beginning of one sequence to that of the next; at most ``length``, or steps
            would be left out.
        eta: η, in [0, 1].
        omega: ω, as for :class:`~sqn_rl.PrioritizedReplay`.
        beta: β, as for :class:`~sqn_rl.PrioritizedReplay`.
        epsilon: ε, as for the same class.
        td_error: how the networks' absolute errors are reduced, as for the same class.
        steps: the budget, environment steps.
        q_net: the networks, whose state is stored.
        num_envs: N, the environments that step together.
        observation_shape: S, of one observation.
        observation_dtype: how observations are stored.
        frame_stack: k; above 1 an observation is k frames, each of which is stored once.
        returns: the rewards and discounts of transitions.
        seed: seed of the replay's own generator.
        device: device of the transitions; priorities are on the CPU.
        lanes: groups of environments, one for each actor, that step together; each has its own rows.

    Raises:
        SettingError: a value is out of range, or the capacity has no room for a sequence of each environment.
        WiringError: the networks are not recurrent, or the returns need single observations.
    """

    gives_sequences = True
    """Its batches have sequences."""

    @typed
    def __init__(
        self,
        *,
        capacity: Count,
        length: Count,
        burn_in: NotNegativeInt,
        stride: Count,
        eta: Probability,
        omega: NotNegative,
        beta: Probability,
        epsilon: Positive,
        td_error: str,
        steps: Count,
        q_net: QNetwork,
        num_envs: Count,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        frame_stack: Count,
        returns: Returns,
        seed: int,
        device: torch.device | str,
        lanes: Count = 1,
    ) -> None:
        require(stride <= length, "stride", stride, f"at most the length, {length}")
        least = (burn_in + length + stride) * num_envs
        expected = f"at least {least:,}: burn_in + length + stride = {least // num_envs} steps of each"
        require(capacity >= least, "capacity", capacity, f"{expected} of {num_envs} environments")
        require_priorities(omega, epsilon, td_error)
        _require_wiring(q_net, returns)
        ring = Ring(
            capacity=capacity,
            num_envs=num_envs,
            observation_shape=observation_shape,
            observation_dtype=observation_dtype,
            frame_stack=frame_stack,
            device=device,
            lanes=lanes,
        )
        self.starts = ring.starts = SequenceStarts(
            num_envs=num_envs,
            rows=ring.places // num_envs,
            stride=stride,
            burn_in=burn_in,
            state_size=state_size(q_net),
            device=device,
        )
        self._max_steps, self._beta, self._steps = burn_in + length, beta, steps
        super().__init__(
            capacity=capacity,
            ring=ring,
            returns=returns,
            sampler=_SequenceSampler(ring.places, omega, beta, epsilon, td_error, eta),
            generator=torch.Generator().manual_seed(seed),
        )

    @property
    def transition_bytes(self) -> tuple[int, int]:
        """Bytes of a transition: in memory, beyond those of the empty replay, and in a checkpoint."""
        in_memory, on_disk = super().transition_bytes
        return in_memory + self.starts.place_bytes, on_disk + self.starts.place_bytes

    def draw(self, batch_size: int) -> Batch:
        """Sample ``batch_size`` sequences, and all of their transitions that are learned from.

        Raises:
            IndexError: nothing is stored.
        """
        place_Q, weight_Q = self.sampler.draw(self.ring, batch_size)
        memory_QM, burn_in_Q = self.starts.at(place_Q, self.ring.row_number(place_Q))
        sequence_B, t_B, place_B = self._learned_steps(place_Q, burn_in_Q)
        steps_B = self.returns.steps(self.ring, place_B)
        T = int((t_B + steps_B).max()) + 1
        index_B = sequence_B * T + t_B
        return self.returns.gather(self.ring, place_B)._replace(
            observation=index_B,  # of an observation in the sequences: see Batch
            next_observation=index_B + steps_B,
            place=place_Q[sequence_B],
            weight=None if weight_Q is None else weight_Q[sequence_B],
            sequences=self._sequences(place_Q, Memory.unpacked(memory_QM), burn_in_Q, T),
        )

    def _learned_steps(self, place_Q: Tensor, burn_in_Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The steps that are learned from: each one's sequence, its step t there, and its place, ``[B]``."""
        place_QK = self.ring.next_places(place_Q, self._max_steps)
        t_K = torch.arange(self._max_steps, device=place_Q.device)
        learned_QK = (t_K >= burn_in_Q.unsqueeze(-1)) & (t_K < self._episode_steps(place_QK))
        sequence_B, t_B = learned_QK.nonzero(as_tuple=True)
        return sequence_B, t_B, place_QK[learned_QK]

    def _episode_steps(self, place_QK: Tensor) -> Tensor:
        """How many steps, from the first on, belong to the same episode, ``[Q, K]`` → ``[Q, 1]``."""
        return F.steps_to_last(self.ring.is_last(place_QK)).unsqueeze(-1)

    def _sequences(self, place_Q: Tensor, memory: Memory, burn_in_Q: Tensor, T: int) -> Sequences:
        """T observations from each place on, with the action and reward before each."""
        ring = self.ring
        place_QT = ring.next_places(place_Q, T - 1)
        t_T = torch.arange(T - 1, device=place_Q.device)
        last_QT = torch.minimum(t_T, self._episode_steps(place_QT) - 1)
        place_QT = place_QT.gather(-1, last_QT)  # steps after the end are not read
        following = ring.observe_next(place_QT.flatten()).unflatten(0, place_QT.shape)
        return Sequences(
            observation=torch.cat([ring.observe(place_Q).unsqueeze(1), following], 1),
            action=torch.cat([memory.action.unsqueeze(-1), ring.action.take(place_QT)], -1),
            reward=torch.cat([memory.reward.unsqueeze(-1), ring.reward.take(place_QT)], -1),
            state=memory.state,
            burn_in=burn_in_Q,
        )

    extend = add = sample = update_tensordict_priority = refuse


class _SequenceSampler(ProportionalSampler):
    """Samples the places at which sequences begin; all others have priority 0."""

    prioritized = False  # initial priorities of single transitions do not apply to sequences

    def __init__(
        self, places: int, omega: float, beta: float, epsilon: float, reduction: str, eta: float
    ) -> None:
        super().__init__(places, omega, beta, epsilon, reduction)
        self._eta = eta

    def on_append(self, ring: Ring, priority: Tensor | None = None) -> None:
        self.retire(ring)
        assert ring.starts is not None
        place = ring.starts.eligible.numpy(force=True)
        self.tree.update(place, np.full(len(place), self.max_priority**self.omega))

    def update_priority(self, index: Tensor, priority: Tensor, *, storage: Storage | None = None) -> None:
        """Set priorities from δ of transitions, ``[n, B]``, each at the place where its sequence begins."""
        place, sequence_B = np.unique(index.numpy(force=True), return_inverse=True)
        error_nB = np.abs(priority.numpy(force=True).astype(np.float64)).reshape(-1, len(sequence_B))
        error_Q = sequence_error(ERROR_REDUCTIONS[self.reduction](error_nB), sequence_B, self._eta)
        super().update_priority(torch.from_numpy(place), torch.from_numpy(error_Q))


def _require_wiring(q_net: QNetwork, returns: Returns) -> None:
    """Refuse networks that are not recurrent, and returns that need single observations."""
    if not state_size(q_net):
        problem = f"replay: SequenceReplay is for recurrent networks; {type(q_net).__name__} is not one"
        raise WiringError("replay", f"{problem}; choose q_net=lstm, or replay=prioritized", "q_net")
    gives_paths = isinstance(returns, PathReturns) and returns.gives_paths
    if isinstance(returns, SoftReturns) and returns.soft:
        name, hint = f"soft {type(returns).__name__}", "set returns.soft=false, or choose returns=one_step"
    elif gives_paths:
        name, hint = type(returns).__name__, "choose returns=one_step or n_step"
    else:
        return
    problem = f"replay: SequenceReplay gives sequences, and {name} needs observations one by one"
    raise WiringError("replay", f"{problem}; {hint}", "returns")
