"""Statistics of a few runs, against numbers worked by hand, rliable, and properties that must always hold."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from rliable import library, metrics
from scipy.stats import mannwhitneyu, trim_mean

from sqn_rl.analysis import statistics
from sqn_rl.analysis.scores import RANDOM_AND_HUMAN, human_normalised
from sqn_rl.analysis.statistics import (
    area_under_curve,
    chance_of_separation,
    estimate,
    iqm,
    mean,
    median,
    permutation_p,
    probability_of_improvement,
    profile,
)
from sqn_rl.training.evaluation import interquartile_mean


def scores(*environments: list[float]) -> list[np.ndarray]:
    return [np.array(each, dtype=float) for each in environments]


# --- by hand -----------------------------------------------------------------------------------------------


def test_mean_median_and_iqm_of_one_environment_by_hand() -> None:
    runs = scores([0, 1, 2, 10])
    assert mean(runs) == 3.25
    assert median(runs) == 1.5
    assert iqm(runs) == 1.5  # of 1 and 2


def test_mean_median_and_iqm_of_three_environments_by_hand() -> None:
    runs = scores([0, 2], [10, 20], [3, 5])  # means 1, 15, 4
    assert mean(runs) == pytest.approx(20 / 3)
    assert median(runs) == 4
    assert iqm(runs) == 5  # of 2, 3, 5 and 10: a quarter of six is cut to one at each end


def test_probability_of_improvement_by_hand() -> None:
    x, y = scores([1, 3]), scores([2, 3])  # 1 < 2, 1 < 3, 3 > 2, 3 = 3: one win and a half in four
    assert probability_of_improvement(x, y) == 0.375
    assert probability_of_improvement(scores([1, 3], [9]), scores([2, 3], [1])) == (0.375 + 1) / 2


def test_performance_profile_by_hand() -> None:
    runs = scores([0, 1], [1, 2])
    np.testing.assert_array_equal(profile(runs, np.array([-1, 0, 1, 2])), [1, 0.75, 0.25, 0])


def test_area_under_curve_by_hand() -> None:
    # From 0 to 10 on average 5, from 10 to 30 it is 10: (10 * 5 + 20 * 10) / 30.
    assert area_under_curve(np.array([0, 10, 30]), np.array([0, 10, 10])) == pytest.approx(25 / 3)
    assert area_under_curve(np.array([100, 200]), np.array([4.0, 4.0])) == 4


def test_chance_of_separation_by_hand() -> None:
    assert chance_of_separation(scores([0] * 3), scores([0] * 3)) == 2 / 20
    assert chance_of_separation(scores([0] * 4), scores([0] * 4)) == 2 / 70
    assert chance_of_separation(scores([0] * 2, [0] * 2), scores([0] * 2, [0] * 2)) == 2 / 6**2


def test_the_interval_of_two_runs_spans_both_runs() -> None:
    # The mean of a resample of 0 and 1 is 0 in a quarter of cases, and 1 in another.
    assert estimate(mean, scores([0, 1])) == (0.5, 0, 1)


def test_a_single_run_has_no_interval() -> None:
    assert np.isnan(estimate(iqm, scores([3]))[1:]).all()
    assert np.isnan(estimate(iqm, scores([3], [4]))[1:]).all()
    assert np.isnan(estimate(probability_of_improvement, scores([3]), scores([1, 2]))[1:]).all()
    assert np.isnan(estimate(iqm, scores([3], [4, 5]))[1:]).all()
    assert not np.isnan(estimate(iqm, scores([3, 3], [4, 5]))[1:]).any()


def test_the_permutation_test_agrees_with_exact_mann_whitney_in_one_environment() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 1.0, 2.0):
        x, y = rng.normal(size=7) + shift, rng.normal(size=6)
        exact = mannwhitneyu(x, y, method="exact").pvalue
        assert permutation_p([x], [y]) == pytest.approx(exact, abs=0.012)  # four deviations of 20,000 draws


def test_the_permutation_test_permutes_within_each_environment() -> None:
    """The second environment has far larger scores."""
    x, y = [np.arange(5.0), 100 + np.arange(5.0)], [np.arange(5.0), 100 + np.arange(5.0)]
    assert permutation_p(x, y) == 1.0
    better = [each + 10 for each in x]
    assert permutation_p(better, y) < 0.001


# --- rliable -----------------------------------------------------------------------------------------------

GENERATOR = np.random.default_rng(7)
X_NE = GENERATOR.normal([0, 5, -3], [1, 4, 2], (7, 3))
Y_NE = GENERATOR.normal([0.5, 5, -2], [2, 4, 1], (5, 3))
X, Y = list(X_NE.T), list(Y_NE.T)


@pytest.mark.parametrize("runs_NE", [X_NE, Y_NE, X_NE.round()])
def test_mean_median_and_iqm_agree_with_rliable(runs_NE: np.ndarray) -> None:
    runs = list(runs_NE.T)
    assert mean(runs) == pytest.approx(metrics.aggregate_mean(runs_NE))
    assert median(runs) == pytest.approx(metrics.aggregate_median(runs_NE))
    assert iqm(runs) == pytest.approx(metrics.aggregate_iqm(runs_NE))


def test_the_probability_of_improvement_agrees_with_rliable() -> None:
    assert probability_of_improvement(X, Y) == pytest.approx(metrics.probability_of_improvement(X_NE, Y_NE))
    x, y = X_NE.round(), Y_NE.round()  # with ties
    ours = probability_of_improvement(list(x.T), list(y.T))
    assert ours == pytest.approx(metrics.probability_of_improvement(x, y))


def test_profiles_agree_with_rliable() -> None:
    thresholds = np.linspace(-8, 12, 41)
    np.testing.assert_allclose(profile(X, thresholds), library.score_distributions(X_NE, thresholds))


@given(arrays(float, array_shapes(min_dims=1, max_dims=3, max_side=13), elements=st.floats(-1e6, 1e6)))
def test_the_interquartile_mean_agrees_with_scipy(values: np.ndarray) -> None:
    np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25, axis=-1), atol=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(mean, "mean"), (median, "median"), (iqm, "iqm")])
def test_intervals_agree_with_rliable(ours, theirs: str) -> None:
    np.random.seed(0)  # rliable draws from there
    aggregate = getattr(metrics, f"aggregate_{theirs}")
    _, ends = library.get_interval_estimates({"x": X_NE}, lambda x: np.array([aggregate(x)]), reps=1000)
    assert_near(estimate(ours, X)[1:], ends["x"][:, 0])


def test_intervals_of_pairs_agree_with_rliable() -> None:
    np.random.seed(0)
    pair = {"x,y": [X_NE, Y_NE]}
    by_rliable = lambda x, y: np.array([metrics.probability_of_improvement(x, y)])  # noqa: E731
    _, ends = library.get_interval_estimates(pair, by_rliable, reps=200)
    assert_near(estimate(probability_of_improvement, X, Y)[1:], ends["x,y"][:, 0])


def assert_near(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Within 10 % of the width: the ends are quantiles of a few resamples."""
    np.testing.assert_allclose(ours, theirs, atol=0.1 * np.ptp(theirs))


