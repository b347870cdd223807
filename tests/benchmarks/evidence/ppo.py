"""PPO of Stable-Baselines3 on the same environments, with the settings of RL Baselines3 Zoo, evaluated alike.

    python -m tests.benchmarks.evidence.ppo env=acrobot steps=100000 seed=1000 out=runs/ppo

Takes the overrides of ``sqn-run`` that name environment, budget, seed and evaluation, and writes
``summary.json``, ``episodes.jsonl`` and ``evaluations.jsonl`` as it does. Needs the extra ``bench``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor, nn

from sqn_rl import compose, evaluate
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.env.opening import closing_env

Settings = dict[str, Any]

ZOO: dict[str, Settings] = {
    "CartPole-v1": {
        "n_envs": 8,
        "n_steps": 32,
        "batch_size": 256,
        "gae_lambda": 0.8,
        "gamma": 0.98,
        "n_epochs": 20,
        "ent_coef": 0.0,
        "learning_rate": lambda left: 1e-3 * left,
        "clip_range": lambda left: 0.2 * left,
    },
    "Acrobot-v1": {
        "n_envs": 16,
        "n_steps": 256,
        "gae_lambda": 0.94,
        "gamma": 0.99,
        "n_epochs": 4,
        "ent_coef": 0.0,
    },
    "LunarLander-v3": {
        "n_envs": 16,
        "n_steps": 1024,
        "batch_size": 64,
        "gae_lambda": 0.98,
        "gamma": 0.999,
        "n_epochs": 4,
        "ent_coef": 0.01,
    },
}
MINATAR: Settings = {
    "n_envs": 8,
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "ent_coef": 0.01,
    "learning_rate": lambda left: 2.5e-4 * left,
    "clip_range": lambda left: 0.1 * left,
}
"""The zoo's settings for Atari, which has none for MinAtar."""
NORMALISED = ("Acrobot-v1",)
"""Where the zoo normalises observations and rewards."""


class Environments(VecEnv):
    """Our environments as Stable-Baselines3's."""

    def __init__(self, env: BatchedEnv) -> None:
        low, high = (0, 255) if env.observation_dtype == torch.uint8 else (-np.inf, np.inf)
        dtype = np.uint8 if env.observation_dtype == torch.uint8 else np.float32
        space = gymnasium.spaces.Box(low, high, env.observation_shape, dtype)
        super().__init__(env.num_envs, space, gymnasium.spaces.Discrete(env.n_actions))
        self.env, self.render_mode, self.score = env, None, np.zeros(env.num_envs)

    def reset(self) -> np.ndarray:
        """Begin all episodes."""
        return self.env.begin().numpy().copy()

    def step_async(self, actions: np.ndarray) -> None:
        """Send actions."""
        self.env.send(torch.as_tensor(actions))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Receive what happened."""
        step = self.env.receive()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        self.score += step.score.numpy()
        for i in step.ended.nonzero().flatten().tolist():
            infos[i]["terminal_observation"] = step.next_observation[i].numpy().copy()
            infos[i]["TimeLimit.truncated"] = bool(step.truncated[i])
            infos[i]["score"], self.score[i] = self.score[i], 0.0
        return step.observation.numpy().copy(), step.reward.numpy().copy(), step.ended.numpy().copy(), infos

    def close(self) -> None:
        """They are closed by who made them."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same for all."""
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing can be set."""
        raise NotImplementedError

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Nothing can be called."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No."""
        return [False] * self.num_envs


class SmallCnn(BaseFeaturesExtractor):
    """The network of ``encoder=minatar_cnn``: 16 filters of 3 x 3, and 128 units."""

    def __init__(self, observation_space: gymnasium.Space) -> None:
        super().__init__(observation_space, 128)
        channels, height, width = observation_space.shape or ()
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(16 * (height - 2) * (width - 2), 128), nn.ReLU()),
        )

    def forward(self, observation: Tensor) -> Tensor:
        """``[B, C, H, W]`` → ``[B, 128]``."""
        return self.layers(observation.float())


class Episodes(BaseCallback):
    """Keeps the return of every training episode."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        ended = (info["score"] for info in self.locals["infos"] if "score" in info)
        self.rows += [{"env_steps": self.num_timesteps, "return": float(each)} for each in ended]
        return True


class Greedy:
    """A trained PPO as an actor that can be evaluated."""

    device = torch.device("cpu")

    def __init__(self, model: PPO, normalise: VecNormalize | None) -> None:
        self.model, self.normalise = model, normalise

    def act(
        self, observation: Tensor, *, greedy: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """The most probable action."""
        seen = observation.numpy()
        seen = self.normalise.normalize_obs(seen) if self.normalise else seen
        return torch.as_tensor(self.model.predict(seen, deterministic=True)[0])


def train(overrides: list[str]) -> Iterator[tuple[str, Any]]:
    """Train and evaluate; the files to write, and what is in them."""
    recipe = compose("sqn", *overrides).recipe
    run, make_env = recipe.run, recipe.build(last="env")["make_env"]
    name = recipe.fields("env").get("id", "")
    settings = dict(ZOO.get(name, MINATAR))
    n_envs = settings.pop("n_envs")
    with closing_env(make_env(num_envs=n_envs, seed=run.seed, training=True)) as env:
        images = len(env.observation_shape) == 3
        vec = Environments(env)
        wrapped = VecNormalize(vec) if name in NORMALISED else vec
        policy = (
            {"features_extractor_class": SmallCnn, "normalize_images": False, "net_arch": []}
            if images
            else None
        )
        model = PPO(
            "CnnPolicy" if images else "MlpPolicy",
            wrapped,
            seed=run.seed,
            device="cpu",
            policy_kwargs=policy,
            **settings,
        )
        episodes = Episodes()
        model.learn(run.steps, callback=episodes)
    actor = Greedy(model, wrapped if isinstance(wrapped, VecNormalize) else None)
    with closing_env(make_env(num_envs=10, seed=run.seed + 1_000_000, training=False)) as env:
        result = evaluate(actor, env, episodes=run.eval_episodes, greedy=True, seed=run.seed)
    done = {
        "status": "done",
        "env_steps": model.num_timesteps,
        "updates": model._n_updates,
        "episodes": len(episodes.rows),
    }
    yield "episodes.jsonl", episodes.rows
    yield "evaluations.jsonl", [{"env_steps": model.num_timesteps, **result.row()}]
    yield "summary.json", done


def main() -> None:
    """Run the command."""
    torch.set_num_threads(1)
    given = dict(text.split("=", 1) for text in sys.argv[1:] if not text.startswith("resume="))
    out = Path(given.pop("out"))
    out.mkdir(parents=True, exist_ok=True)
    for name, content in train([f"{key}={value}" for key, value in given.items()]):
        rows = content if isinstance(content, list) else [content]
        (out / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
