"""Prioritized replay while it fills, wraps around, is answered late, saved, and set wrongly."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sqn_rl import NStep, NumericsError, OneStep, PrioritizedReplay, SettingError, Step
from sqn_rl.parts.replay.open_draws import MOST_OPEN
from sqn_rl.parts.replay.prioritized import SumTree, require_finite

HUGE = 1e6


def make_replay(**settings: Any) -> PrioritizedReplay:
    part = {"omega": 0.6, "beta": 0.4, "epsilon": 1e-6, "td_error": "mean", "steps": 100}
    where = {"observation_shape": (), "observation_dtype": torch.float32, "frame_stack": 1, "device": "cpu"}
    small = {"capacity": 12, "num_envs": 3, "returns": OneStep(gamma=0.9), "seed": 0}
    return PrioritizedReplay(**part | where | small | settings)


class Life:
    """Stores rows whose actions count up, so that a transition is known by its action."""

    def __init__(self, replay: PrioritizedReplay, ending: float = 0.2) -> None:
        self.replay, self.ending, self.count = replay, ending, 0
        self.generator = torch.Generator().manual_seed(0)

    def go_on(self, rows: int = 1) -> None:
        n = self.replay.ring.num_envs
        for _ in range(rows):
            now, self.count = torch.arange(self.count, self.count + n), self.count + n
            ended = torch.rand(n, generator=self.generator) < self.ending
            seen, no = now.float(), torch.zeros(n, dtype=torch.bool)
            self.replay.store(seen, now, Step(seen + n, seen + n, torch.zeros(n), ended, no, ended, seen))


def drawn(replay: PrioritizedReplay, size: int = 500) -> set[int]:
    return set(replay.draw(size).action.tolist())


@pytest.mark.parametrize("returns", [OneStep(gamma=0.9), NStep(gamma=0.9, n=3, soft=False)])
@pytest.mark.parametrize(("capacity", "num_envs"), [(12, 3), (14, 3), (1, 1), (7, 1), (100, 8)])
def test_what_is_drawn_is_what_is_stored(capacity: int, num_envs: int, returns: Any) -> None:
    replay = make_replay(capacity=capacity, num_envs=num_envs, returns=returns)
    life, room = Life(replay), capacity // num_envs * num_envs
    for _ in range(60):
        life.go_on()
        assert drawn(replay, 5 * room) == set(range(max(0, life.count - room), life.count))


@pytest.mark.parametrize("between", ["nothing", "another draw", "saved and loaded"])
def test_late_answers_resurrect_nothing_and_are_for_nobody_else(between: str) -> None:
    """However late the answer to a batch is, it counts for those transitions only that were in it."""
    for delay in range(20):
        replay = make_replay(epsilon=1.0, omega=1.0)
        life = Life(replay)
        life.go_on(9)
        batch = replay.draw(64)
        if between == "another draw":
            replay.draw(64)
        if between == "saved and loaded":
            state, life.replay = replay.state_dict(), make_replay(epsilon=1.0, omega=1.0)
            replay = life.replay
            replay.load_state_dict(state)
        life.go_on(delay)
        replay.update_priority(batch.place, torch.full((64,), HUGE))
        alive = set(range(life.count - 12, life.count))
        raised = set(batch.action.tolist()) & alive
        assert drawn(replay, 10_000) == (raised or alive)  # one in a million against the rest
        life.go_on(4)
        assert drawn(replay) <= set(range(life.count - 12, life.count))


def in_parts(batch: Any) -> list[Tensor]:
    """The places of a batch, each once, in parts of three in another order."""
    return [*batch.place.unique().flip(0).split(3)]


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("first", "answer"),
    [
        *product([0, 1], [lambda batch: [batch.place], lambda batch: [batch.place.clone()]]),
        (0, in_parts),  # which belong to the oldest draw of their places
    ],
)
def test_a_place_that_is_drawn_again_gets_the_answer_to_its_own_draw(
    first: int, answer: Any, saved: bool
) -> None:
    """Both draws are of all places, with other transitions, and the answers come in any order."""
    replay = make_replay(epsilon=1.0, omega=1.0)
    life = Life(replay)
    life.go_on(4)
    old = replay.draw(256)
    life.go_on(5)
    batches = [old, replay.draw(256)]
    if saved:
        state, replay = replay.state_dict(), make_replay(epsilon=1.0, omega=1.0)
        replay.load_state_dict(state)
    for number in (first, 1 - first):
        for place in answer(batches[number]):
            replay.update_priority(place, torch.full((len(place),), [HUGE, 3.0][number]))
    assert replay.sampler.max_priority == 4.0
    now = replay.ring.place(torch.arange(len(replay)))
    assert replay.sampler.tree.value[now].tolist() == [4.0] * 12


def test_after_its_answer_a_draw_is_over() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    life = Life(replay)
    life.go_on(4)
    batch = replay.draw(256)
    replay.update_priority(batch.place, torch.zeros(256))
    life.go_on(5)
    replay.update_priority(batch.place, torch.full((256,), 3.0))  # for what is there now
    assert {*replay.sampler.tree.value[batch.place].tolist()} == {4.0}


def test_answers_to_two_draws_at_once() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    life = Life(replay)
    life.go_on(2)
    old = replay.draw(64).place.unique()
    life.go_on(3)  # the first three of the six are overwritten
    new = replay.draw(256).place.unique()
    new = new[~torch.isin(new, old)]
    replay.update_priority(torch.cat([new, old]), torch.tensor([3.0] * len(new) + [HUGE] * len(old)))
    value = replay.sampler.tree.value
    assert value[new.numpy()].tolist() == [4.0] * len(new)
    assert sorted(value[old.numpy()].tolist()) == [0.0, 0.0, 0.0, *[HUGE + 1.0] * 3]


def test_draws_that_are_never_answered_are_forgotten() -> None:
    replay = make_replay(capacity=3000)
    life = Life(replay)
    life.go_on(5)
    for _ in range(MOST_OPEN + 10):
        replay.draw(4)
    assert len(replay.sampler.state_dict()["draws"]["draws"]) == MOST_OPEN


def test_an_answer_that_never_came_is_not_waited_for() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    life = Life(replay)
    life.go_on(9)
    replay.draw(64)
    life.go_on(10)
    batch = replay.draw(64)
    replay.update_priority(batch.place, torch.where(batch.action == life.count - 1, HUGE, 0.0))
    assert drawn(replay) == {life.count - 1}


def test_priorities_may_be_given_before_any_draw() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    life = Life(replay)
    for _ in range(6):
        life.go_on(2)
        place = replay.ring.place(torch.arange(len(replay)))
        replay.update_priority(place, torch.where(place == place[1], HUGE, 0.0))
        assert drawn(replay) == {life.count - len(replay) + 1}
        replay.update_priority(place, torch.zeros(len(place)))  # the answer


def test_a_priority_for_what_is_retired_is_lost() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    life = Life(replay)
    life.go_on(4)
    first = replay.ring.place(torch.tensor([0]))
    life.go_on(1)
    replay.update_priority(first, torch.tensor([HUGE]))
    assert drawn(replay) == set(range(3, 15))  # a draw that still waits for its answer
    replay.update_priority(first, torch.tensor([HUGE]))
    assert drawn(replay) == set(range(3, 15))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_error_that_is_no_number_is_refused_before_it_does_harm(bad: float) -> None:
    replay = make_replay()
    Life(replay).go_on(4)
    with pytest.raises(NumericsError, match="TD error"):
        replay.update_priority(replay.draw(3).place, torch.tensor([[1.0, 2.0, 3.0], [4.0, bad, 5.0]]))
    assert replay.draw(50).weight.unique().tolist() == [1.0]  # all as new as ever


@pytest.mark.parametrize("omega", [0.5, 1.0, 10.0])
def test_the_largest_priorities_have_a_finite_sum(omega: float) -> None:
    largest = math.exp(680 / max(1.0, omega)) * 0.999999
    require_finite(np.array([largest]), omega)
    with pytest.raises(NumericsError, match="too large"):
        require_finite(np.array([2 * largest]), omega)
    tree = SumTree(2**20)
    tree.fill(slice(0, 2**20), largest**omega)
    assert math.isfinite(1e6 * tree.total)


def test_a_priority_too_large_is_refused() -> None:
    replay = make_replay(omega=9.0, epsilon=0.1)
    Life(replay).go_on(4)
    with pytest.raises(NumericsError, match="too large"):
        replay.update_priority(replay.draw(1).place, torch.tensor([1e38]))
    assert len(drawn(replay)) == 12


def test_a_shape_that_fits_nothing_is_refused() -> None:
    replay = make_replay()
    Life(replay).go_on(4)
    with pytest.raises(ValueError, match=r"shape \[4, 2\] for 4 places"):
        replay.update_priority(replay.draw(4).place, torch.ones(4, 2))


def test_nothing_is_drawn_from_nothing() -> None:
    with pytest.raises(IndexError, match="nothing is stored"):
        make_replay().draw(1)


def play(replay: PrioritizedReplay, rows: int) -> list[Tensor]:
    """Store, draw, answer: all that a run does."""
    life, batches = Life(replay), []
    for _ in range(rows):
        life.go_on()
        batch = replay.draw(8)
        replay.update_priority(batch.place, batch.action.float().sin().expand(2, -1))
        batches += [batch.action, batch.weight]
    return batches


def same(these: list[Tensor], those: list[Tensor]) -> bool:
    return all(map(torch.equal, these, those))


def test_the_generator_is_its_own() -> None:
    before = torch.get_rng_state()
    batches = play(make_replay(), 20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same(play(make_replay(), 20), batches)
    assert not same(play(make_replay(seed=1), 20), batches)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("capacity", 2),
        ("capacity", 12.0),
        ("omega", -0.1),
        ("omega", float("nan")),
        ("omega", float("inf")),
        ("omega", 60.0),
        ("beta", -0.1),
        ("beta", 1.1),
        ("epsilon", 0.0),
        ("epsilon", -1e-6),
        ("epsilon", float("inf")),
        ("td_error", "sum"),
    ],
)
def test_a_bad_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(SettingError, match=f"^{field} = ") as raised:
        make_replay(**{field: value})
    assert raised.value.field == field


def test_a_power_of_the_least_priority_that_is_not_finite_is_refused() -> None:
    message = r"^epsilon = 1e\+200: expected at most 4\.57219e\+147 with omega = 2\.0$"
    with pytest.raises(SettingError, match=message):
        make_replay(epsilon=1e200, omega=2.0)


def test_the_highest_priority_so_far_may_be_an_initial_one() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    seen, no = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    step = Step(seen, seen, seen, no, no, no, seen)
    for priority in (torch.tensor([[4.0, 9.0, 0.0]]), None):
        replay.store(seen, torch.zeros(3, dtype=torch.int64), step, priority=priority)
    assert replay.sampler.tree.value[:6].tolist() == [5, 10, 1, 10, 10, 10]
