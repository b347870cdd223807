"""Prioritized replay: what surprised is drawn more often  (Schaul et al. 2016, arXiv 1511.05952).

Legend: B transitions drawn, N networks; δ is a TD error and p a priority, both in reward units.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrl.data.replay_buffers import Storage

from sqn_rl.errors import NumericsError, require, require_one_of
from sqn_rl.parts.replay.base import RingReplay
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.storage import Returns, RingSampler
from sqn_rl.parts.replay.sum_tree import Floats, Indices, SumTree

JOINS: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda error_NB: error_NB.sum(0) / len(error_NB),
    "max": lambda error_NB: error_NB.max(0),
}
"""How the networks' absolute errors are made one."""

DRAWN, OVERTAKEN = 1, 2
"""A place's transition was drawn; it was, and another has taken its place, which the answer is not for."""


def priority_of(td_error_NB: Floats, epsilon: float, join: str) -> Floats:
    """The priority p = |δ| + ε, |δ| joined over the networks  (section 3.3). ``[N, B]`` → ``[B]``."""
    return JOINS[join](np.abs(td_error_NB)) + epsilon


def importance_weights(value_B: Floats, beta: float) -> Floats:
    """w_i = (N P(i))^−β / max_j w_j, P(i) = p_i^ω / Σ_k p_k^ω  (section 3.4); N and the sum cancel.

    Args:
        value_B: p^ω of what was drawn.
        beta: β, in [0, 1]; 1 corrects fully for drawing unevenly.

    Returns:
        ``[B]``, in (0, 1].
    """
    return (value_B / value_B.min()) ** -beta


def stratified(uniform_B: Floats, total: float) -> Floats:
    """One mass in each of B equal segments of [0, total)  (section 3.3). ``[B]`` in [0, 1) → ``[B]``."""
    return (np.arange(len(uniform_B)) + uniform_B) * (total / len(uniform_B))


class PrioritizedReplay(RingReplay):
    """The newest ``capacity`` transitions, drawn in proportion to p^ω, with weights that correct for it.

    Proportional prioritization, p = |δ| + ε; how to join the |δ| of twins the source does not say. A new
    transition has the highest p ever seen, at first 1. One transition is drawn from each of B equal shares of
    the sum, so that a batch is in the order of its places.

    Args:
        capacity: transitions, over all environments.
        omega: ω, how much priorities count, at least 0 (the source's α); 0 is uniform.
        beta: β at the beginning, in [0, 1]; it rises linearly to 1 over the budget.
        epsilon: ε, what p is without any error, reward units, > 0.
        td_error: how the twins' absolute errors are joined: ``mean`` or ``max``.
        steps: the budget, environment steps.
        num_envs: N, the environments that step together.
        observation_shape: S, of one observation.
        observation_dtype: how observations are stored.
        frame_stack: k; above 1 an observation is k frames, each of which is stored once.
        returns: makes a batch of the places drawn.
        seed: of the replay's own generator.
        device: where the transitions lie; priorities are on the CPU.

    Raises:
        SettingError: a value is out of range or unknown, or the capacity is not a whole number with room for
            one step of every environment.
    """

    def __init__(
        self,
        *,
        capacity: int,
        omega: float,
        beta: float,
        epsilon: float,
        td_error: str,
        steps: int,
        num_envs: int,
        observation_shape: Sequence[int],
        observation_dtype: torch.dtype,
        frame_stack: int,
        returns: Returns,
        seed: int,
        device: torch.device | str,
    ) -> None:
        require(isinstance(capacity, int), "capacity", capacity, "a whole number of transitions")
        require(0 <= beta <= 1, "beta", beta, "a number in [0, 1]")
        require(0 < epsilon < np.inf, "epsilon", epsilon, "a positive number")
        require(0 <= omega < np.inf, "omega", omega, "a number, at least 0")
        require(epsilon**omega > 0, "omega", omega, f"an exponent for which {epsilon}^omega is above 0")
        require_one_of(JOINS, "td_error", td_error)
        ring = Ring(
            capacity=capacity,
            num_envs=num_envs,
            observation_shape=observation_shape,
            observation_dtype=observation_dtype,
            frame_stack=frame_stack,
            device=device,
        )
        self._beta, self._steps = beta, steps
        super().__init__(
            capacity=capacity,
            ring=ring,
            returns=returns,
            sampler=_Proportional(ring.places, omega, beta, epsilon, td_error),
            generator=torch.Generator().manual_seed(seed),
        )

    def anneal(self, env_steps: int) -> None:
        """Move β to where it is after this many environment steps."""
        self._sampler.beta = self._beta + (1 - self._beta) * min(1.0, env_steps / self._steps)

    def metrics(self) -> dict[str, float]:
        """β."""
        return {"beta": self._sampler.beta}


