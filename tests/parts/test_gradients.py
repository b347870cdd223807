"""The compiled update equals the plain one: same losses and gradients, for every kind of loss and head."""

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


def compute_both(agent: Agent, batch: Batch) -> list[list[Tensor]]:
    """Results of ``agent.plain`` and ``agent.fast`` for a batch, from one state of the loss's generator."""
    results = []
    for compute in (agent.plain, agent.fast):
        agent.loss.generator.manual_seed(7)
        terms, gradients, numbers = compute(batch)
        assert not any(loss.requires_grad for loss in terms.losses.values())
        results.append([*terms.losses.values(), terms.td_error, terms.q, *gradients, numbers])
    return results


def with_action_masks(batch: Batch) -> Batch:
    """The batch with masks that allow the actions taken, and in half of the states both actions."""
    both_B1 = torch.arange(8).unsqueeze(1) % 2 == 0
    taken_BA = torch.nn.functional.one_hot(batch.action, 2) == 1
    return batch._replace(action_mask=taken_BA | both_B1, next_action_mask=~taken_BA | both_B1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("recipe", "overrides", "drawn"),
    [
        ("sqn_rainbow", [], lambda batch: batch),
        ("discrete_sac", ["head=quantile", "temperature=annealed"], with_action_masks),
        ("sqn", ["loss.backup=sampled", "precision=bf16"], lambda batch: batch),
    ],
    ids=["rainbow", "masked discrete_sac", "sqn in bf16"],
)
def test_compiled_losses_and_gradients_equal_the_plain_ones_within_rounding(
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
        agent.loss.gamma = 0.99 - env_steps / 100_000  # a number that a user's part may change
        plain, compiled = compute_both(agent, drawn(agent.replay.draw(8)))
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
        agent.update(drawn(agent.replay.draw(8)))
    assert "cannot be compiled" not in caplog.text


class Reads(TorchDispatchMode):
    """Records operations that make the CPU wait for a GPU: ``.item()``, ``if tensor:``, a mask as index."""

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
def test_an_update_does_not_read_numbers_one_by_one(
    recipe: str, overrides: list[str], make_played_agent: MakeAgent
) -> None:
    """On a GPU each read of a number waits for everything computed before."""
    agent = make_played_agent(recipe, *overrides)
    batch = agent.replay.draw(8)
    agent.update(batch)
    with Reads() as reads:
        agent.update(batch)
    assert not reads.found


def unrolled(self: SQNLoss, batch: Batch) -> Terms:
    print(batch.reward.max().item())  # PyTorch cannot compile this
    return TDLoss.terms(self, batch)


class Minimal:
    """A loss with the required methods and no others."""

    def __init__(self, loss: SQNLoss) -> None:
        self.compute, self.parameters, self.generator = loss.compute, loss.parameters, loss.generator


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("unrolled", "Failed to trace builtin operator"), ("minimal", "no `redraw` and `terms`")],
)
def test_a_loss_that_cannot_be_compiled_runs_uncompiled_with_a_warning(
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
        plain, fast = compute_both(agent, agent.replay.draw(8))
    assert all(map(torch.equal, plain, fast))
    assert "the update cannot be compiled" in caplog.text
    assert reason in caplog.text
    assert not agent.fast.compiled
    assert not agent.fast.compiles
