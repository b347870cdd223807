"""Prioritized replay: transitions with a large TD error are sampled more often  (Schaul et al. 2016).

The paper is arXiv 1511.05952.

Legend: B sampled transitions, N networks; δ is a TD error and p a priority, both in the unit of the learned
values: reward units, or those of h with rescaled values.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrl.data.replay_buffers import Storage

from sqn_rl.errors import NumericsError, require, require_one_of
from sqn_rl.parts.arguments import Count, NotNegative, Positive, Probability, typed
from sqn_rl.parts.replay.base import RingReplay
from sqn_rl.parts.replay.open_draws import OpenDraws
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.storage import NOTHING_STORED, Returns, RingSampler
from sqn_rl.parts.replay.sum_tree import Floats, Indices, SumTree
from sqn_rl.parts.schedule import linear

ERROR_REDUCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda error_NB: error_NB.sum(0) / len(error_NB),
    "max": lambda error_NB: error_NB.max(0),
}
"""How the networks' absolute TD errors are reduced to one."""


def priority_of(td_error_NB: Floats, epsilon: float, reduction: str) -> Floats:
    """The priority p = |δ| + ε, |δ| reduced over the networks  (section 3.3). ``[N, B]`` → ``[B]``."""
    return ERROR_REDUCTIONS[reduction](np.abs(td_error_NB)) + epsilon


def largest_priority(omega: float) -> float:
    """The largest p for which p^ω, and 10¹² of these, are finite."""
    return math.exp(680 / max(1.0, omega))


def require_finite(p_B: Floats, omega: float) -> None:
    """Refuse priorities that are not finite, or whose power p^ω, or 10¹² of these, would not be. ``[B]``.

    Raises:
        NumericsError: there is one.
    """
    if not np.maximum.reduce(p_B, initial=0.0) <= largest_priority(omega):
        raise NumericsError("replay: a TD error is NaN or infinite, or its priority is too large")


def importance_weights(value_B: Floats, beta: float) -> Floats:
    """w_i = (N P(i))^−β / max_j w_j, P(i) = p_i^ω / Σ_k p_k^ω  (section 3.4); N and the sum cancel.

    Args:
        value_B: p^ω of the sampled transitions.
        beta: β, in [0, 1]; 1 corrects fully for non-uniform sampling.

    Returns:
        ``[B]``, in [0, 1].
    """
    return (value_B / value_B.min()) ** -beta


def stratified(uniform_B: Floats, total: float) -> Floats:
    """One point in each of B equal segments of [0, total)  (section 3.3). ``[B]`` in [0, 1) → ``[B]``."""
    return (np.arange(len(uniform_B)) + uniform_B) * (total / len(uniform_B))


def require_priorities(omega: float, epsilon: float, td_error: str) -> None:
    """Refuse settings of priorities that are out of range or unknown.

    Raises:
        SettingError: one is.
    """
    limit = largest_priority(omega)
    require(epsilon <= limit, "epsilon", epsilon, f"at most {limit:g} with omega = {omega}")
    require(epsilon**omega > 0, "omega", omega, f"an exponent for which {epsilon}^omega is above 0")
    require_one_of(ERROR_REDUCTIONS, "td_error", td_error)


class WeightedReplay(RingReplay):
    """A replay with importance weights, whose β rises linearly to 1 over the budget; abstract."""

    _beta: float
    """β at the beginning."""
    _steps: int
    """The budget, environment steps."""

    def anneal(self, env_steps: int) -> None:
        """Set β for this number of environment steps."""
        self.sampler.beta = linear(self._beta, 1.0, env_steps / self._steps)

    def metrics(self) -> dict[str, float]:
        """β, for logs."""
        return {"beta": self.sampler.beta}


class PrioritizedReplay(WeightedReplay):
    """The newest ``capacity`` transitions, sampled in proportion to p^ω, with importance weights.

    Proportional prioritization, p = |δ| + ε; the paper has one network, so how the |δ| of twins are reduced
    is ours. A new transition gets the highest p so far, at first 1. Sampling is stratified: one transition
    from each of B equal segments of the sum, so a batch is ordered by place.

    Args:
        capacity: transitions, over all environments.
        omega: ω, the exponent of priorities, at least 0 (the paper's α); 0 is uniform sampling.
        beta: β at the beginning, in [0, 1]; it rises linearly to 1 over the budget.
        epsilon: ε, the priority of a transition without error, in the unit of δ, > 0.
        td_error: how the twins' absolute errors are reduced: ``mean`` or ``max``.
        steps: the budget, environment steps.
        num_envs: N, the environments that step together.
        observation_shape: S, of one observation.
        observation_dtype: how observations are stored.
        frame_stack: k; above 1 an observation is k frames, each of which is stored once.
        returns: computes a batch from the sampled places.
        seed: seed of the replay's own generator.
        device: device of the transitions; priorities are on the CPU.
        lanes: groups of environments, one for each actor, that step together; each has its own rows.

    Raises:
        SettingError: a value is out of range or unknown, or the capacity is not a whole number with room for
            one step of every environment.
    """

    @typed
    def __init__(
        self,
        *,
        capacity: Count,
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
        lanes: Count = 1,
    ) -> None:
        require_priorities(omega, epsilon, td_error)
        ring = Ring(
            capacity=capacity,
            num_envs=num_envs,
            observation_shape=observation_shape,
            observation_dtype=observation_dtype,
            frame_stack=frame_stack,
            device=device,
            lanes=lanes,
        )
        self._beta, self._steps = beta, steps
        super().__init__(
            capacity=capacity,
            ring=ring,
            returns=returns,
            sampler=ProportionalSampler(ring.places, omega, beta, epsilon, td_error),
            generator=torch.Generator().manual_seed(seed),
        )


