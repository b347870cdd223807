"""The batches of several updates are those that were drawn one by one."""

import pytest
import torch

from sqn_rl import compose
from sqn_rl.agent import AGENT_PARTS, TOGETHER, Agent
from sqn_rl.data import Batch

TIMES, B = TOGETHER + 3, 5


def make(*overrides: str) -> Agent:
    """An agent that has seen 30 steps of two environments."""
    task = ["env=cartpole", "hidden=[8]", "num_envs=2", "replay_capacity=40", *overrides]
    parts = compose("sqn", *task).recipe.build()
    agent, env = Agent(**{name: parts[name] for name in AGENT_PARTS}), parts["env"]
    observation, rng = env.begin(), torch.Generator().manual_seed(0)
    agent.replay.cut()
    for _ in range(30):
        action = torch.randint(2, (2,), generator=rng)
        step = env.advance(action)
        agent.replay.store(observation, action, step)
        observation = step.observation
    return agent


def learn(agent: Agent, together: bool) -> list[Batch]:
    """The batches of some updates, and of one more."""
    batches = []
    draws = agent.draw(B, TIMES) if together else (agent.replay.draw(B) for _ in range(TIMES))
    for batch in draws:
        batches.append(batch)
        agent.update(batch)
    return [*batches, *agent.draw(B, 1)]


@pytest.mark.parametrize(
    ("overrides", "calls"),
    [
        ([], 3),
        (["returns=n_step"], 3),
        (["returns=n_step", "returns.soft=true"], TIMES + 1),
        (["replay=prioritized"], TIMES + 1),
    ],
    ids=str,
)
def test_draws_are_what_they_are_one_by_one(
    overrides: list[str], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one, agent, sizes = learn(make(*overrides), together=False), make(*overrides), list[int]()
    draw = agent.replay.draw
    monkeypatch.setattr(agent.replay, "draw", lambda size: sizes.append(size) or draw(size))
    together = learn(agent, together=True)
    assert sum(sizes) == (TIMES + 1) * B
    assert len(sizes) == calls
    for one, other in zip(one_by_one, together, strict=True):
        assert (one.weight is None) == (other.weight is None)
        for column, its in zip(one, other, strict=True):
            assert column is its is None or torch.equal(column, its)
