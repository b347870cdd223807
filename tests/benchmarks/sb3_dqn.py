"""Stable-Baselines3's DQN at the works of the table."""

from typing import Any

import ale_py
import gymnasium
import numpy as np
from race import Baton
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack
from torch import Tensor, nn

gymnasium.register_envs(ale_py)


class Turns(BaseCallback):
    """Decides at each step of its environments whether to continue."""

    def __init__(self, baton: Baton) -> None:
        super().__init__()
        self.baton = baton

    def _on_step(self) -> bool:
        self.baton.returns.extend(info["episode"]["r"] for info in self.locals["infos"] if "episode" in info)
        return self.baton.tick(self.num_timesteps)


def cartpole(baton: Baton) -> None:
    """One environment, an update a step, batch 128, an MLP of 120 and 84."""
    learn(
        baton,
        DQN(
            "MlpPolicy",
            make_vec_env("CartPole-v1"),
            learning_rate=2e-3,
            buffer_size=50_000,
            batch_size=128,
            train_freq=1,
            target_update_interval=100,
            policy_kwargs={"net_arch": [120, 84]},
            **COMMON,
        ),
    )


def pong_ram(baton: Baton) -> None:
    """8 environments, two updates for each of their steps, batch 64, an MLP of 400 and 300."""
    env = make_vec_env("ALE/Pong-v5", n_envs=8, env_kwargs={"obs_type": "ram"})
    learn(
        baton,
        DQN(
            "MlpPolicy",
            env,
            buffer_size=100_000,
            batch_size=64,
            train_freq=1,
            gradient_steps=2,
            policy_kwargs={"net_arch": [400, 300]},
            **COMMON,
        ),
    )


class Images(gymnasium.ObservationWrapper):
    """Channels first, as Stable-Baselines3 has images; of numbers, not of bytes."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        height, width, channels = env.observation_space.shape
        self.observation_space = gymnasium.spaces.Box(0, 1, (channels, height, width), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Of an observation of MinAtar."""
        return observation.transpose(2, 0, 1).astype(np.float32)


class SmallCnn(BaseFeaturesExtractor):
    """16 filters of 3 x 3, and 128 units."""

    def __init__(self, observation_space: gymnasium.Space) -> None:
        super().__init__(observation_space, 128)
        convolution = nn.Conv2d(observation_space.shape[0], 16, 3)
        self.layers = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU())

    def forward(self, observation: Tensor) -> Tensor:
        """``[B, C, 10, 10]`` → ``[B, 128]``."""
        return self.layers(observation)


def minatar(baton: Baton) -> None:
    """8 environments, two updates for each of their steps, batch 32, MinAtar's network."""
    from minatar.gym import BaseEnv

    def make() -> gymnasium.Env:
        return Images(BaseEnv("breakout", sticky_action_prob=0.1))

    policy = {"features_extractor_class": SmallCnn, "net_arch": []}
    sizes = {"buffer_size": 100_000, "batch_size": 32, "learning_rate": 2.5e-4}
    env = make_vec_env(make, n_envs=8)
    model = DQN("CnnPolicy", env, train_freq=1, gradient_steps=2, policy_kwargs=policy, **sizes, **COMMON)
    learn(baton, model)


def pong_pixels(baton: Baton) -> None:
    """8 environments, two updates for each of their steps, batch 32, the Nature network."""
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=8), 4)
    learn(
        baton,
        DQN("CnnPolicy", env, buffer_size=10_000, batch_size=32, train_freq=1, gradient_steps=2, **COMMON),
    )


COMMON: dict[str, Any] = {"learning_starts": 128, "seed": 0, "device": "cpu"}
"""The device may be another: see ``contenders.sb3``."""


def learn(baton: Baton, model: DQN) -> None:
    """Train until the race is over."""
    model.learn(baton.steps + baton.leg, callback=Turns(baton), log_interval=None)
