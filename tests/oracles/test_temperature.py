"""The temperature's step (lines 15 and 16), worked by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sqn_rl.parts.temperature.annealed import AnnealedTemperature
from sqn_rl.parts.temperature.fixed import FixedTemperature
from sqn_rl.parts.temperature.learned import LearnedTemperature

LIMITS = {"lr": 1e-2, "minimum": 1e-3, "maximum": 1e3, "optimise": "log_alpha", "n_actions": 3}


def learned(**settings: Any) -> LearnedTemperature:
    defaults = {"initial": 2.0, "target_entropy": 0.25, "target_entropy_fraction": None}
    return LearnedTemperature(**LIMITS | defaults | settings)


def descend(temperature: LearnedTemperature | AnnealedTemperature, entropy_B: Tensor, lr: float) -> float:
    """One descent step on L_α; returns the new α."""
    optimizer = torch.optim.SGD(temperature.parameters(), lr=lr)
    temperature.loss(entropy_B).backward()
    optimizer.step()
    temperature.refresh()
    return temperature.alpha.item()


@pytest.mark.parametrize(
    ("optimise", "wanted"),
    [
        # L = α (H − H̄) = α (1 − 1/4): d/d log α = 3/2 at α = 2, so log α falls by .15
        ("log_alpha", 2 * math.exp(-0.15)),
        # d/dα = 3/4: α falls by .075
        ("alpha", 1.925),
    ],
)
def test_alpha_step_worked_by_hand(optimise: str, wanted: float) -> None:
    temperature = learned(optimise=optimise)
    assert descend(temperature, torch.tensor([0.5, 1.5]), lr=0.1) == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("optimise", ["log_alpha", "alpha"])
def test_alpha_is_clamped_after_the_step(optimise: str) -> None:
    settings = {"initial": 0.75, "minimum": 0.5, "maximum": 1.0, "optimise": optimise}
    certain, uniform = torch.zeros(1), torch.full((1,), math.log(3))
    assert descend(learned(**settings), uniform, lr=100) == pytest.approx(0.5, rel=1e-14)
    temperature = learned(**settings)
    assert descend(temperature, certain, lr=100) == pytest.approx(1.0, rel=1e-14)
    # the parameter was clamped, not only what is read: from the limit one small step is a small step
    temperature.zero_grad()
    assert 0.9 < descend(temperature, uniform, lr=1e-2) < 1.0


def test_target_entropy_in_nats_or_as_a_fraction_of_log_a() -> None:
    assert learned(target_entropy=0.25).target_entropy == 0.25
    fraction = learned(target_entropy=None, target_entropy_fraction=0.5)
    assert fraction.target_entropy == pytest.approx(0.5 * math.log(3), rel=1e-15)


def test_annealed_target_entropy_falls_linearly_and_alpha_follows() -> None:
    schedule = {"start": 1.0, "end": 0.2, "over": 0.5, "steps": 1000}
    temperature = AnnealedTemperature(initial=2.0, **LIMITS | schedule | {"optimise": "alpha"})
    for env_steps, wanted in [(0, 1.0), (250, 0.6), (500, 0.2), (1000, 0.2)]:  # done after half of 1000 steps
        temperature.anneal(env_steps)
        assert temperature.target_entropy == pytest.approx(wanted, rel=1e-14)
    # L = α (0.7 − 0.2): α falls by .05
    assert descend(temperature, torch.tensor([0.7]), lr=0.1) == pytest.approx(1.95, rel=1e-14)


def test_a_fixed_temperature_does_not_change() -> None:
    temperature = FixedTemperature(alpha=0.3)
    assert temperature.loss(torch.tensor([1.0])).item() == 0
    temperature.refresh()
    assert temperature.alpha.item() == 0.3
    assert not list(temperature.parameters())


@pytest.mark.parametrize(("entropy", "bound"), [(0.0, "maximum, 4"), (1.0, "minimum, 0.5")])
def test_a_bound_that_is_reached_is_reported(entropy: float, bound: str) -> None:
    temperature = learned(minimum=0.5, maximum=4.0)
    assert temperature.advice() is None
    descend(temperature, torch.tensor([entropy]), lr=100)
    assert f"α has reached its {bound}" in temperature.advice()
