"""Prioritized replay: filling, wrapping around, late TD errors, saving, and invalid settings."""

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


class Writer:
    """Stores rows whose actions count up, so that a transition is identified by its action."""

    def __init__(self, replay: PrioritizedReplay, ending: float = 0.2) -> None:
        self.replay, self.ending, self.count = replay, ending, 0
        self.generator = torch.Generator().manual_seed(0)

    def store_rows(self, rows: int = 1) -> None:
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
def test_draws_cover_exactly_the_stored_transitions(capacity: int, num_envs: int, returns: Any) -> None:
    replay = make_replay(capacity=capacity, num_envs=num_envs, returns=returns)
    writer, room = Writer(replay), capacity // num_envs * num_envs
    for _ in range(60):
        writer.store_rows()
        assert drawn(replay, 5 * room) == set(range(max(0, writer.count - room), writer.count))


@pytest.mark.parametrize("between", ["nothing", "another draw", "saved and loaded"])
def test_late_td_errors_count_only_for_the_transitions_that_were_drawn(between: str) -> None:
    """However late the TD errors of a batch are, they change the priorities of its transitions only."""
    for delay in range(20):
        replay = make_replay(epsilon=1.0, omega=1.0)
        writer = Writer(replay)
        writer.store_rows(9)
        batch = replay.draw(64)
        if between == "another draw":
            replay.draw(64)
        if between == "saved and loaded":
            state, writer.replay = replay.state_dict(), make_replay(epsilon=1.0, omega=1.0)
            replay = writer.replay
            replay.load_state_dict(state)
        writer.store_rows(delay)
        replay.update_priority(batch.place, torch.full((64,), HUGE))
        alive = set(range(writer.count - 12, writer.count))
        raised = set(batch.action.tolist()) & alive
        assert drawn(replay, 10_000) == (raised or alive)  # those not raised are drawn once in a million
        writer.store_rows(4)
        assert drawn(replay) <= set(range(writer.count - 12, writer.count))


def in_parts(batch: Any) -> list[Tensor]:
    """The places of a batch, each once, reversed and in parts of three."""
    return [*batch.place.unique().flip(0).split(3)]


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("first", "answer"),
    [
        *product([0, 1], [lambda batch: [batch.place], lambda batch: [batch.place.clone()]]),
        (0, in_parts),  # parts belong to the oldest draw of their places
    ],
)
def test_td_errors_of_an_overwritten_draw_are_ignored_in_any_order_of_arrival(
    first: int, answer: Any, saved: bool
) -> None:
    """Both draws are of all places, which hold other transitions at the second draw."""
    replay = make_replay(epsilon=1.0, omega=1.0)
    writer = Writer(replay)
    writer.store_rows(4)
    old = replay.draw(256)
    writer.store_rows(5)
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


def test_a_second_update_for_the_same_draw_applies_to_the_current_transitions() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    writer = Writer(replay)
    writer.store_rows(4)
    batch = replay.draw(256)
    replay.update_priority(batch.place, torch.zeros(256))
    writer.store_rows(5)
    replay.update_priority(batch.place, torch.full((256,), 3.0))  # for the transitions there now
    assert {*replay.sampler.tree.value[batch.place].tolist()} == {4.0}


def test_td_errors_of_two_draws_may_arrive_in_one_update() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    writer = Writer(replay)
    writer.store_rows(2)
    old = replay.draw(64).place.unique()
    writer.store_rows(3)  # the first three of the six are overwritten
    new = replay.draw(256).place.unique()
    new = new[~torch.isin(new, old)]
    replay.update_priority(torch.cat([new, old]), torch.tensor([3.0] * len(new) + [HUGE] * len(old)))
    value = replay.sampler.tree.value
    assert value[new.numpy()].tolist() == [4.0] * len(new)
    assert sorted(value[old.numpy()].tolist()) == [0.0, 0.0, 0.0, *[HUGE + 1.0] * 3]


def test_the_number_of_remembered_open_draws_is_limited() -> None:
    replay = make_replay(capacity=3000)
    writer = Writer(replay)
    writer.store_rows(5)
    for _ in range(MOST_OPEN + 10):
        replay.draw(4)
    assert len(replay.sampler.state_dict()["draws"]["draws"]) == MOST_OPEN


