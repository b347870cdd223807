"""n-step returns.

Legend: B transitions, T = n steps from each, A actions; a return sums m ≤ n steps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import WiringError
from sqn_rl.parts.arguments import Count, Probability, typed
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.protocols import Actor, Policy, Temperature
from sqn_rl.types import Batch


class NStep:
    """``Σ_{k<m} γ^k r_{t+k}``, and the observation after m steps  (Sutton & Barto 2018, eq. 7.1).

    m is n, or fewer: up to the first step that terminated or was truncated, the last step before a cut, or
    the newest step stored. So the newest n - 1 rows bootstrap from the newest observation, until more follow.

    The return is not corrected for the older policies that collected it. Without ``soft`` it omits the
    entropies of the intermediate steps, which the soft value includes; ``soft`` adds them,
    ``Σ_{0<k<m} γ^k α H(π(·|s_{t+k}))``, with the current policy and α. Use ``soft`` with a loss whose target
    has an entropy bonus, and not with another.

    Args:
        gamma: γ, in [0, 1].
        n: the maximum number of steps; n = 1 gives :class:`~sqn_rl.OneStep`.
        soft: add the entropies of the intermediate steps.
        actor: the actor whose policy is used; needed only if soft.
        temperature: the temperature whose α is used; needed only if soft.

    Raises:
        SettingError: γ or n is out of range.
        WiringError: soft, without a temperature or with an actor that has no policy.
    """

    @typed
    def __init__(
        self,
        *,
        gamma: Probability,
        n: Count,
        soft: bool,
        actor: Actor | None = None,
        temperature: Temperature | None = None,
    ) -> None:
        self.gamma, self.n, self.soft = gamma, n, soft
        self._bonus = _EntropyBonus(actor, temperature) if soft else None
        self.independent = not soft

    @property
    def consumes(self) -> Sequence[str]:
        """The keys that it reads, as the wiring shows them."""
        return ["transitions", *(["alpha", "log_policy"] if self.soft else [])]

    def gather(self, ring: Ring, place: Tensor) -> Batch:
        """The transitions at these places of the ring, ``[B]``."""
        place_BT, steps_B1 = ring.lookahead(place, self.n)
        steps_B = steps_B1.squeeze(-1)
        reward_BT = ring.reward.take(place_BT)
        if self._bonus:
            reward_BT += self._bonus(ring, place_BT, steps_B)
        reward, discount = F.n_step_return(reward_BT, steps_B, self.gamma)
        end = place_BT.gather(-1, steps_B1 - 1).squeeze(-1)
        return Batch(
            observation=ring.observe(place),
            action=ring.action.index_select(0, place),
            reward=reward,
            next_observation=ring.observe_next(end),
            terminated=ring.terminated.index_select(0, end),
            discount=discount,
            place=place,
            action_mask=ring.allowed(place),
            next_action_mask=ring.allowed_next(end),
        )

    def steps(self, ring: Ring, place: Tensor) -> Tensor:
        """The m of each transition, ``[B]`` → ``[B]`` int64."""
        return ring.lookahead(place, self.n)[1].squeeze(-1)


class _EntropyBonus:
    """The entropy bonus that the soft value adds to the rewards of the intermediate steps."""

    def __init__(self, actor: Actor | None, temperature: Temperature | None) -> None:
        if temperature is None:
            raise _wiring_error("a temperature, whose α weighs the entropies it adds; there is none")
        if not isinstance(actor, Policy):
            actual = "there is none" if actor is None else f"{type(actor).__name__} has none"
            raise _wiring_error(f"an actor with a policy, log_policy(observation); {actual}")
        self.actor: Policy = actor
        self.temperature: Temperature = temperature

    @torch.no_grad()
    def __call__(self, ring: Ring, place_BT: Tensor, steps_B: Tensor) -> Tensor:
        """α H(π(·|s_{t+k})) where 0 < k < m, else 0, ``[B, T]``."""
        k_T = torch.arange(place_BT.shape[1], device=place_BT.device)
        between_BT = (k_T > 0) & (k_T < steps_B.unsqueeze(-1))
        bonus_BT = ring.reward.new_zeros(place_BT.shape)
        if between_BT.any():
            place = place_BT[between_BT]
            allowed = {} if (mask := ring.allowed(place)) is None else {"action_mask": mask}
            entropy = F.entropy(self.actor.log_policy(ring.observe(place), **allowed))
            bonus_BT[between_BT] = (self.temperature.alpha * entropy).to(bonus_BT.dtype)
        return bonus_BT


def _wiring_error(needs: str) -> WiringError:
    return WiringError("returns.soft", f"returns.soft = true: expected {needs}")
