"""Our Adam against PyTorch's, to the last bit."""

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from sqn_rl import Adam

SETTINGS = {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}
ours, theirs = Adam, partial(torch.optim.Adam, fused=True)


def make(kind: Any) -> tuple[list[Tensor], torch.optim.Optimizer]:
    parameters = [torch.linspace(-1, 1, n).requires_grad_() for n in (1, 5, 40)]
    optimizer = kind([{"params": parameters[:2]}], lr=0.1, **SETTINGS)
    optimizer.add_param_group({"params": parameters[2:], "lr": 0.01})
    return parameters, optimizer


def step(
    parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, t: int, spare: int | None = None
) -> None:
    rng = torch.Generator().manual_seed(t)
    for i, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=rng)
        parameter.grad = None if i == spare else gradient
    optimizer.step()


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert all(map(torch.equal, one, other))


def test_every_step_is_equal_to_pytorchs_fused_adam() -> None:
    mine, its = make(ours), make(theirs)
    for t in range(5):
        step(*mine, t)
        step(*its, t)
        assert_same(mine[0], its[0])


@pytest.mark.parametrize("spare", [0, 2])
def test_a_parameter_without_a_gradient_is_treated_as_by_pytorch(spare: int) -> None:
    mine, its = make(ours), make(theirs)
    for t, without in enumerate([None, spare, None]):
        step(*mine, t, without)
        step(*its, t, without)
        assert_same(mine[0], its[0])


def test_adam_resumes_from_pytorchs_state_dict_even_after_a_step() -> None:
    (parameters, optimizer), its = make(ours), make(theirs)
    for t in range(3):
        step(*its, t)
    step(parameters, optimizer, 9)
    with torch.no_grad():
        for own, other in zip(parameters, its[0], strict=True):
            own.copy_(other)
    optimizer.load_state_dict(deepcopy(its[1].state_dict()))
    for t in range(3, 6):
        step(parameters, optimizer, t)
        step(*its, t)
    assert_same(parameters, its[0])


def test_a_changed_learning_rate_takes_effect_as_in_pytorch() -> None:
    mine, its = make(ours), make(theirs)
    for t, lr in enumerate([0.1, 0.2]):
        for parameters, optimizer in (mine, its):
            optimizer.param_groups[0]["lr"] = lr
            step(parameters, optimizer, t)
    assert_same(mine[0], its[0])


def test_every_step_hook_is_called_once_per_step() -> None:
    torch.optim.Adam([torch.zeros(1)])  # from now on every step of PyTorch's Adam calls the hooks
    parameters, optimizer = make(ours)
    called: list[str] = []
    hooks = [
        optimizer.register_step_pre_hook(lambda *_: called.append("before")),
        register_optimizer_step_pre_hook(lambda *_: called.append("before any")),
        optimizer.register_step_post_hook(lambda *_: called.append("after")),
        register_optimizer_step_post_hook(lambda *_: called.append("after any")),
    ]
    its = make(theirs)
    for t in range(3):
        called.clear()
        step(parameters, optimizer, t)
        assert called == ["before any", "before", "after", "after any"]
        step(*its, t)
        assert_same(parameters, its[0])
    for hook in hooks:
        hook.remove()
    called.clear()
    step(parameters, optimizer, 3)
    assert called == []


def test_pytorchs_adam_resumes_from_our_state_dict() -> None:
    """Though ours keeps all step counts in one tensor."""
    (parameters, optimizer), its = make(ours), make(theirs)
    for t in range(3):
        step(parameters, optimizer, t)
    with torch.no_grad():
        for own, other in zip(its[0], parameters, strict=True):
            own.copy_(other)
    its[1].load_state_dict(deepcopy(optimizer.state_dict()))
    for t in range(3, 6):
        step(parameters, optimizer, t)
        step(*its, t)
    assert_same(parameters, its[0])


def test_a_deep_copy_is_independent_of_the_original() -> None:
    (parameters, optimizer), its = make(ours), make(theirs)
    for t in range(2):
        step(parameters, optimizer, t)
        step(*its, t)
    copied, copy = deepcopy((parameters, optimizer))
    step(parameters, optimizer, 5)
    for t in range(2, 4):
        step(copied, copy, t)
        step(*its, t)
    assert_same(copied, its[0])
