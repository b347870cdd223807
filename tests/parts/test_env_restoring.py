"""Environments and states that cannot be restored are refused. Restoring is in ``test_env_continuity``."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from sqn_rl import AtariEnv, BatchedEnv, GymEnv, RestoreError, Step


class Moody(gymnasium.Env):
    """Its observations are drawn from a generator that no seed reaches."""

    observation_space, action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(2)
    draw = np.random.default_rng(0).random

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        return self.draw(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.draw(2, np.float32), 0.0, False, False, {}


gymnasium.register("restoring/Moody-v0", Moody, max_episode_steps=5)


class Counting(BatchedEnv):
    """A user's batched environment; its observation is the number of its steps."""

    def __init__(self) -> None:
        sizes = {"observation_shape": (1,), "observation_dtype": torch.float32, "frame_skip": 1}
        super().__init__(name="counting", n_actions=2, **sizes, num_envs=2, seed=0)
        self.asked = 0

    def restart(self, rows: Sequence[int]) -> Tensor:
        return torch.zeros(len(rows), 1)

    def advance(self, action_N: Tensor) -> Step:
        self.asked += 1
        seen, no = torch.full((2, 1), float(self.asked)), torch.zeros(2, dtype=torch.bool)
        return Step(seen, seen, torch.zeros(2), no, no, no, torch.zeros(2))


def play(env: BatchedEnv, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        env.send(torch.randint(env.n_actions, (env.num_envs,), generator=generator))
        step = env.receive()
    return step.observation


def cartpole(**settings: Any) -> GymEnv:
    return GymEnv(**{"id": "CartPole-v1", "num_envs": 2, "seed": 0, **settings})


def test_a_custom_batched_env_plays_but_refuses_to_save_and_restore() -> None:
    env = Counting()
    env.begin()
    assert play(env, 3).tolist() == [[3.0], [3.0]]
    assert not env.restorable
    with pytest.raises(RestoreError, match="counting: Counting cannot save"):
        env.state_dict()
    with pytest.raises(RestoreError, match="counting: Counting cannot restore"):
        env.load_state_dict({})


def test_a_non_deterministic_game_is_detected_on_restore_and_restarted() -> None:
    env, other = (GymEnv(id="restoring/Moody-v0", num_envs=2, seed=0) for _ in range(2))
    env.begin()
    play(env, 3)
    with pytest.raises(RestoreError, match=r"Moody.*environments 0, 1 did not reach"):
        other.load_state_dict(env.state_dict())
    assert other.begin().shape == play(other, 12).shape == (2, 2)


class Curriculum(gymnasium.Env):
    """Each episode is longer than the one before, which does not show before its end; or pays more."""

    observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, grows: str) -> None:
        self.grows, self.episodes = grows, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.episodes, self.steps = self.episodes + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        length = 5 + (self.episodes if self.grows in ("length", "truncation") else 0)
        reward = float(self.episodes) if self.grows == "reward" else 1.0
        over = self.steps == length
        return np.zeros(1, np.float32), reward, over and self.grows == "length", over, {}


gymnasium.register("restoring/Curriculum-v0", Curriculum)


@pytest.mark.parametrize("steps", [30, 36, 41, 64, 130])
@pytest.mark.parametrize("grows", ["length", "truncation", "reward"])
def test_a_game_that_depends_on_how_many_episodes_came_before_is_detected(grows: str, steps: int) -> None:
    settings = {"id": "restoring/Curriculum-v0", "kwargs": {"grows": grows}, "num_envs": 2, "seed": 0}
    env, other, same = (GymEnv(**settings) for _ in "123")
    env.begin()
    play(env, steps)
    with pytest.raises(RestoreError, match=r"Curriculum.*environments 0, 1 did not reach"):
        other.load_state_dict(env.state_dict())
    assert other.begin().shape == play(other, 12).shape == (2, 1)
    same.begin()
    play(same, steps)
    assert same.state_dict()["answers"] == env.state_dict()["answers"]


def test_an_old_state_without_checksums_is_restored() -> None:
    env, other = cartpole(), cartpole()
    env.begin()
    play(env, 57)
    state = env.state_dict()
    del state["answers"]
    assert torch.equal(other.load_state_dict(state), state["observation"])
    assert torch.equal(play(other, 50), play(env, 50))
    assert other.state_dict()["answers"] == env.state_dict()["answers"]


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda state: {},
    "a key is missing": lambda state: {key: state[key] for key in state if key != "lengths"},
    "other lengths": lambda state: state | {"lengths": [1, 1]},
    "a negative length": lambda state: state | {"lengths": [-1, len(state["actions"]) + 1]},
    "one game": lambda state: state | {"seeds": [1], "lengths": [len(state["actions"])]},
    "text": lambda state: state | {"seeds": ["1", "1"]},
    "no tensor": lambda state: state | {"actions": [0] * len(state["actions"])},
    "other actions": lambda state: state | {"actions": state["actions"] + 1},
    "fractions": lambda state: state | {"actions": state["actions"] / 2},
    "another shape": lambda state: state | {"observation": torch.zeros(2, 5)},
    "another place": lambda state: state | {"observation": torch.zeros(2, 4)},
    "another seed": lambda state: state | {"entropy": 5},
    "other answers": lambda state: state | {"answers": [[0, 1, 2], [0, 1, 2]]},
    "no answers": lambda state: state | {"answers": [1]},
    "never begun": lambda state: cartpole().state_dict(),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_an_invalid_state_is_refused(broken: Callable[[dict[str, Any]], Any]) -> None:
    env, other = cartpole(), cartpole()
    env.begin()
    play(env, 30)
    with pytest.raises(RestoreError, match="CartPole-v1"):
        other.load_state_dict(broken(env.state_dict()))
    assert other.begin().shape == play(other, 30).shape == (2, 4)  # with new games


def test_a_state_keeps_the_actions_of_at_most_two_episodes() -> None:
    env = cartpole(num_envs=1, kwargs={"max_episode_steps": 6})
    env.begin()
    for _ in range(20):
        play(env, 1)
        assert len(env.state_dict()["actions"]) < 12


def test_an_atari_env_with_random_noop_starts_is_restored() -> None:
    settings = {"game": "breakout", "sticky_actions": 0.25, "frame_skip": 8, "frame_stack": 2, "threads": 2}
    settings |= {
        "clip_reward": False,
        "life_loss": False,
        "max_frames": 320,
        "noop_max": 30,
        "fire_reset": True,
    }
    env, other = (AtariEnv(**settings, num_envs=2, seed=seed) for seed in (0, 1))
    env.begin()
    play(env, 55)  # beyond the first time limit
    assert torch.equal(other.load_state_dict(env.state_dict()), env.state_dict()["observation"])
    assert torch.equal(play(other, 50), play(env, 50))
