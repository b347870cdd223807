"""The oracles compute in float64, so that tolerances of a few roundings suffice.

Their networks are tables: modules with gradients and target copies, in which every number is known.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sqn_rl.parts.distributions import Distribution, Scalar
from sqn_rl.parts.loss.discrete_sac import DiscreteSACLoss
from sqn_rl.parts.loss.double_dqn import DoubleDQNLoss
from sqn_rl.parts.loss.dqn import DQNLoss
from sqn_rl.parts.loss.munchausen import MunchausenLoss
from sqn_rl.parts.loss.sqn import SQNLoss
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.temperature.learned import LearnedTemperature


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class TableQ(nn.Module):
    """A Q-network that is a table; an observation is the number of a state."""

    in_keys = ("observation",)
    observation_shape = ()

    def __init__(self, table: Tensor, distribution: Distribution | None = None) -> None:
        """``[N, S, A]``, or ``[N, S, A, K]`` with a distribution."""
        super().__init__()
        self.table, self.distribution = nn.Parameter(table.clone()), distribution or Scalar()

    def predict(self, observation: Tensor) -> Tensor:
        return self.table[:, observation]

    def values(self, observation: Tensor) -> Tensor:
        return self.distribution.mean(self.predict(observation))

    def first(self, observation: Tensor) -> Tensor:
        return self.values(observation)[0]


class NoisyTableQ(TableQ):
    """A table that adds noise to all outputs of a network, one number for each network."""

    def __init__(self, table: Tensor, distribution: Distribution | None = None) -> None:
        super().__init__(table, distribution)
        self.noise_size, self.noise = len(table), torch.zeros(len(table))

    def set_noise(self, noise: Tensor | None) -> None:
        self.noise = torch.zeros(self.noise_size) if noise is None else noise

    def predict(self, observation: Tensor) -> Tensor:
        return super().predict(observation) + self.noise[:, None, None]


class TablePolicy(nn.Module):
    """An actor whose policy network is a table of logits, ``[1, S, A]``."""

    def __init__(self, policy_net: TableQ) -> None:
        super().__init__()
        self.policy_net = policy_net

    def logits(self, observation: Tensor) -> Tensor:
        return self.policy_net.values(observation)[0]


def _temperature(**settings: Any) -> LearnedTemperature:
    defaults = {"initial": 0.75, "target_entropy": 0.5, "target_entropy_fraction": None, "lr": 1e-2}
    limits = {"minimum": 1e-3, "maximum": 1e3, "optimise": "log_alpha", "n_actions": 3}
    return LearnedTemperature(**defaults | limits | settings)


SOFT = {"backup": "expected", "policy_source": "q1", "backup_entropy": True}
LOSSES = {
    "dqn": DQNLoss,
    "double_dqn": DoubleDQNLoss,
    "sqn": partial(SQNLoss, **SOFT),
    "munchausen": partial(MunchausenLoss, **SOFT, m=0.9, lowest=-1.0),
    "discrete_sac": partial(DiscreteSACLoss, backup="expected_min"),
}


def _loss(
    name: str,
    table: Tensor,
    target_table: Tensor | None = None,
    *,
    distribution: Distribution | None = None,
    logits: Tensor | None = None,
    noisy: bool = False,
    **settings: Any,
) -> TDLoss:
    make = NoisyTableQ if noisy else TableQ
    defaults = {"q_net": make(table, distribution), "gamma": 0.5, "seed": 0}
    if name == "discrete_sac":
        logits = torch.zeros(table.shape[1:3]) if logits is None else logits
        defaults["actor"] = TablePolicy(make(logits[None]))
    if "temperature" not in settings:
        defaults["temperature"] = _temperature()
    loss = LOSSES[name](**defaults | settings)
    if target_table is not None:
        loss.target_q_net.table.data.copy_(target_table)
    return loss


@pytest.fixture(scope="session")
def make_temperature() -> Callable[..., LearnedTemperature]:
    """α = 0.75 with H̄ = 0.5 nats of log 3; any argument can be given."""
    return _temperature


@pytest.fixture(scope="session")
def make_loss() -> Callable[..., TDLoss]:
    """A loss by its part's name, from tables: of the online networks, and of the targets if they differ.

    Any argument of the loss can be given; ``distribution`` of the tables; the ``logits`` of a policy network,
    ``[S, A]``, else uniform; and ``noisy``, for networks with noise.
    """
    return _loss
