"""Our replays as TorchRL replay buffers: its collectors fill them, its losses and ours read them."""

from functools import partial
from typing import Any

import pytest
import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import EGreedyModule, QValueModule
from torchrl.objectives import DQNLoss, SoftUpdate

from sqn_rl import (
    MLP,
    BoltzmannActor,
    Dense,
    FixedTemperature,
    GymEnv,
    LinearHead,
    OneStep,
    Polyak,
    PrioritizedReplay,
    QNet,
    SQNLoss,
    UniformReplay,
)

# torchrl 0.14.1 deprecates classes of its own while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Creating .*WeightUpdater which inherits:DeprecationWarning")

N = 4


def make_env() -> GymEnv:
    return GymEnv(id="CartPole-v1", num_envs=N, seed=0)


def make_replay(env: GymEnv, kind: Any) -> UniformReplay | PrioritizedReplay:
    part = {"omega": 0.6, "beta": 0.4, "epsilon": 1e-6, "td_error": "mean", "steps": 6_400}
    where = {"observation_shape": env.observation_shape, "observation_dtype": env.observation_dtype}
    small = {"capacity": 10_000, "num_envs": N, "frame_stack": 1, "seed": 0, "device": "cpu"}
    return kind(returns=OneStep(gamma=0.99), **where, **small, **part if kind is PrioritizedReplay else {})


def collect(env: GymEnv, policy: Any, steps: int, **settings: Any) -> Any:
    from torchrl.collectors import Collector  # warns

    return Collector(
        env,
        policy,
        frames_per_batch=16 * N,
        total_frames=steps,
        auto_register_policy_transforms=False,
        **settings,
    )


def played(replay: UniformReplay | PrioritizedReplay) -> float:
    """The mean length of the last 20 episodes in the replay."""
    done = replay[:]["next", "done"].reshape(-1, N)
    ends = [done[:, i].nonzero().flatten().diff() for i in range(N)]
    return torch.cat([lengths[-20 // N :] for lengths in ends]).double().mean().item()


def make_parts(env: GymEnv) -> tuple[BoltzmannActor, SQNLoss]:
    torch.manual_seed(0)
    q_net = QNet(
        encoder=partial(MLP, hidden=[128, 128]),
        head=LinearHead,
        layer=Dense,
        observation_shape=env.observation_shape,
        n_actions=env.n_actions,
        members=2,
        shared_encoder=False,
    )
    temperature = FixedTemperature(alpha=0.1)
    actor = BoltzmannActor(q_net=q_net, temperature=temperature, policy="q1", seed=0)
    backup = {"backup": "expected", "policy_source": "q1", "backup_entropy": True}
    return actor, SQNLoss(q_net=q_net, temperature=temperature, gamma=0.99, seed=0, **backup)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [UniformReplay, PrioritizedReplay])
def test_a_torchrl_collector_with_our_replay_and_loss_learns_cartpole(kind: Any) -> None:
    env = make_env()
    actor, loss = make_parts(env)
    replay = make_replay(env, kind)
    target_update, optimizer = Polyak(loss=loss, tau=0.05), torch.optim.Adam(loss.q_net.parameters(), lr=2e-3)
    for experience in (collector := collect(env, actor, 6_400)):
        replay.extend(experience)
        for _ in range(16):
            sample = replay.sample(64)
            losses = loss(sample)
            optimizer.zero_grad()
            losses["loss_q"].backward()
            optimizer.step()
            target_update.step()
            replay.update_tensordict_priority(sample)
    collector.shutdown()
    assert played(replay) > 100  # a random policy's mean is 22


@pytest.mark.slow
def test_the_torchrl_dqn_loss_learns_cartpole_from_our_prioritized_replay() -> None:
    env = make_env()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    values = TensorDictModule(net, in_keys=["observation"], out_keys=["action_value"])
    actor = TensorDictSequential(values, QValueModule(action_space="categorical"))
    exploring = EGreedyModule(env.full_action_spec, eps_init=0.5, eps_end=0.02, annealing_num_steps=3_000)
    loss = DQNLoss(actor, action_space="categorical", delay_value=True, loss_function="smooth_l1")
    loss.make_value_estimator(gamma=0.99)
    target_update = SoftUpdate(loss, tau=0.05)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    replay = make_replay(env, PrioritizedReplay)
    collector = collect(env, TensorDictSequential(actor, exploring), 6_400, replay_buffer=replay)
    for _ in collector:
        exploring.step(16 * N)
        for _ in range(16):
            sample = replay.sample(64)
            optimizer.zero_grad()
            loss(sample)["loss"].backward()
            optimizer.step()
            target_update.step()
            replay.update_tensordict_priority(sample)
    collector.shutdown()
    assert played(replay) > 100


@pytest.mark.parametrize("extend", [True, False])
def test_a_torchrl_collector_writes_every_step_into_our_replay(extend: bool) -> None:
    """With ``extend_buffer`` the collector calls ``extend`` with all steps, without it ``add`` with each."""
    env = make_env()
    actor, _ = make_parts(env)
    replay = make_replay(env, UniformReplay)
    for _ in (collector := collect(env, actor, 320, replay_buffer=replay, extend_buffer=extend)):
        pass
    collector.shutdown()
    assert (len(replay), replay.write_count) == (320, 320)
    observation, following = replay[:]["observation"][N:], replay[:]["next"][:-N]
    follows = (observation == following["observation"]).all(-1)
    assert torch.equal(follows, ~following["done"].squeeze(-1))
