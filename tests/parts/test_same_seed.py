"""Runs with the same seed are the same in everything but the time they take."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sqn_rl import Agent, AtariRamEnv, BatchedEnv, EnvPoolEnv, GymEnv, Plan, Reporter, evaluate, train


def cartpole(seed: int) -> BatchedEnv:
    return GymEnv(id="CartPole-v1", num_envs=3, seed=seed)


def pong(seed: int) -> BatchedEnv:
    learning = {"sticky_actions": 0.25, "frame_skip": 4, "clip_reward": True, "life_loss": False}
    return AtariRamEnv(game="pong", max_frames=160, num_envs=2, workers=2, seed=seed, **learning)


def pool(seed: int) -> BatchedEnv:
    pytest.importorskip("envpool")
    fixed = {"keys": [], "frame_stack": 1, "clip_reward": False, "threads": 2, "num_envs": 3}
    return EnvPoolEnv(id="CartPole-v1", seed=seed, **fixed)


class Rows(Reporter):
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def metrics(self, row: dict[str, Any]) -> None:
        self.rows.append(row | {"wall_s": None})

    def episode(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    evaluation = episode


@pytest.mark.parametrize("make_env", [cartpole, pong, pool])
def test_runs_with_the_same_seed_are_the_same(
    make_env: Callable[[int], BatchedEnv], make_agent: Callable[..., Agent]
) -> None:
    def run(seed: int) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
        env, reporter = make_env(seed), Rows()
        agent = make_agent(env, seed=seed)
        plan = Plan(steps=300, warmup_steps=60, update_ratio=0.5, batch_size=16, seed=seed, log_every=25)

        def games() -> Any:
            return evaluate(agent.actor, make_env(seed), episodes=2, greedy=False, seed=seed)

        train(agent, env, plan, evaluate=games, reporters=[reporter])
        return reporter.rows, agent.loss.state_dict()

    rows, weights = run(seed=0)
    torch.rand(7)  # the global generator may be in any state
    again, same_weights = run(seed=0)
    assert again == rows
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert len(rows) > 10
    assert run(seed=1)[0] != rows
