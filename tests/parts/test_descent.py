"""The compiled step equals the plain one: of the parameters, of α, and of the target networks."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from sqn_rl import Agent
from sqn_rl.training.update.descent import Descent

MakeAgent = Callable[..., Agent]
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)


class Walk:
    """An agent that is stepped by made-up gradients; its weights and moments."""

    def __init__(self, agent: Agent, *, compiled: bool) -> None:
        self.agent = agent
        self.learned = [each for group in agent.optimizer.param_groups for each in group["params"]]
        parts = self.learned, agent.optimizer, agent.temperature, agent.target_update
        self.descent = Descent(*parts, compiled=compiled)

    def go(self, number: int, without: int | None = None) -> None:
        """One step by gradients that depend on the number; one parameter may have none."""
        rng = torch.Generator().manual_seed(number)
        gradients = [torch.randn(each.shape, generator=rng) for each in self.learned]
        self.descent([None if i == without else each for i, each in enumerate(gradients)])

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.agent.loss.state_dict()

    @property
    def moments(self) -> dict[int, dict[str, Tensor]]:
        return self.agent.optimizer.state_dict()["state"]


@pytest.fixture
def both(make_played_agent: MakeAgent) -> Callable[..., tuple[Walk, Walk]]:
    def make(recipe: str, *overrides: str) -> tuple[Walk, Walk]:
        walks = []
        for compiled in (False, True):
            torch.manual_seed(0)
            walks.append(Walk(make_played_agent(recipe, *overrides), compiled=compiled))
        return walks[0], walks[1]

    return make


def assert_same(plain: Walk, compiled: Walk) -> None:
    for name in ("weights", "moments"):
        torch.testing.assert_close(getattr(compiled, name), getattr(plain, name), rtol=1e-5, atol=1e-7)


def ungraded(parameters: Sequence[Tensor]) -> bool:
    """Whether no gradient has been written to the parameters; PyTorch's step needs it there."""
    return all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("sqn", []),
        ("sqn_noisy", ["optimizer.weight_decay=0.1", "optimizer.betas=[0.5,0.9]"]),  # α in its own group
        ("sqn", ["temperature.optimise=alpha", "temperature.maximum=0.11", "target_update=periodic"]),
        ("dqn", ["target_update=periodic", "target_update.every=2"]),
    ],
)
def test_the_compiled_step_equals_the_plain_one_within_rounding(
    recipe: str,
    overrides: list[str],
    both: Callable[..., tuple[Walk, Walk]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain, compiled = both(recipe, *overrides)
    assert compiled.descent.compiles
    assert not plain.descent.compiles
    for number in range(4):
        for walk in (plain, compiled):
            walk.go(number)
        assert_same(plain, compiled)
        assert not compiled.descent.compiles
    assert ungraded(compiled.learned)
    assert not ungraded(plain.learned)
    assert "cannot be compiled" not in caplog.text


def test_a_changed_learning_rate_takes_effect_without_recompiling(
    both: Callable[..., tuple[Walk, Walk]],
) -> None:
    plain, compiled = both("sqn")
    for number, lr in enumerate((1e-3, 1e-2, 1e-4)):
        for walk in (plain, compiled):
            walk.agent.optimizer.param_groups[0]["lr"] = lr
            walk.go(number)
        assert_same(plain, compiled)
    assert len(compiled.descent._compiled._variants) == 1


def test_the_compiled_step_resumes_from_a_plain_agents_state(both: Callable[..., tuple[Walk, Walk]]) -> None:
    plain, compiled = both("sqn")
    for number in range(3):
        plain.go(number)
    compiled.go(9)
    compiled.agent.load_state_dict(deepcopy(plain.agent.state_dict()))
    for number in range(3, 6):
        for walk in (plain, compiled):
            walk.go(number)
    assert_same(plain, compiled)
    assert ungraded(compiled.learned)


@pytest.mark.parametrize("without", [(None, 1, None, None), (1, 1, None), (1, 2)], ids=str)
def test_a_parameter_without_a_gradient_keeps_its_value_and_step_count(
    both: Callable[..., tuple[Walk, Walk]], without: Sequence[int | None]
) -> None:
    """As in PyTorch, whose step the plain one is; the step counts are among the moments."""
    plain, compiled = both("sqn")
    for number, which in enumerate(without):
        before = compiled.learned[1].detach().clone()
        for walk in (plain, compiled):
            walk.go(number, which)
        assert torch.equal(compiled.learned[1], before) == (which == 1)
        assert_same(plain, compiled)


def test_step_hooks_are_called_before_and_after_compiling(both: Callable[..., tuple[Walk, Walk]]) -> None:
    plain, compiled = both("sqn")
    optimizer, seen = compiled.agent.optimizer, []
    hook = optimizer.register_step_post_hook(lambda *_: seen.append(ungraded(compiled.learned)))
    assert not compiled.descent.compiles  # or a checkpoint would be written before every step
    for number in range(6):
        if number == 2:
            hook.remove()
            assert compiled.descent.compiles
        if number == 4:
            hook = optimizer.register_step_post_hook(lambda *_: seen.append(ungraded(compiled.learned)))
        if number == 5:
            hook.remove()
        for walk in (plain, compiled):
            walk.go(number)
    assert seen == [False] * 3  # gradients are there
    assert_same(plain, compiled)


def test_parameters_with_different_step_counts_are_stepped_uncompiled(
    both: Callable[..., tuple[Walk, Walk]],
) -> None:
    plain, compiled = both("sqn")
    for number in range(2):
        plain.go(number, without=1)
    compiled.agent.load_state_dict(deepcopy(plain.agent.state_dict()))
    assert not compiled.descent.compiles
    for number in range(2, 4):
        for walk in (plain, compiled):
            walk.go(number)
    assert_same(plain, compiled)


def test_a_step_that_cannot_be_compiled_is_taken_by_the_optimizer_and_reported(
    both: Callable[..., tuple[Walk, Walk]], caplog: pytest.LogCaptureFixture
) -> None:
    plain, compiled = both("sqn")
    compiled.descent._joined.append(torch._dynamo.graph_break)
    for number in range(2):
        for walk in (plain, compiled):
            walk.go(number)
    assert_same(plain, compiled)
    assert "compile: the optimizer's step cannot be compiled" in caplog.text
