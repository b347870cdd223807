"""The sum tree against a plain array: its sums, and ``cumsum`` with ``searchsorted``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqn_rl.parts.replay.sum_tree import WIDEST_ROOT, WIDTH, SumTree

CAPACITIES = [1, WIDTH - 1, WIDTH, WIDTH + 1, 1000, WIDEST_ROOT * WIDTH, WIDEST_ROOT * WIDTH + 1]
"""Trees of two or three levels including the root, full and not full."""


def check_sums(tree: SumTree, values: np.ndarray) -> None:
    """Every parent is exactly the sum of its children: totals are off by one rounding an addition at most."""
    assert np.array_equal(tree.value, values)
    for children, parents in zip(tree._levels, [*tree._levels[1:], tree._root], strict=True):
        assert np.array_equal(children.sum(-1), parents.reshape(-1)[: len(children)])
    np.testing.assert_allclose(tree.total, values.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_sums_are_exact_after_a_million_updates(capacity: int) -> None:
    rng, tree, values = np.random.default_rng(0), SumTree(capacity), np.zeros(capacity)
    for _ in range(1000):
        index, value = rng.integers(capacity, size=1000), 10.0 ** rng.uniform(-9, 9, 1000)
        tree.update(index, value)
        values[index] = value
    check_sums(tree, values)
    tree.update(np.arange(capacity), np.zeros(capacity))
    assert tree.total == 0  # a tree that adds differences would keep rounding errors here


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_find_equals_a_search_in_the_cumulative_sum(capacity: int) -> None:
    """Sums of integers are not rounded, so that both agree on every mass, bounds included."""
    rng, tree = np.random.default_rng(1), SumTree(capacity)
    for _ in range(20):
        index = rng.integers(capacity, size=max(1, capacity // 3))
        tree.update(index, rng.integers(4, size=len(index)).astype(float))
        tree.update(np.array([capacity // 2]), np.array([1.0]))
        mass = np.append(rng.integers(int(tree.total), size=100), rng.uniform(0, tree.total, 100))
        assert np.array_equal(tree.find(mass), tree.value.cumsum().searchsorted(mass, side="right"))


@st.composite
def sparse(draw: st.DrawFn) -> dict[int, float]:
    """A few values for a tree of three levels and 140,000 entries, of the most different magnitudes."""
    value = st.one_of(st.just(0.0), st.floats(5e-324, 1e300), st.sampled_from([0.1, 1.0, 1 / 3, 1e-300]))
    return draw(st.dictionaries(st.integers(0, 139_999), value, min_size=1, max_size=40))


@given(sparse(), st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_find_never_returns_an_index_of_value_zero(values: dict[int, float], fractions: list[float]) -> None:
    tree = SumTree(140_000)
    tree.update(np.array([*values]), np.array([*values.values()]))
    if not any(values.values()):
        with pytest.raises(IndexError, match="all values are 0"):
            tree.find(np.array([0.0]))
        return
    mass = np.array([*fractions, 0.0, 1.0]) * tree.total
    beyond = [np.nextafter(tree.total, np.inf), *tree.value.cumsum()[[*values]]]
    assert all(tree.value[tree.find(np.append(mass, beyond))] > 0)


def test_find_returns_a_positive_value_for_a_mass_beyond_the_sequential_sum() -> None:
    """1e16 + 1 is 1e16: the sequential sum is less than the pairwise sum, so a mass may lie beyond it."""
    values = np.array([0.0, 1e16, *[1.0] * 30])
    tree = SumTree(32)
    tree.update(np.arange(32), values)
    mass = np.linspace(values.cumsum()[-1], tree.total, 9)
    assert all(tree.value[tree.find(mass)] > 0)


def test_find_stays_in_the_node_when_the_remaining_mass_rounds_below_zero() -> None:
    """3 + 1e16 is 1e16 + 4, so that a mass of 3 is at −1 within the second node."""
    tree = SumTree(64)
    tree.update(np.array([0, 33]), np.array([3.0, 1e16]))
    assert tree.find(np.array([3.0])) == [33]


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 9)), min_size=1, max_size=200))
def test_the_last_value_of_a_repeated_index_is_stored(updates: list[tuple[int, float]]) -> None:
    tree, index, value = SumTree(100), *map(np.array, zip(*updates, strict=True))
    tree.update(index, value)
    expected = dict(updates)
    assert {i: tree.value[i] for i in expected} == expected
    check_sums(tree, np.array([expected.get(i, 0.0) for i in range(100)]))


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 9)), max_size=20))
def test_filling_a_slice_sets_every_value_in_the_slice(fills: list[tuple[int, int, float]]) -> None:
    tree, values = SumTree(2000), np.zeros(2000)
    for begin, end, value in fills:
        indices = slice(min(begin, end), max(begin, end))
        tree.fill(indices, value)
        values[indices] = value
        np.testing.assert_allclose(tree.total, values.sum(), rtol=1e-12, atol=0)
    check_sums(tree, values)


@pytest.mark.parametrize("index", [-1, 33, 40])
def test_updating_an_index_out_of_range_is_refused(index: int) -> None:
    tree = SumTree(33)
    with pytest.raises(IndexError, match="expected 0 to 32"):
        tree.update(np.array([3, index]), np.ones(2))
    assert tree.total == 0


def test_updating_no_indices_changes_nothing() -> None:
    tree = SumTree(10)
    tree.update(np.array([], np.int64), np.array([]))
    assert tree.total == 0
