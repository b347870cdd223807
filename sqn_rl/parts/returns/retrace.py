"""Retrace: multi-step targets of steps that another policy took, such as an actor with older weights."""

from torch import Tensor

from sqn_rl.errors import WiringError
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.returns.tree_backup import TreeBackup
from sqn_rl.types import Path


class Retrace(TreeBackup):
    """``G_k = r_k + γ [v(s_{k+1}) + c_{k+1} (G_{k+1} − Q̄(s_{k+1}, a_{k+1}))]``, ``c = λ min(1, π/μ)``.

    Retrace(λ) (Munos et al. 2016, section 2): π is the policy of the loss, and μ(a|s) the probability with
    which the actor took the action, with its exploration and the weights it had then. The replay keeps log μ
    of every step. v is the loss's soft value, as in the tree backup, which has c = λ π. Retrace keeps
    the full weight λ where the policy was at least as likely as the actor to take the action.

    Arguments and ends of a path are those of :class:`~sqn_rl.TreeBackup`. Where a mixture of networks makes
    v(s), π(a|s) is the sum of its weights for that action.
    """

    reads_log_mu = True

    def _path(self, ring: Ring, place: Tensor) -> Path:
        if ring.log_mu is None:
            needs = "returns: Retrace needs the log-probabilities of the actions taken, and no step has them"
            hint = "act by sqn_rl.Player(actor, num_envs, n_actions), or choose returns=tree_backup"
            raise WiringError("returns", f"{needs}; {hint}")
        path, following = self._paths(ring, place)
        return path._replace(next_log_mu=ring.log_mu.take(following))
