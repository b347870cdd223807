"""The equations, as pure functions on tensors.

Equation and line numbers are those of "Soft Q-Network" (arXiv 1912.10891 v1) and its Algorithm 1.

Legend: B batch, A actions, N networks (1, or 2 for twins). ``α`` is the temperature, in reward units, > 0.
Entropies are in nats. Values are in reward units. Time is in the names: ``_t`` is what the action at
``t - 1`` led to.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def log_policy(q_BA: Tensor, alpha: Tensor | float) -> Tensor:
    """The log π(a|s) of the Boltzmann policy: ``log softmax_a(Q(s, a) / α)``  (eq. 20).

    Args:
        q_BA: action values, ``[..., A]``.
        alpha: temperature.

    Returns:
        ``[..., A]``.
    """
    return torch.log_softmax(q_BA / alpha, dim=-1)


def entropy(log_pi_BA: Tensor) -> Tensor:
    """H(π(·|s)) = −Σ_a π log π, in nats, between 0 and log A  (eq. 1). Shape ``[..., A]`` → ``[...]``."""
    return -(log_pi_BA.exp() * log_pi_BA).sum(-1)


def off_greedy_mass(log_pi_BA: Tensor) -> Tensor:
    """1 − max_a π(a|s): how often the policy does not take its best action. ``[..., A]`` → ``[...]``."""
    return 1 - log_pi_BA.amax(-1).exp()


def soft_value(q_BA: Tensor, alpha: Tensor | float) -> Tensor:
    """F_α(Q) = α log Σ_a exp(Q(s, a) / α), the soft maximum over actions. ``[..., A]`` → ``[...]``."""
    return alpha * torch.logsumexp(q_BA / alpha, dim=-1)


# --- what the next state is worth, without its entropy bonus (line 11) -------------------------------------


def expected(target_q_NBA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """min_i Σ_a π(a) Q̄_i(a): the authors' primary form. ``[N, B, A]``, ``[B, A]`` → ``[B]``."""
    return (log_pi_BA.exp() * target_q_NBA).sum(-1).amin(0)


def expected_min(target_q_NBA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """Σ_a π(a) min_i Q̄_i(a): discrete SAC's order of min and sum. ``[N, B, A]``, ``[B, A]`` → ``[B]``."""
    return (log_pi_BA.exp() * target_q_NBA.amin(0)).sum(-1)


def expected_mean(target_q_NBA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """Σ_a π(a) mean_i Q̄_i(a): Stable Discrete SAC (arXiv 2209.10081). ``[N, B, A]``, ``[B, A]`` → ``[B]``."""
    return (log_pi_BA.exp() * target_q_NBA.mean(0)).sum(-1)


def sampled(target_q_NBA: Tensor, log_pi_BA: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """min_i Q̄_i(a'), a' ~ π: line 11 as printed. ``[N, B, A]``, ``[B, A]`` → ``[B]``."""
    action_B1 = torch.multinomial(log_pi_BA.exp(), 1, generator=generator)
    return target_q_NBA.amin(0).gather(-1, action_B1).squeeze(-1)


def maximum(target_q_NBA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """min_i max_a Q̄_i(a): the authors' third form; π enters only by its entropy. ``[N, B, A]`` → ``[B]``."""
    return target_q_NBA.amax(-1).amin(0)


BACKUPS: dict[str, Callable[..., Tensor]] = {
    "expected": expected,
    "expected_min": expected_min,
    "sampled": sampled,
    "expected_mean": expected_mean,
    "max": maximum,
}


# --- the update (lines 12 to 18) ---------------------------------------------------------------------------


def td_target(reward_t: Tensor, discount_t: Tensor, value_t: Tensor) -> Tensor:
    """The target y = r + discount · v(s')  (line 12, eq. 10).

    The discount is γ^m (1 − d) with d = *terminated*: termination is in the data, not in the formula. A
    truncated transition keeps its discount.

    Args:
        reward_t: ``[B]``.
        discount_t: ``[B]``, in [0, 1].
        value_t: v(s'), ``[B]``.

    Returns:
        ``[B]``.
    """
    return reward_t + discount_t * value_t


def td_error(q_NBA: Tensor, action_B: Tensor, target_B: Tensor) -> Tensor:
    """δ_i = Q_i(s, a) − y for every network. ``[N, B, A]``, ``[B]``, ``[B]`` → ``[N, B]``."""
    q_NB = q_NBA.gather(-1, action_B.expand(q_NBA.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return q_NB - target_B


def td_loss(td_error_NB: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Σ_i mean_B w δ_i²  (eq. 10, line 14; a descent step, though the paper prints a ``+``). → scalar.

    Args:
        td_error_NB: ``[N, B]``.
        weight_B: importance weights of prioritized replay, ``[B]``; none counts each as 1.
    """
    squared_NB = td_error_NB.square()
    return (squared_NB if weight_B is None else weight_B * squared_NB).mean(-1).sum()


def temperature_loss(alpha: Tensor, entropy_B: Tensor, target_entropy: Tensor | float) -> Tensor:
    """α · mean_B (H(π(·|s)) − H̄)  (eq. 19, lines 15-16 as a descent step). → scalar.

    Descending on it raises α where the policy is less random than H̄ asks, and lowers it where it is more; as
    printed, line 16 would do the reverse.

    Args:
        alpha: temperature, a scalar that requires gradient.
        entropy_B: ``[B]``, in nats; no gradient flows into it.
        target_entropy: H̄, in nats.
    """
    return alpha * (entropy_B.detach().mean() - target_entropy)


def dueling(value_B1: Tensor, advantage_BA: Tensor) -> Tensor:
    """Q = V + A − mean_a A  (Wang et al. 2016, eq. 9). ``[..., 1]``, ``[..., A]`` → ``[..., A]``."""
    return value_B1 + advantage_BA - advantage_BA.mean(-1, keepdim=True)
