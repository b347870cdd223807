"""Small real parts, with a way to vary each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from sqn_rl import (
    MLP,
    Agent,
    BatchedEnv,
    BoltzmannActor,
    Dense,
    LearnedTemperature,
    LinearHead,
    OneStep,
    Polyak,
    QNet,
    SQNLoss,
    UniformReplay,
    compose,
)
from sqn_rl.training.agent import AGENT_PARTS


def _q_net(*, hidden: tuple[int, ...] = (5,), **settings: Any) -> QNet:
    small = {"head": LinearHead, "layer": Dense, "observation_shape": (4,), "n_actions": 3}
    twins = {"members": 2, "shared_encoder": False}
    return QNet(**{"encoder": partial(MLP, hidden=hidden)} | small | twins | settings)


def _temperature(**settings: Any) -> LearnedTemperature:
    target = {"target_entropy": 0.5, "target_entropy_fraction": None, "n_actions": 3}
    descent = {"initial": 0.5, "lr": 1e-2, "minimum": 1e-3, "maximum": 10.0, "optimise": "log_alpha"}
    return LearnedTemperature(**target | descent | settings)


def _loss(q_net: QNet | None = None, temperature: Any = None, backup: str = "expected") -> SQNLoss:
    return SQNLoss(
        q_net=q_net or _q_net(),
        temperature=temperature or _temperature(),
        gamma=0.99,
        backup=backup,
        policy_source="q1",
        backup_entropy=True,
        seed=0,
    )


def _agent(env: BatchedEnv, *, seed: int = 0) -> Agent:
    torch.manual_seed(seed)
    sizes = {"observation_shape": env.observation_shape, "observation_dtype": env.observation_dtype}
    q_net = _q_net(**sizes, n_actions=env.n_actions, hidden=(16,))
    temperature = _temperature(n_actions=env.n_actions)
    loss = _loss(q_net, temperature)
    replay = UniformReplay(
        capacity=300,
        num_envs=env.num_envs,
        observation_shape=env.observation_shape,
        observation_dtype=env.observation_dtype,
        frame_stack=env.frame_stack,
        returns=OneStep(gamma=0.99),
        seed=seed,
        device="cpu",
    )
    return Agent(
        actor=BoltzmannActor(q_net=q_net, temperature=temperature, policy="q1", seed=seed),
        loss=loss,
        target_update=Polyak(loss=loss, tau=0.05),
        optimizer=partial(torch.optim.Adam, lr=1e-2),
        replay=replay,
    )


def _played_agent(recipe: str, *overrides: str) -> Agent:
    small = ("env=cartpole", "hidden=[16]", "batch_size=8", "num_envs=2", "replay_capacity=30")
    parts = compose(recipe, *small, *overrides).recipe.build()
    agent, env = Agent(**{name: parts[name] for name in AGENT_PARTS}), parts["env"]
    observation, rng = env.begin(), torch.Generator().manual_seed(0)
    agent.replay.cut()
    for _ in range(20):
        action = torch.randint(2, (2,), generator=rng)
        step = env.advance(action)
        agent.replay.store(observation, action, step)
        observation = step.observation
    return agent


@pytest.fixture
def make_q_net() -> Callable[..., QNet]:
    """Tiny twins with 4 features and 3 actions; any argument of QNet, and ``hidden``, can be given."""
    return _q_net


@pytest.fixture
def make_temperature() -> Callable[..., LearnedTemperature]:
    """α = 0.5 with H̄ = 0.5 nats of log 3; any argument can be given."""
    return _temperature


@pytest.fixture
def make_loss() -> Callable[..., SQNLoss]:
    """The default SQN loss of the small Q-network and temperature."""
    return _loss


@pytest.fixture
def make_agent() -> Callable[..., Agent]:
    """A small agent for an environment, all of whose randomness comes from ``seed``."""
    return _agent


@pytest.fixture
def make_played_agent() -> Callable[..., Agent]:
    """A recipe's agent, small, whose replay holds 20 steps of two environments; overrides can be given."""
    return _played_agent
