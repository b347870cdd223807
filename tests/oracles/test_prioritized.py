"""Prioritized replay: against hand-worked numbers, exact frequencies, and the sampler of TorchRL."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from torchrl.data import LazyTensorStorage, PrioritizedSampler

from sqn_rl import OneStep, PrioritizedReplay, Step
from sqn_rl.parts.replay.prioritized import importance_weights, priority_of, stratified

ERRORS = [3.0, 0.0, 0.5, 8.0, 1.0, 1.0, 0.1, 20.0, 2.0, 4.0]


def make_replay(errors: list[float] = ERRORS, **settings: Any) -> PrioritizedReplay:
    """A replay of one transition for each error, with its number as action."""
    part = {"omega": 0.6, "beta": 0.4, "epsilon": 0.01, "td_error": "mean", "steps": 100}
    where = {"observation_shape": (), "observation_dtype": torch.float32, "frame_stack": 1, "device": "cpu"}
    small = {"capacity": len(errors), "num_envs": 1, "returns": OneStep(gamma=0.9), "seed": 0}
    replay = PrioritizedReplay(**part | where | small | settings)
    place = [store(replay, i) for i in range(len(errors))]
    replay.update_priority(torch.tensor(place), torch.tensor(errors))
    return replay


def store(replay: PrioritizedReplay, action: int) -> int:
    zero, no = torch.zeros(1), torch.tensor([False])
    replay.store(zero, torch.tensor([action]), Step(zero, zero, zero, no, no, no, zero))
    return replay.ring.newest_row.start


def probabilities(errors: list[float], omega: float, epsilon: float) -> np.ndarray:
    powers = [(abs(error) + epsilon) ** omega for error in errors]
    return np.array(powers) / sum(powers)


def shares(replay: PrioritizedReplay) -> np.ndarray:
    """P(i), from the weights of a large batch, which are proportional to 1 / P(i) with β = 1."""
    replay.anneal(10**9)
    batch = replay.draw(20_000)
    share = np.zeros(replay.capacity)
    share[batch.action] = 1 / batch.weight
    return share / share.sum()


# --- the equations -----------------------------------------------------------------------------------------


def test_priority_by_hand() -> None:
    twins = np.array([[1.0, -2.0, 0.0], [-4.0, 1.0, 0.0]])
    assert priority_of(twins, 0.25, "mean").tolist() == [2.75, 1.75, 0.25]  # (1 + 4)/2 + ¼, (2 + 1)/2 + ¼
    assert priority_of(twins, 0.25, "max").tolist() == [4.25, 2.25, 0.25]


def test_importance_weights_by_hand() -> None:
    """P = .1, .4, .5 of N = 10: N P = 1, 4, 5; to the power -½: 1, ½, 1/√5; the largest is 1."""
    weights = importance_weights(np.array([1.0, 4.0, 5.0]), beta=0.5)
    np.testing.assert_allclose(weights, [1.0, 0.5, 5**-0.5], rtol=1e-15)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=50), st.floats(0, 1), st.data())
def test_importance_weights_equal_the_formula_of_the_paper(
    values: list[float], beta: float, data: st.DataObject
) -> None:
    value, n = np.array(values), len(values)
    drawn = data.draw(st.lists(st.integers(0, n - 1), min_size=1))
    unscaled = (n * (value / value.sum())) ** -beta
    expected = unscaled[drawn] / unscaled[drawn].max()
    np.testing.assert_allclose(importance_weights(value[drawn], beta), expected, rtol=1e-12)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=100), st.floats(1e-6, 1e6))
def test_stratified_sampling_draws_one_point_in_each_segment(uniform: list[float], total: float) -> None:
    segment = stratified(np.array(uniform), total) / total * len(uniform) - np.arange(len(uniform))
    np.testing.assert_allclose(segment, uniform, rtol=0, atol=1e-13 * len(uniform))


# --- the draws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("omega", [0.0, 0.6, 1.0])
def test_transitions_are_drawn_with_the_frequencies_of_their_priorities(omega: float) -> None:
    """The b-th of a batch comes from the b-th of B segments, in which each transition has a known share.

    Given its segment a draw is independent of all others, so the counts in a segment are multinomial, and the
    sum of their χ² over segments is χ² with the sum of their degrees of freedom.
    """
    size, batches, replay = 8, 3000, make_replay(omega=omega)
    drawn = torch.stack([replay.draw(size).action for _ in range(batches)])  # [batches, B]
    edges = np.append(0, probabilities(ERRORS, omega, 0.01).cumsum()) * size
    statistic, freedom = 0.0, 0
    for segment in range(size):
        overlap = np.minimum(edges[1:], segment + 1) - np.maximum(edges[:-1], segment)
        expected = batches * overlap.clip(0)
        counts = np.bincount(drawn[:, segment], minlength=len(ERRORS))
        assert not counts[expected < 1e-9].any()
        inside = expected > 1e-9
        statistic += ((counts - expected)[inside] ** 2 / expected[inside]).sum()
        freedom += inside.sum() - 1
    assert 1e-3 < chi2.sf(statistic, freedom) < 1 - 1e-3


def test_importance_weights_of_a_batch_are_scaled_by_their_maximum() -> None:
    batch = make_replay().draw(64)
    p = probabilities(ERRORS, 0.6, 0.01)[batch.action]
    expected = (len(ERRORS) * p) ** -0.4
    assert batch.weight.dtype == torch.float32
    assert batch.weight.shape == (64,)
    np.testing.assert_allclose(batch.weight, expected / expected.max(), rtol=1e-6)


def test_with_omega_0_sampling_is_uniform() -> None:
    replay = make_replay(omega=0.0)
    batch = replay.draw(640)
    assert torch.equal(batch.weight, torch.ones(640, dtype=torch.float32))
    assert batch.action.bincount().tolist() == [64] * 10  # one from each segment: exactly as many of each


@pytest.mark.parametrize(("join", "errors"), [("mean", [3.0, 1.0]), ("max", [5.0, 1.5])])
def test_the_td_errors_of_twins_are_joined_by_mean_or_max(join: str, errors: list[float]) -> None:
    replay = make_replay([0.0, 0.0], td_error=join)
    replay.update_priority(torch.tensor([0, 1]), torch.tensor([[-5.0, 0.5], [1.0, -1.5]]))
    np.testing.assert_allclose(shares(replay), probabilities(errors, 0.6, 0.01), rtol=1e-6)


def test_a_new_transition_has_the_highest_priority_so_far() -> None:
    replay = make_replay([0.0] * 3, capacity=6)  # no error above 1: the highest is still the initial 1
    store(replay, 3)
    np.testing.assert_allclose(shares(replay)[:4], probabilities([0.0] * 3 + [0.99], 0.6, 0.01), rtol=1e-6)
    replay.update_priority(torch.tensor([1]), torch.tensor([-7.0]))
    replay.update_priority(torch.tensor([1]), torch.tensor([2.0]))
    store(replay, 4)
    expected = probabilities([0.0, 2.0, 0.0, 0.99, 7.0], 0.6, 0.01)
    np.testing.assert_allclose(shares(replay)[:5], expected, rtol=1e-6)


def test_beta_rises_linearly_to_one_over_the_budget() -> None:
    replay = make_replay(beta=0.4, steps=200)
    rising = []
    for env_steps in (0, 50, 100, 200, 300):
        replay.anneal(env_steps)
        rising.append(replay.metrics()["beta"])
    np.testing.assert_allclose(rising, [0.4, 0.55, 0.7, 1.0, 1.0], rtol=1e-15)


def test_torchrl_samples_with_the_same_frequencies_and_weights() -> None:
    """The sampler of TorchRL scales weights by the maximum of the whole replay, not of the batch."""
    try:
        theirs = PrioritizedSampler(len(ERRORS), alpha=0.6, beta=0.4, eps=0.01, dtype=torch.float64)
    except RuntimeError as error:
        pytest.skip(f"TorchRL's prioritized sampler does not load here: {str(error).splitlines()[0]}")
    storage = LazyTensorStorage(len(ERRORS))
    storage.set(range(len(ERRORS)), torch.zeros(len(ERRORS)))
    theirs.extend(torch.arange(len(ERRORS)))
    theirs.update_priority(torch.arange(len(ERRORS)), torch.tensor(ERRORS))
    theirs._rng = torch.Generator().manual_seed(0)
    index, info = theirs.sample(storage, 20_000)
    share = np.bincount(index, minlength=len(ERRORS)) / 20_000
    np.testing.assert_allclose(share, shares(make_replay()), atol=4 * (0.25 / 20_000) ** 0.5)
    weight = np.full(len(ERRORS), np.nan)
    weight[index] = info["priority_weight"]
    ours = make_replay().draw(20_000)
    np.testing.assert_allclose(ours.weight, weight[ours.action], rtol=1e-6)