class ProportionalSampler(RingSampler):
    """Samples places in proportion to p^ω, stored for every place; 0 where there is no transition.

    A TD error that arrives after its transition was overwritten is ignored.
    """

    place_bytes, prioritized = 8 + OpenDraws.place_bytes, True

    def __init__(self, places: int, omega: float, beta: float, epsilon: float, reduction: str) -> None:
        self.omega, self.beta, self.epsilon, self.reduction = omega, beta, epsilon, reduction
        self.tree, self.max_priority, self.draws = SumTree(places), 1.0, OpenDraws(places)

    def on_append(self, ring: Ring, priority: Tensor | None = None) -> None:
        """Give the newest row its priorities, by default the highest so far."""
        self.retire(ring)
        if priority is None:
            self.tree.fill(ring.newest_row, self.max_priority**self.omega)
            return
        place = np.arange(ring.newest_row.start, ring.newest_row.stop)
        self._set(place, self._priorities(priority, place))

    def on_extend(self, place: Tensor, td_error: Tensor) -> None:
        """Set the priorities of new transitions; those of draws before them are still to come."""
        index = place.numpy(force=True)
        p, stored = self._priorities(td_error, index), self.tree.value[index] > 0
        self._set(index[stored], p[stored])

    def retire(self, ring: Ring) -> None:
        """The transitions that the newest row has removed are not sampled any more."""
        if ring.retired_row.stop:
            self.tree.fill(ring.retired_row, 0.0)
            self.draws.overwrite(ring.retired_row)

    def draw(self, ring: Ring, batch_size: int) -> tuple[Tensor, Tensor]:
        """Sample places, ``[B]``, one of each of B equal segments, and their importance weights, ``[B]``."""
        if not len(ring):
            raise IndexError(NOTHING_STORED)
        uniform_B = torch.rand(batch_size, dtype=torch.float64, generator=self.generator).numpy()
        place = self.tree.find(stratified(uniform_B, self.tree.total))
        weight = importance_weights(self.tree.value[place], self.beta).astype(np.float32)
        drawn = (torch.from_numpy(place), torch.from_numpy(weight))
        place_B, weight_B = (each.to(ring.action.device, non_blocking=True) for each in drawn)
        self.draws.add(place_B, place)
        return place_B, weight_B

    def update_priority(self, index: Tensor, priority: Tensor, *, storage: Storage | None = None) -> None:
        """Set priorities from TD errors, but not of places overwritten since they were drawn."""
        index = torch.as_tensor(index)
        draw = self.draws.find(index)
        place = draw.place if draw else index.numpy(force=True).reshape(-1)
        p = self._priorities(priority, place)
        valid = self.draws.close(draw, place)
        if valid is not None:
            valid &= self.tree.value[place] > 0  # a place without a transition has 0
            place, p = place[valid], p[valid]
        self._set(place, p)

    def _set(self, place: Indices, p: Floats) -> None:
        """Set the priorities of these places, ``[B]``; of a place that is named twice, the last."""
        highest = float(np.maximum.reduce(p, initial=0.0))
        self.max_priority = max(self.max_priority, highest)
        self.tree.update(place, p**self.omega)

    def _priorities(self, td_error: Tensor, place: Indices) -> Floats:
        """The priorities of these places, ``[B]``.

        Raises:
            NumericsError: a TD error is NaN or infinite, or too large.
        """
        p = priority_of(_per_place(td_error, place), self.epsilon, self.reduction)
        require_finite(p, self.omega)
        return p

    def state_dict(self) -> dict[str, Any]:
        """All priorities, and the draws that wait for theirs."""
        value, draws = torch.tensor(self.tree.value), self.draws.state_dict()
        return {"value": value, "draws": draws, "highest": self.max_priority, "beta": self.beta}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state."""
        self.tree.update(np.arange(self.tree.capacity), state_dict["value"].numpy())
        if "draws" in state_dict:  # not in checkpoints of before, at which no draw was open
            self.draws.load_state_dict(state_dict["draws"])
        self.max_priority, self.beta = state_dict["highest"], state_dict["beta"]


def _per_place(priority: Tensor, place: Indices) -> Floats:
    """TD errors as float64 ``[N, B]``, from ``[N, B]``, ``[B]``, or ``[B, 1]`` as TorchRL's losses write."""
    error = torch.as_tensor(priority).numpy(force=True)
    if error.size != len(place) and error.shape[-1:] != place.shape:
        raise ValueError(
            f"priorities of shape {[*error.shape]} for {len(place)} places: expected [N, B] or [B]"
        )
    return error.reshape(-1, len(place)).astype(np.float64)
