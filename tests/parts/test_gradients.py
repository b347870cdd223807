"""The compiled update is the plain one: the same losses and gradients, of every kind of loss and head."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sqn_rl import Agent, SQNLoss
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.training.update.gradients import Gradients
from sqn_rl.types import Batch, Terms

MakeAgent = Callable[..., Agent]


def both(agent: Agent, batch: Batch) -> list[list[Tensor]]:
    """What plain and compiled make of a batch, from one state of the loss's generator."""
    results = []
    for compute in (agent.plain, agent.fast):
        agent.loss.generator.manual_seed(7)
        terms, gradients, numbers = compute(batch)
        assert not any(loss.requires_grad for loss in terms.losses.values())
        results.append([*terms.losses.values(), terms.td_error, terms.q, *gradients, numbers])
    return results


def some_allowed(batch: Batch) -> Batch:
    """The batch with masks that allow the actions taken, and in half of the states both."""
    both_B1 = torch.arange(8).unsqueeze(1) % 2 == 0
    taken_BA = torch.nn.functional.one_hot(batch.action, 2) == 1
    return batch._replace(action_mask=taken_BA | both_B1, next_action_mask=~taken_BA | both_B1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("recipe", "overrides", "drawn"),
    [
        ("sqn_rainbow", [], lambda batch: batch),
        ("discrete_sac", ["head=quantile", "temperature=annealed"], some_allowed),
        ("sqn", ["loss.backup=sampled", "precision=bf16"], lambda batch: batch),
    ],
    ids=["rainbow", "masked discrete_sac", "sqn in bf16"],
)
def test_compiled_is_the_same_within_rounding(
    recipe: str,
    overrides: list[str],
    drawn: Callable[[Batch], Batch],
    make_played_agent: MakeAgent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = make_played_agent(recipe, *overrides)
    parameters = [each for each in agent.loss.parameters() if each.requires_grad]
    agent.plain = Gradients(agent.loss, parameters, compiled=False)
    agent.fast = Gradients(agent.loss, parameters, compiled=True)
    for env_steps in (0, 10_000):  # other noise, weights and target entropy than it was compiled with
        agent.anneal(env_steps)
        agent.loss.gamma = 0.99 - env_steps / 100_000  # a number that a part of somebody's may change
        plain, compiled = both(agent, drawn(agent.replay.draw(8)))
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
        agent.update(drawn(agent.replay.draw(8)))
    assert "cannot be compiled" not in caplog.text


class Reads(TorchDispatchMode):
    """Operations for which a processor waits for a GPU: ``.item()``, ``if tensor:``, a mask as an index."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in {"_local_scalar_dense", "nonzero", "masked_select"}:
            self.found.append(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("sqn", []),
        ("sqn_best", ["layers=noisy"]),
        ("sqn_rainbow", ["head=quantile"]),
        ("discrete_sac", ["temperature=annealed"]),
        ("munchausen_dqn", []),
        ("rainbow", []),
    ],
    ids=str,
)
def test_an_update_reads_its_numbers_together(
    recipe: str, overrides: list[str], make_played_agent: MakeAgent
) -> None:
    """Nothing is read one by one: on a GPU each reading waits for all that was computed before."""
    agent = make_played_agent(recipe, *overrides)
    batch = agent.replay.draw(8)
    agent.update(batch)
    with Reads() as reads:
        agent.update(batch)
    assert not reads.found


def unrolled(self: SQNLoss, batch: Batch) -> Terms:
    print(batch.reward.max().item())  # which PyTorch does not compile
    return TDLoss.terms(self, batch)


class Minimal:
    """A loss that answers its contract, and no more."""

    def __init__(self, loss: SQNLoss) -> None:
        self.compute, self.parameters, self.generator = loss.compute, loss.parameters, loss.generator


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("unrolled", "Failed to trace builtin operator"), ("minimal", "no `redraw` and `terms`")],
)
def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(
    kind: str,
    reason: str,
    make_played_agent: MakeAgent,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = make_played_agent("sqn")
    if kind == "minimal":
        agent.loss = Minimal(agent.loss)
    else:
        monkeypatch.setattr(SQNLoss, "terms", unrolled)
    parameters = [each for each in agent.loss.parameters() if each.requires_grad]
    with caplog.at_level(logging.WARNING):
        agent.plain = Gradients(agent.loss, parameters, compiled=False)
        agent.fast = Gradients(agent.loss, parameters, compiled=True)
        plain, fast = both(agent, agent.replay.draw(8))
    assert all(map(torch.equal, plain, fast))
    assert "the update cannot be compiled" in caplog.text
    assert reason in caplog.text
    assert not agent.fast.compiled
    assert not agent.fast.compiles
