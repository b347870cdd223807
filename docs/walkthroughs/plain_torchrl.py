"""SQN in a plain TorchRL script: their environment, collector and buffer; our Q-network, actor and loss.

Learns CartPole in under a minute on one core:    python plain_torchrl.py
"""

from collections import deque
from functools import partial

import torch
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymEnv, RewardSum, TransformedEnv
from torchrl.objectives import LossModule

from sqn_rl import MLP, BoltzmannActor, Dense, LearnedTemperature, LinearHead, Polyak, QNet, SQNLoss


def build(seed: int) -> tuple[TransformedEnv, BoltzmannActor, LossModule, Polyak]:
    """Make the environment, and the four parts that learn it."""
    torch.manual_seed(seed)
    env = TransformedEnv(GymEnv("CartPole-v1", categorical_action_encoding=True), RewardSum())
    env.set_seed(seed)
    n_actions = env.action_spec.space.n

    q_net = QNet(
        encoder=partial(MLP, hidden=[128, 128]),
        head=LinearHead,
        layer=Dense,
        observation_shape=env.observation_spec["observation"].shape,
        n_actions=n_actions,
        members=2,
        shared_encoder=False,
    )
    temperature = LearnedTemperature(
        initial=1.0,
        target_entropy=0.1,
        target_entropy_fraction=None,
        lr=2e-3,
        minimum=1e-3,
        maximum=10.0,
        optimise="log_alpha",
        n_actions=n_actions,
    )
    actor = BoltzmannActor(q_net=q_net, temperature=temperature, policy="mean", seed=seed)
    loss = SQNLoss(
        q_net=q_net,
        temperature=temperature,
        gamma=0.99,
        backup="expected_mean",
        policy_source="target_mean",
        backup_entropy=True,
        seed=seed,
    )
    return env, actor, loss, Polyak(loss=loss, tau=0.05)


def learn(steps: int = 9_600, seed: int = 0) -> float:
    """Train, and return the mean return of the last 20 training episodes."""
    env, actor, loss, target_update = build(seed)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(steps), batch_size=64)
    optimizer = torch.optim.Adam(loss.parameters(), lr=2e-3)
    returns: deque[float] = deque(maxlen=20)

    collector = Collector(
        env, actor, frames_per_batch=32, total_frames=steps, auto_register_policy_transforms=False
    )
    for experience in collector:
        ended = experience["next", "done"].squeeze(-1)
        returns.extend(experience["next", "episode_reward"][ended].flatten().tolist())
        buffer.extend(experience)
        for _ in range(16):  # one update per two environment steps
            losses = loss(buffer.sample())
            optimizer.zero_grad()
            (losses["loss_q"] + losses["loss_alpha"]).backward()
            optimizer.step()
            loss.temperature.refresh()
            target_update.step()
    collector.shutdown()
    return sum(returns) / len(returns)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"mean return of the last 20 episodes: {learn():.0f}")
