"""The equations, as pure functions on tensors.

Equation and line numbers are those of "Soft Q-Network" (arXiv 1912.10891v1) and its Algorithm 1.

Legend: B batch, A actions, N networks (1, or 2 for twins), K atoms or quantiles of a distribution, T steps
of a path; Z numbers represent the returns of one action. ``α`` is the temperature, in reward units, > 0.
Entropies are in nats. Values are in reward units.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

EXCLUDED = -1e20
"""The value of a disallowed action: for 1e-12 ≤ α ≤ 1e12 its probability is exactly 0, and 0 times it 0."""


def masked(value_BA: Tensor, allowed_BA: Tensor | None) -> Tensor:
    """Set the values or logits of disallowed actions to :data:`EXCLUDED`.

    With them every policy, backup, entropy and loss here is over the allowed actions only, and no gradient
    flows into the others. ``[..., A]``, bool ``[..., A]`` or None, which allows all → ``[..., A]``.
    """
    return value_BA if allowed_BA is None else value_BA.masked_fill(~allowed_BA, EXCLUDED)


def logits(q_BA: Tensor, alpha: Tensor | float) -> Tensor:
    """The logits (Q(s, a) − max_a Q) / α of the policy π. ``[..., A]`` → ``[..., A]``.

    The maximum is subtracted first: otherwise a large offset of Q would cost the precision of Q / α.
    """
    return (q_BA - q_BA.amax(-1, keepdim=True).detach()) / alpha


def log_policy(q_BA: Tensor, alpha: Tensor | float) -> Tensor:
    """The log π(a|s) of the Boltzmann policy: ``log softmax_a(Q(s, a) / α)``  (eq. 20). → ``[..., A]``."""
    return torch.log_softmax(logits(q_BA, alpha), dim=-1)


def entropy(log_pi_BA: Tensor) -> Tensor:
    """H(π(·|s)) = −Σ_a π log π, in nats, between 0 and log A  (eq. 1). Shape ``[..., A]`` → ``[...]``."""
    return -(log_pi_BA.exp() * log_pi_BA).sum(-1)


def off_greedy_mass(log_pi_BA: Tensor) -> Tensor:
    """1 − max_a π(a|s): the probability of not taking the best action. ``[..., A]`` → ``[...]``."""
    return 1 - log_pi_BA.amax(-1).exp()


def draw(logit_BA: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample a ~ softmax(logits) for each row, by the Gumbel-max trick. ``[B, A]`` → ``[B]`` int64."""
    return gumbel_max(logit_BA, exponentials(logit_BA, generator))