# --- properties --------------------------------------------------------------------------------------------

RUNS = arrays(float, st.integers(2, 8), elements=st.integers(-50, 50))


@settings(max_examples=30)
@given(RUNS, RUNS)
def test_probabilities_of_improvement_sum_to_one_and_depend_only_on_ranks(
    x: np.ndarray, y: np.ndarray
) -> None:
    p = probability_of_improvement([x], [y])
    assert 0 <= p <= 1
    assert p + probability_of_improvement([y], [x]) == pytest.approx(1)
    assert p == probability_of_improvement([x**3], [y**3])  # only the order counts


@settings(max_examples=30)
@given(RUNS, st.sampled_from([mean, median, iqm]))
def test_estimates_and_intervals_shift_and_scale_with_the_scores(x: np.ndarray, statistic: Callable) -> None:
    value, low, high = estimate(statistic, [x], resamples=50)
    assert x.min() <= low <= high <= x.max()
    scaled = estimate(statistic, [3 * x + 1], resamples=50)
    np.testing.assert_allclose(scaled, [3 * each + 1 for each in (value, low, high)])


def test_the_same_scores_have_the_same_interval() -> None:
    assert estimate(iqm, X) == estimate(iqm, [each.copy() for each in X])


def test_intervals_cover_the_true_mean_at_about_the_nominal_rate() -> None:
    """Of 200 samples of 20 runs, somewhat fewer than 95 % have an interval that contains the true mean."""
    drawn = np.random.default_rng(3).normal(size=(200, 20))
    ends = np.array([estimate(mean, [each], resamples=1000)[1:] for each in drawn])
    assert 0.90 <= np.mean((ends[:, 0] < 0) & (ends[:, 1] > 0)) <= 0.98


@pytest.mark.parametrize("runs", [[4], [5], [8], [2, 2, 2], [5, 5, 5], [2, 1, 1, 1, 1, 1]], ids=str)
def test_the_permutation_test_seldom_separates_equal_distributions(
    runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The false positive rate is at most one in twenty, plus 2.6 standard deviations of 200 draws."""
    monkeypatch.setattr(statistics, "PERMUTATIONS", 1000)
    generator = np.random.default_rng(4)
    drawn = [[[generator.normal(size=n) for n in runs] for _ in "xy"] for _ in range(200)]
    assert np.mean([permutation_p(x, y) <= 0.05 for x, y in drawn]) < 0.09


def test_the_permutation_test_usually_separates_different_distributions() -> None:
    generator = np.random.default_rng(5)
    drawn = [[generator.normal(mean, size=8) for mean in (0, 2)] for _ in range(50)]
    assert np.mean([permutation_p([x], [y]) <= 0.05 for x, y in drawn]) > 0.8


# --- Atari -------------------------------------------------------------------------------------------------


def test_human_normalised_scores_of_pong_and_breakout_by_hand() -> None:
    random, human = RANDOM_AND_HUMAN["pong"]
    assert (random, human) == (-20.7, 14.6)
    assert human_normalised("pong", np.array([-20.7, 14.6])).tolist() == [0, 1]
    # (401.2 - 1.7) / (30.5 - 1.7)
    assert human_normalised("breakout", np.array(401.2)) == pytest.approx(13.87, abs=0.005)


def test_the_table_of_random_and_human_scores_is_complete_and_unchanged() -> None:
    from ale_py import roms

    assert len(RANDOM_AND_HUMAN) == 57
    assert RANDOM_AND_HUMAN.keys() <= set(roms.get_all_rom_ids())
    assert all(random < human for random, human in RANDOM_AND_HUMAN.values())
    sums = [sum(scores) for scores in zip(*RANDOM_AND_HUMAN.values(), strict=True)]
    assert sums == pytest.approx([50_864.9, 606_494.2])  # a checksum against mistyped digits
