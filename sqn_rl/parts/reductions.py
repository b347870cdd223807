"""The values by which a policy acts: those of the first network, or the minimum or mean over all.

Legend: N networks, B states, A actions; ``*S`` is the shape of an observation.
"""

from collections.abc import Callable

from torch import Tensor

from sqn_rl.protocols import QNetwork

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "q1": lambda q_NBA: q_NBA[0],
    "min": lambda q_NBA: q_NBA.amin(0),
    "mean": lambda q_NBA: q_NBA.mean(0),
}
"""By name, from the values of the networks, ``[N, B, A]``, to those of the policy, ``[B, A]``."""


def reduced_values(q_net: QNetwork, observation: Tensor, name: str) -> Tensor:
    """The values of a Q-network, reduced; for ``q1`` only the first is asked. ``[B, *S]`` → ``[B, A]``."""
    return q_net.first(observation) if name == "q1" else REDUCTIONS[name](q_net.values(observation))
