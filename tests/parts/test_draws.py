"""Batches that are drawn together for several updates equal batches that are drawn one by one."""

from collections.abc import Callable

import pytest
import torch

from sqn_rl.training.agent import MAX_BATCHES_AT_ONCE, Agent
from sqn_rl.types import Batch

TIMES, B = MAX_BATCHES_AT_ONCE + 3, 5


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
def test_batches_drawn_together_equal_batches_drawn_one_by_one(
    overrides: list[str],
    calls: int,
    make_played_agent: Callable[..., Agent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_by_one = learn(make_played_agent("sqn", *overrides), together=False)
    agent, sizes = make_played_agent("sqn", *overrides), list[int]()
    draw = agent.replay.draw
    monkeypatch.setattr(agent.replay, "draw", lambda size: sizes.append(size) or draw(size))
    together = learn(agent, together=True)
    assert sum(sizes) == (TIMES + 1) * B
    assert len(sizes) == calls
    for one, other in zip(one_by_one, together, strict=True):
        assert (one.weight is None) == (other.weight is None)
        for column, its in zip(one, other, strict=True):
            assert column is its is None or torch.equal(column, its)
