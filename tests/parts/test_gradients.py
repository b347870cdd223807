"""The compiled update is the plain one: the same losses and gradients, of every kind of loss and head."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sqn_rl import Agent
from sqn_rl.data import Batch
from sqn_rl.gradients import Gradients

MakeAgent = Callable[..., Agent]


def both(agent: Agent, batch: Batch) -> list[list[Tensor]]:
    """What plain and compiled make of a batch, from one state of the loss's generator."""
    results = []
    for compute in (agent.plain, agent.compiled):
        agent.loss.generator.manual_seed(7)
        terms, gradients, norm = compute(batch)
        assert not any(loss.requires_grad for loss in terms.losses.values())
        results.append([*terms.losses.values(), terms.td_error, terms.q, *gradients, norm])
    return results


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [("sqn_rainbow", []), ("discrete_sac", ["head=quantile", "temperature=annealed"])],
)
def test_compiled_is_the_same_within_rounding(
    recipe: str, overrides: list[str], make_played_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    agent = make_played_agent(recipe, *overrides)
    parameters = [each for each in agent.loss.parameters() if each.requires_grad]
    agent.plain = Gradients(agent.loss, parameters, compiled=False)
    agent.compiled = Gradients(agent.loss, parameters, compiled=True)
    for env_steps in (0, 10_000):  # other noise, weights and target entropy than it was compiled with
        agent.anneal(env_steps)
        agent.loss.gamma = 0.99 - env_steps / 100_000  # a number that a part of somebody's may change
        plain, compiled = both(agent, agent.replay.draw(8))
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
        agent.update(agent.replay.draw(8))
    assert "cannot be compiled" not in caplog.text


def test_what_cannot_be_compiled_is_computed_as_it_is(
    make_played_agent: MakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    """Line 11 as printed draws inside the loss."""
    agent = make_played_agent("sqn", "loss.backup=sampled")
    parameters = [each for each in agent.loss.parameters() if each.requires_grad]
    agent.plain = Gradients(agent.loss, parameters, compiled=False)
    agent.compiled = Gradients(agent.loss, parameters, compiled=True)
    with caplog.at_level(logging.WARNING):
        plain, compiled = both(agent, agent.replay.draw(8))
    assert all(map(torch.equal, plain, compiled))
    assert "cannot be compiled" in caplog.text