class _Proportional(RingSampler):
    """Keeps p^ω of every place, 0 where no transition is to be drawn."""

    place_bytes = 8 + 1

    def __init__(self, places: int, omega: float, beta: float, epsilon: float, join: str) -> None:
        self.omega, self.beta, self.epsilon, self.join = omega, beta, epsilon, join
        self.tree, self.highest = SumTree(places), 1.0
        self._largest = math.exp(700 / max(1.0, omega))  # p and p^ω are then far from infinity
        self.asked = np.zeros(places, np.uint8)
        """Whether a place was drawn and the answer is to come: 0, :data:`DRAWN` or :data:`OVERTAKEN`."""
        self._last = b""
        """The places of the last draw, until there is an answer, or ``asked`` has them."""

    def appended(self, ring: Ring) -> None:
        if ring.retired.stop:
            self._write_down()
            self.tree.fill(ring.retired, 0.0)
            retired = self.asked[ring.retired]
            retired[retired == DRAWN] = OVERTAKEN
        self.tree.fill(ring.newest, self.highest**self.omega)

    def draw(self, ring: Ring, batch_size: int) -> tuple[Tensor, Tensor]:
        if not len(ring):
            raise IndexError("nothing is stored yet: there is nothing to draw from")
        uniform_B = torch.rand(batch_size, dtype=torch.float64, generator=self._rng).numpy()
        place = self.tree.find(stratified(uniform_B, self.tree.total))
        self._write_down()
        self._last = place.tobytes()
        weight = importance_weights(self.tree.value[place], self.beta).astype(np.float32)
        device = ring.action.device
        return torch.from_numpy(place).to(device), torch.from_numpy(weight).to(device)

    def update_priority(self, index: Tensor, priority: Tensor, *, storage: Storage | None = None) -> None:
        place = _array(index).reshape(-1)
        p = priority_of(_per_place(priority, place), self.epsilon, self.join)
        highest = np.maximum.reduce(p, initial=0.0)
        if not highest <= self._largest:
            raise NumericsError("replay: a TD error is NaN or infinite, or its priority is too large")
        if place.tobytes() == self._last:  # all are as they were drawn
            self._last = b""
        else:
            self._write_down()
            here = (self.tree.value[place] > 0) & (self.asked[place] != OVERTAKEN)
            self.asked[place] = 0
            place, p = place[here], p[here]
            highest = p.max(initial=0.0)
        self.highest = max(self.highest, float(highest))
        self.tree.update(place, p**self.omega)

    def _write_down(self) -> None:
        """Have ``asked`` know of the last draw."""
        if self._last:
            self.asked[np.frombuffer(self._last, np.int64)] = DRAWN
            self._last = b""

    def state_dict(self) -> dict[str, Any]:
        self._write_down()
        arrays = {"value": self.tree.value, "asked": self.asked}
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        return {**tensors, "highest": self.highest, "beta": self.beta}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.tree.update(np.arange(self.tree.capacity), state_dict["value"].numpy())
        self.asked[:] = state_dict["asked"]
        self._last = b""
        self.highest, self.beta = state_dict["highest"], state_dict["beta"]


def _per_place(priority: Tensor, place: Indices) -> Floats:
    """In float64, ``[N, B]``; also of ``[B]``, and what TorchRL's losses write, ``[B, 1]``."""
    error = _array(priority)
    if error.size != len(place) and error.shape[-1:] != place.shape:
        raise ValueError(
            f"priorities of shape {[*error.shape]} for {len(place)} places: expected [N, B] or [B]"
        )
    return error.reshape(-1, len(place)).astype(np.float64)


def _array(numbers: Any) -> np.ndarray:
    return (numbers if isinstance(numbers, Tensor) else torch.as_tensor(numbers)).numpy(force=True)