def test_a_draw_without_td_errors_does_not_block_those_of_a_later_draw() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    writer = Writer(replay)
    writer.store_rows(9)
    replay.draw(64)
    writer.store_rows(10)
    batch = replay.draw(64)
    replay.update_priority(batch.place, torch.where(batch.action == writer.count - 1, HUGE, 0.0))
    assert drawn(replay) == {writer.count - 1}


def test_priorities_can_be_updated_before_any_draw() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    writer = Writer(replay)
    for _ in range(6):
        writer.store_rows(2)
        place = replay.ring.place(torch.arange(len(replay)))
        replay.update_priority(place, torch.where(place == place[1], HUGE, 0.0))
        assert drawn(replay) == {writer.count - len(replay) + 1}
        replay.update_priority(place, torch.zeros(len(place)))  # the TD errors of the draw


def test_a_priority_for_a_retired_transition_is_ignored() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    writer = Writer(replay)
    writer.store_rows(4)
    first = replay.ring.place(torch.tensor([0]))
    writer.store_rows(1)
    replay.update_priority(first, torch.tensor([HUGE]))
    assert drawn(replay) == set(range(3, 15))  # a draw that still waits for its TD errors
    replay.update_priority(first, torch.tensor([HUGE]))
    assert drawn(replay) == set(range(3, 15))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_td_error_is_refused_and_changes_no_priority(bad: float) -> None:
    replay = make_replay()
    Writer(replay).store_rows(4)
    with pytest.raises(NumericsError, match="TD error"):
        replay.update_priority(replay.draw(3).place, torch.tensor([[1.0, 2.0, 3.0], [4.0, bad, 5.0]]))
    assert replay.draw(50).weight.unique().tolist() == [1.0]  # all priorities are still the initial ones


@pytest.mark.parametrize("omega", [0.5, 1.0, 10.0])
def test_the_largest_accepted_priorities_have_a_finite_sum(omega: float) -> None:
    largest = math.exp(680 / max(1.0, omega)) * 0.999999
    require_finite(np.array([largest]), omega)
    with pytest.raises(NumericsError, match="too large"):
        require_finite(np.array([2 * largest]), omega)
    tree = SumTree(2**20)
    tree.fill(slice(0, 2**20), largest**omega)
    assert math.isfinite(1e6 * tree.total)


def test_a_priority_too_large_is_refused() -> None:
    replay = make_replay(omega=9.0, epsilon=0.1)
    Writer(replay).store_rows(4)
    with pytest.raises(NumericsError, match="too large"):
        replay.update_priority(replay.draw(1).place, torch.tensor([1e38]))
    assert len(drawn(replay)) == 12


def test_td_errors_of_the_wrong_shape_are_refused() -> None:
    replay = make_replay()
    Writer(replay).store_rows(4)
    with pytest.raises(ValueError, match=r"shape \[4, 2\] for 4 places"):
        replay.update_priority(replay.draw(4).place, torch.ones(4, 2))


def test_drawing_from_an_empty_replay_fails() -> None:
    with pytest.raises(IndexError, match="nothing is stored"):
        make_replay().draw(1)


def play(replay: PrioritizedReplay, rows: int) -> list[Tensor]:
    """Store, draw and update priorities, as a run does."""
    writer, batches = Writer(replay), []
    for _ in range(rows):
        writer.store_rows()
        batch = replay.draw(8)
        replay.update_priority(batch.place, batch.action.float().sin().expand(2, -1))
        batches += [batch.action, batch.weight]
    return batches


def same(these: list[Tensor], those: list[Tensor]) -> bool:
    return all(map(torch.equal, these, those))


def test_draws_depend_only_on_the_seed_of_the_replay() -> None:
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
def test_an_invalid_setting_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(SettingError, match=f"^{field} = ") as raised:
        make_replay(**{field: value})
    assert raised.value.field == field


def test_an_epsilon_too_large_for_omega_is_refused() -> None:
    message = r"^epsilon = 1e\+200: expected at most 4\.57219e\+147 with omega = 2\.0$"
    with pytest.raises(SettingError, match=message):
        make_replay(epsilon=1e200, omega=2.0)


def test_transitions_without_a_priority_get_the_highest_initial_one() -> None:
    replay = make_replay(epsilon=1.0, omega=1.0)
    seen, no = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    step = Step(seen, seen, seen, no, no, no, seen)
    for priority in (torch.tensor([[4.0, 9.0, 0.0]]), None):
        replay.store(seen, torch.zeros(3, dtype=torch.int64), step, priority=priority)
    assert replay.sampler.tree.value[:6].tolist() == [5, 10, 1, 10, 10, 10]
