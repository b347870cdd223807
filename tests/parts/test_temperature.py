"""The temperature: dual descent compared with steps by hand, clamping, and the target entropy."""

import math

import pytest
import torch

from sqn_rl import AnnealedTemperature, FixedTemperature, SettingError
from sqn_rl.parts.temperature.base import Temperature

H = torch.tensor([0.2, 0.6])  # mean 0.4


def descend(temperature: Temperature, entropy: torch.Tensor, lr: float) -> None:
    optimizer = torch.optim.SGD(temperature.parameters(), lr=lr)
    optimizer.zero_grad()
    temperature.loss(entropy).backward()
    optimizer.step()
    temperature.refresh()


# α = .5, mean H − H̄ = .4 − .1 = .3: L = .15; dL/dα = .3, dL/d log α = α · .3 = .15
@pytest.mark.parametrize(
    ("optimise", "after"), [("alpha", 0.5 - 0.1 * 0.3), ("log_alpha", math.exp(math.log(0.5) - 0.1 * 0.15))]
)
def test_one_step_of_dual_descent_by_hand(make_temperature, optimise: str, after: float) -> None:
    temperature = make_temperature(optimise=optimise, target_entropy=0.1)
    torch.testing.assert_close(temperature.loss(H), torch.tensor(0.15))
    descend(temperature, H, lr=0.1)
    torch.testing.assert_close(temperature.alpha, torch.tensor(after))


@pytest.mark.parametrize("optimise", ["alpha", "log_alpha"])
def test_alpha_rises_when_the_policy_is_too_sure_and_falls_when_it_is_too_random(
    make_temperature, optimise
) -> None:
    too_sure, too_random = make_temperature(optimise=optimise), make_temperature(optimise=optimise)
    descend(too_sure, torch.tensor([0.1]), lr=0.1)
    descend(too_random, torch.tensor([0.9]), lr=0.1)
    assert too_random.alpha < 0.5 < too_sure.alpha


@pytest.mark.parametrize("optimise", ["alpha", "log_alpha"])
def test_the_parameter_is_clamped_so_that_alpha_leaves_a_bound_at_once(make_temperature, optimise) -> None:
    temperature = make_temperature(optimise=optimise, minimum=0.4, maximum=0.6)
    descend(temperature, torch.tensor([0.0]), lr=100.0)  # far too sure: up
    torch.testing.assert_close(temperature.alpha, torch.tensor(0.6))
    descend(temperature, torch.tensor([0.6]), lr=0.1)  # one small step down from the bound, not from beyond
    assert 0.58 < temperature.alpha < 0.6
    descend(temperature, torch.tensor([1.0]), lr=100.0)
    torch.testing.assert_close(temperature.alpha, torch.tensor(0.4))


def test_alpha_is_a_buffer_written_in_place(make_temperature) -> None:
    """Actors on other threads, and state dicts, hold the tensor itself."""
    temperature = make_temperature()
    held = temperature.alpha
    descend(temperature, torch.tensor([0.0]), lr=0.1)
    assert held is temperature.alpha
    assert "alpha" in temperature.state_dict()
    assert not held.requires_grad


def test_the_target_entropy_fraction_is_a_fraction_of_log_n_actions(make_temperature) -> None:
    fraction = make_temperature(target_entropy=None, target_entropy_fraction=0.5, n_actions=6)
    assert fraction.target_entropy == pytest.approx(0.5 * math.log(6))
    assert make_temperature(target_entropy=0.3).target_entropy == 0.3


def test_a_fixed_temperature_learns_nothing() -> None:
    temperature = FixedTemperature(alpha=0.8)
    assert list(temperature.parameters()) == []
    assert temperature.target_entropy is None
    assert temperature.loss(H) == 0
    temperature.refresh()
    torch.testing.assert_close(temperature.alpha, torch.tensor(0.8))


def annealed(**settings: object) -> AnnealedTemperature:
    schedule = {"start": 0.6, "end": 0.2, "over": 0.5, "steps": 100}
    descent = {"initial": 0.5, "lr": 1e-2, "minimum": 1e-3, "maximum": 10.0, "optimise": "log_alpha"}
    return AnnealedTemperature(**schedule | descent | {"n_actions": 3} | settings)


def test_an_annealed_target_entropy_falls_linearly_over_its_part_of_the_run() -> None:
    temperature = annealed()
    targets = {0: 0.6, 25: 0.4, 50: 0.2, 75: 0.2, 1000: 0.2}  # .6 − .4 · t/50
    for env_steps, nats in targets.items():
        temperature.anneal(env_steps)
        assert temperature.target_entropy == pytest.approx(nats)
    torch.testing.assert_close(temperature.loss(H), torch.tensor(0.5 * (0.4 - 0.2)))


BAD = {
    "initial": [0.0, -1.0, math.nan, math.inf, 11.0],
    "lr": [0.0, -1.0],
    "minimum": [0.0],
    "maximum": [math.inf],
}
BAD_TARGETS = {"target_entropy": [-0.1, math.log(3), 5.0], "target_entropy_fraction": [0.0, 1.0, 1.5]}


def cases(*bad: dict[str, list]) -> list[tuple[str, object]]:
    return [(field, value) for each in bad for field, values in each.items() for value in values]


@pytest.mark.parametrize(("field", "value"), cases(BAD, {"optimise": ["beta"]}, BAD_TARGETS))
def test_a_learned_temperature_refuses_an_invalid_setting_by_name(
    make_temperature, field: str, value: object
) -> None:
    only = {"target_entropy": None} if field == "target_entropy_fraction" else {}
    with pytest.raises(SettingError) as refusal:
        make_temperature(**only | {field: value})
    assert refusal.value.field == field


@pytest.mark.parametrize("both", [(None, None), (0.1, 0.1)])
def test_a_target_entropy_set_twice_or_not_at_all_is_refused(make_temperature, both) -> None:
    with pytest.raises(SettingError, match="target_entropy"):
        make_temperature(target_entropy=both[0], target_entropy_fraction=both[1])


@pytest.mark.parametrize(("field", "value"), cases({"start": [2.0], "end": [-0.1], "over": [0.0, 1.1]}))
def test_an_annealed_temperature_refuses_an_invalid_setting_by_name(field: str, value: float) -> None:
    with pytest.raises(SettingError) as refusal:
        annealed(**{field: value})
    assert refusal.value.field == field


@pytest.mark.parametrize("alpha", [0.0, -0.1, math.nan, math.inf])
def test_a_fixed_temperature_refuses_an_invalid_alpha(alpha: float) -> None:
    with pytest.raises(SettingError, match="alpha"):
        FixedTemperature(alpha=alpha)
