"""The tree backup: multi-step targets that need no correction for the policy that collected the steps.

Legend: B transitions, T = n steps from each; ``*S`` is the shape of an observation.
"""

import torch
from torch import Tensor

from sqn_rl.parts.arguments import Count, Probability, typed
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.types import Batch, Path


class TreeBackup:
    """``G_k = r_k + γ [v(s_{k+1}) + λ π(a_{k+1}|s_{k+1}) (G_{k+1} − Q̄(s_{k+1}, a_{k+1}))]``.

    The soft tree backup: v is the loss's soft value, with its backup, policy and entropy bonus, so every
    entropy counts, and steps that the policy would not take count little (Precup et al. 2000; arXiv
    1606.02647, table 1). Where v(s) is a mixture ``Σ_{i,a} w_i(a) Q̄_i(a)`` of several networks, the part
    that came from the action taken is replaced: λ w(a) instead of λ π(a|s). With the greedy backup of DQN a
    path ends at the first action that is not greedy.

    The path ends at the n-th step, the first that terminated or was truncated, the last before a cut, or the
    newest stored. The batch's own columns are those of its first step, and :attr:`~sqn_rl.types.Batch.path`
    has all; the loss computes G.

    Args:
        gamma: γ, in [0, 1].
        n: the maximum number of steps; n = 1 gives :class:`~sqn_rl.OneStep`.
        lmbda: λ, in [0, 1]; 0 gives :class:`~sqn_rl.OneStep` too.

    Raises:
        SettingError: γ, n or λ is out of range.
    """

    gives_paths = True
    independent = True

    @typed
    def __init__(self, *, gamma: Probability, n: Count, lmbda: Probability) -> None:
        self.gamma, self.n, self.lmbda = gamma, n, lmbda

    def gather(self, ring: Ring, place: Tensor) -> Batch:
        """The transitions at these places of the ring, ``[B]``, and the paths that begin with them."""
        path = self._path(ring, place)
        return Batch(
            observation=ring.observe(place),
            action=ring.action.index_select(0, place),
            reward=path.reward[:, 0],
            next_observation=path.next_observation[:, 0],
            terminated=ring.terminated.index_select(0, place),
            discount=ring.reward.new_full(place.shape, self.gamma),
            place=place,
            path=path,
            action_mask=ring.allowed(place),
            next_action_mask=ring.allowed_next(place),
        )

    def steps(self, ring: Ring, place: Tensor) -> Tensor:
        """The m = 1 of each transition, ``[B]`` → ``[B]`` int64."""
        return torch.ones_like(place)

    def _path(self, ring: Ring, place: Tensor) -> Path:
        path, _ = self._paths(ring, place)
        return path

    def _paths(self, ring: Ring, place: Tensor) -> tuple[Path, Tensor]:
        """The paths, and the places of the next actions, ``[B, T]``."""
        place_BT, steps_B1 = ring.lookahead(place, self.n)
        k_T = torch.arange(self.n, device=place.device)
        place_BT = place_BT.gather(-1, torch.minimum(k_T, steps_B1 - 1))  # rows after the end are not read
        next_place_BT = torch.cat([place_BT[:, 1:], place_BT[:, -1:]], -1)
        next_observation = ring.observe_next(place_BT.flatten())
        mask = ring.allowed_next(place_BT.flatten())
        path = Path(
            next_observation=next_observation.unflatten(0, place_BT.shape),
            next_action=ring.action.take(next_place_BT),
            reward=ring.reward.take(place_BT),
            discount=self.gamma * (~ring.terminated.take(place_BT)).to(ring.reward.dtype),
            trace=self.lmbda * (k_T + 1 < steps_B1).to(ring.reward.dtype),
            next_action_mask=None if mask is None else mask.unflatten(0, place_BT.shape),
        )
        return path, next_place_BT