def exponentials(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Sample e ~ Exp(1), in the shape and dtype of ``like``."""
    return torch.empty_like(like).exponential_(generator=generator)


def gumbel_max(q_BA: Tensor, exponential_BA: Tensor, alpha: Tensor | float = 1.0) -> Tensor:
    """argmax_a (Q/α − log e): a sample of softmax(Q/α) if e ~ Exp(1). ``[B, A]`` twice → ``[B]`` int64."""
    return (logits(q_BA, alpha) - exponential_BA.log()).argmax(-1)


def soft_value(q_BA: Tensor, alpha: Tensor | float) -> Tensor:
    """F_α(Q) = α log Σ_a exp(Q(s, a) / α), the soft maximum over actions. ``[..., A]`` → ``[...]``."""
    return q_BA.amax(-1).detach() + alpha * torch.logsumexp(logits(q_BA, alpha), dim=-1)


# --- backups: the value of the next state, without its entropy bonus (line 11) -----------------------------


def expected(target_q_NBA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """min_i Σ_a π(a) Q̄_i(a): line 11, the minimum outside the sum. ``[N, B, A]``, ``[B, A]`` → ``[B]``."""
    return (log_pi_BA.exp() * target_q_NBA).sum(-1).amin(0)


def expected_min(target_q_NBA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """Σ_a π(a) min_i Q̄_i(a): discrete SAC's order of min and sum. ``[N, B, A]``, ``[B, A]`` → ``[B]``."""
    return (log_pi_BA.exp() * target_q_NBA.amin(0)).sum(-1)


def expected_mean(target_q_NBA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """Σ_a π(a) mean_i Q̄_i(a): Stable Discrete SAC (arXiv 2209.10081). ``[N, B, A]``, ``[B, A]`` → ``[B]``."""
    return (log_pi_BA.exp() * target_q_NBA.mean(0)).sum(-1)


def own(target_q_1BA: Tensor, log_pi_BA: Tensor) -> Tensor:
    """Σ_a π(a) Q̄_i(a) for network i alone: no network learns from the other's target copy, and no minimum.

    ``[1, B, A]``, ``[B, A]`` → ``[B]``: called with the copy of each network in turn.
    """
    return (log_pi_BA.exp() * target_q_1BA.squeeze(0)).sum(-1)


def sampled(target_q_NBA: Tensor, log_pi_BA: Tensor, exponential_BA: Tensor) -> Tensor:
    """min_i Q̄_i(a'), a' ~ π: line 11 as printed. ``[N, B, A]``, ``[B, A]`` → ``[B]``.

    Args:
        target_q_NBA: Q̄_i(s', ·).
        log_pi_BA: log π(·|s').
        exponential_BA: e ~ Exp(1), ``[B, A]``: the noise with which :func:`gumbel_max` samples a'.
    """
    return of_action(target_q_NBA, gumbel_max(log_pi_BA, exponential_BA))


def of_action(target_q_NBA: Tensor, action_B: Tensor) -> Tensor:
    """min_i Q̄_i(a) of a given action; in double Q-learning ``argmax_a Q_1`` (van Hasselt et al. 2016, eq. 4).

    ``[N, B, A]``, ``[B]`` → ``[B]``.
    """
    return target_q_NBA.amin(0).gather(-1, action_B.unsqueeze(-1)).squeeze(-1)


def maximum(target_q_NBA: Tensor, log_pi_BA: Tensor | None = None) -> Tensor:
    """min_i max_a Q̄_i(a): the backup of Q-learning; π enters only by its entropy. ``[N, B, A]`` → ``[B]``."""
    return target_q_NBA.amax(-1).amin(0)


BACKUPS: dict[str, Callable[..., Tensor]] = {
    "expected": expected,
    "expected_min": expected_min,
    "sampled": sampled,
    "expected_mean": expected_mean,
    "own": own,
    "max": maximum,
}


# --- the update (lines 12 to 18) ---------------------------------------------------------------------------


def td_target(reward_B: Tensor, discount_B: Tensor, value_B: Tensor) -> Tensor:
    """The target y = r + discount · v(s')  (line 12, eq. 10).

    The discount is γ^m (1 − d) with d = *terminated*: termination is in the data, not in the formula. A
    truncated transition keeps its discount.

    Args:
        reward_B: ``[B]``, or a shape that broadcasts with ``[B, Z]``.
        discount_B: as ``reward_B``, in [0, 1].
        value_B: v(s'), ``[B]``; or what represents a distribution, ``[B, Z]``.

    Returns:
        In the shape of ``value_B``.
    """
    return reward_B + discount_B * value_B


def td_error(q_NBA: Tensor, action_B: Tensor, target_B: Tensor) -> Tensor:
    """δ_i = Q_i(s, a) − y. ``[N, B, A]``, ``[B]``, y ``[B]`` or for each network ``[N, B]`` → ``[N, B]``."""
    q_NB = q_NBA.gather(-1, action_B.expand(q_NBA.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return q_NB - target_B


def td_loss(loss_NB: Tensor, weight_B: Tensor | None = None) -> Tensor:
    """Σ_i mean_B w ℓ_i, where ℓ is δ²  (eq. 10, line 14; a descent step, though the paper prints a ``+``).

    Args:
        loss_NB: the loss of every network and transition, ``[N, B]``: δ², or a distributional head's loss.
        weight_B: importance weights of prioritized replay, ``[B]``; None: all are 1.

    Returns:
        scalar.
    """
    return (loss_NB if weight_B is None else weight_B * loss_NB).mean(-1).sum()


def temperature_loss(alpha: Tensor, entropy_B: Tensor, target_entropy: Tensor | float) -> Tensor:
    """α · mean_B (H(π(·|s)) − H̄)  (eq. 19, lines 15-16 as a descent step). → scalar.

    Descending on it raises α where the policy's entropy is below H̄, and lowers it where it is above; as
    printed, line 16 would do the reverse.

    Args:
        alpha: temperature, a scalar that requires gradient.
        entropy_B: ``[B]``, in nats; no gradient flows into it.
        target_entropy: H̄, in nats.
    """
    return alpha * (entropy_B.detach().mean() - target_entropy)


def policy_loss(log_pi_BA: Tensor, q_BA: Tensor, alpha: Tensor | float) -> Tensor:
    """mean_B Σ_a π (α log π − Q), the loss of SAC's policy network (arXiv 1910.07207, eq. 12).

    Args:
        log_pi_BA: log π_φ(·|s), ``[B, A]``, with gradient.
        q_BA: ``[B, A]``; no gradient flows into it.
        alpha: temperature.

    Returns:
        scalar.
    """
    q_BA = q_BA.detach()
    best_B1 = q_BA.amax(-1, keepdim=True)  # subtracted first: beside a large Q, α log π would be rounded away
    return ((log_pi_BA.exp() * (alpha * log_pi_BA - (q_BA - best_B1))).sum(-1, keepdim=True) - best_B1).mean()


def munchausen_bonus(
    log_pi_BA: Tensor, action_B: Tensor, alpha: Tensor | float, scale: float, lowest: float
) -> Tensor:
    """The bonus m · [α log π(a|s)], the bracket clipped to [l₀, 0]  (Vieillard et al. 2020).

    Args:
        log_pi_BA: log π(·|s), ``[B, A]``.
        action_B: the actions taken, ``[B]``.
        alpha: temperature.
        scale: m, in [0, 1].
        lowest: l₀, reward units, < 0.

    Returns:
        ``[B]``, reward units.
    """
    log_pi_B = log_pi_BA.gather(-1, action_B.unsqueeze(-1)).squeeze(-1)
    return scale * (alpha * log_pi_B).clamp(lowest, 0)


# --- distributions of returns: K atoms or quantiles for each action ----------------------------------------


def mixture_weights(backup: Callable[[Tensor], Tensor], target_q_NBA: Tensor) -> Tensor:
    """The weights w_i(a) of a backup ``v(s') = Σ_{i,a} w_i(a) Q̄_i(a)``; they sum to 1.

    Every backup selects or averages values, so it is piecewise linear: its gradient is the weights. With
    these weights the return distribution of the next state is a mixture.

    Args:
        backup: ``[N, B, A]`` → ``[B]``.
        target_q_NBA: the values at which the backup is evaluated.

    Returns:
        ``[N, B, A]``.
    """
    with torch.enable_grad():
        q_NBA = target_q_NBA.detach().requires_grad_()
        (weight_NBA,) = torch.autograd.grad(backup(q_NBA).sum(), q_NBA)
    return weight_NBA


def project(probability_BK: Tensor, atom_BK: Tensor, support_K: Tensor) -> Tensor:
    """Project atoms onto an evenly spaced support; the mean is kept  (Bellemare 2017, eq. 7).

    The probability of an atom is shared between the two nearest atoms of the support.

    Args:
        probability_BK: the probability of each atom, ``[B, K]``.
        atom_BK: the atoms, ``[B, K]``, reward units, of any precision; clamped to the support's range.
        support_K: ascending, evenly spaced, ``[K]``.

    Returns:
        The probabilities of the support, ``[B, K]``.
    """
    last = len(support_K) - 1
    position_BK = (atom_BK - support_K[0]) * (last / (support_K[-1] - support_K[0]))
    position_BK = position_BK.clamp(0, last).to(probability_BK.dtype)  # in steps of the support
    below_BK = position_BK.long().clamp(0, last - 1)  # NaN becomes index 0, and its shares are NaN
    upper_BK = probability_BK * (position_BK - below_BK)
    projected_BK = probability_BK.new_zeros(len(probability_BK), len(support_K))
    projected_BK.scatter_add_(-1, below_BK, probability_BK - upper_BK)
    return projected_BK.scatter_add_(-1, below_BK + 1, upper_BK)


def cross_entropy(logit_NBK: Tensor, target_BK: Tensor) -> Tensor:
    """−Σ_k m_k log p_k  (arXiv 1707.06887). ``[N, B, K]``, m ``[B, K]`` or ``[N, B, K]`` → ``[N, B]``."""
    return -(target_BK * torch.log_softmax(logit_NBK, dim=-1)).sum(-1)


def quantile_loss(quantile_NBK: Tensor, target_BM: Tensor, kappa: float) -> Tensor:
    """Σ_k E_m |τ_k − 1{u < 0}| L_κ(u)/κ, u = target_m − θ_k  (arXiv 1806.06923, eq. 3).

    L_κ is Huber's loss (arXiv 1710.10044, eq. 9). QR-DQN does not divide by κ (there eq. 10), its successor
    does: errors above κ then have the same weight as in plain quantile regression, for every κ.

    Args:
        quantile_NBK: θ, the quantiles at the midpoints τ_k = (k + ½)/K, ``[N, B, K]``, reward units.
        target_BM: equally likely samples of the target distribution, ``[B, M]``, or ``[N, B, M]`` for each.
        kappa: κ, below which the loss is quadratic; 0 for plain quantile regression.

    Returns:
        ``[N, B]``.
    """
    k, shape = quantile_NBK.shape[-1], (*quantile_NBK.shape, target_BM.shape[-1])
    rank_K = torch.arange(k, dtype=quantile_NBK.dtype, device=quantile_NBK.device)
    tau_K1 = ((rank_K + 0.5) / k).unsqueeze(-1)
    quantile_NBKM = quantile_NBK.unsqueeze(-1).expand(shape)
    target_NBKM = target_BM.unsqueeze(-2).expand(shape)
    with torch.no_grad():
        share_NBKM = torch.where(target_NBKM < quantile_NBKM, 1 - tau_K1, tau_K1)
    size_NBKM = smooth_l1_loss(quantile_NBKM, target_NBKM, reduction="none", beta=kappa)  # L_κ/κ, or |u|
    return (share_NBKM * size_NBKM).mean(-1).sum(-1)


def tree_backup(value_BZ: Tensor, taken_BZ: Tensor, coefficient_B: Tensor, target_BZ: Tensor) -> Tensor:
    """v(s), with the taken action's share of it replaced by that of the observed return G.

    v(s) + c (G − Q̄(s, a))  (arXiv 1606.02647, §2). With c = π(a|s) it is the tree backup of Precup et al.
    (2000), with c = min(1, π/μ) Retrace; λ scales both. In v(s) the entropy bonus stays as it is.

    Args:
        value_BZ: v(s): a value, or what represents a distribution, ``[B, Z]``.
        taken_BZ: c Q̄(s, a), for several networks their mean with the weights w_i(a) / π(a|s), ``[B, Z]``.
        coefficient_B: c, λ π(a|s) for the tree backup with π(a|s) = Σ_i w_i(a), ``[B]``, in [0, 1].
        target_BZ: G, the target of the step that begins with that action, ``[B, Z]``.

    Returns:
        ``[B, Z]``.
    """
    return value_BZ - taken_BZ + coefficient_B.unsqueeze(-1) * target_BZ


# --- the heads' arithmetic ---------------------------------------------------------------------------------


def dueling(value_B1: Tensor, advantage_BA: Tensor) -> Tensor:
    """Q = V + A − mean_a A  (Wang et al. 2016, eq. 9). ``[..., 1]``, ``[..., A]`` → ``[..., A]``."""
    return value_B1 + advantage_BA - advantage_BA.mean(-1, keepdim=True)


# --- n-step returns ----------------------------------------------------------------------------------------


def steps_to_last(last_BT: Tensor) -> Tensor:
    """m, the number of steps up to and including the first last one; T if there is none.

    Args:
        last_BT: whether the k-th step is the last of its trajectory, ``[B, T]`` bool.

    Returns:
        ``[B]`` int64, in [1, T].
    """
    return 1 + (~last_BT[:, :-1]).cumprod(-1).sum(-1)


def n_step_return(reward_BT: Tensor, steps_B: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Σ_{k<m} γ^k r_{t+k}, and the bootstrap's discount γ^m  (Sutton & Barto 2018, eq. 7.1).

    Args:
        reward_BT: r_{t+k}, ``[B, T]``; rewards after m steps are ignored.
        steps_B: m, ``[B]`` int64, in [1, T].
        gamma: γ, in [0, 1].

    Returns:
        ``[B]``, reward units; and ``[B]``, in [0, 1].
    """
    power_T = reward_BT.new_tensor([gamma**k for k in range(reward_BT.shape[1] + 1)])
    counts_BT = torch.arange(reward_BT.shape[1], device=steps_B.device) < steps_B.unsqueeze(-1)
    return (power_T[:-1] * reward_BT).where(counts_BT, 0).sum(-1), power_T[steps_B]
