"""Frame stacks of a ring that keeps each frame once, against the stacks that the games showed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sqn_rl import OneStep, SettingError, Step
from sqn_rl.parts.replay.ring import Ring

MakeGames = Callable[..., Any]

NO, YES = torch.tensor([False]), torch.tensor([True])


def make_ring(capacity: int, num_envs: int = 1, stack: int = 3, frame: tuple[int, ...] = (2,)) -> Ring:
    return Ring(
        capacity=capacity,
        num_envs=num_envs,
        observation_shape=(stack, *frame) if stack > 1 else frame,
        observation_dtype=torch.float32,
        frame_stack=stack,
        device="cpu",
    )


def stored(ring: Ring) -> list[list[float]]:
    """Everything in the ring, oldest first."""
    batch = OneStep(gamma=0.9).gather(ring, ring.place(torch.arange(len(ring))))
    columns = (batch.observation, batch.next_observation, batch.action, batch.reward, batch.terminated)
    return rows(*columns)


def rows(*columns: Tensor) -> list[list[float]]:
    return torch.cat([column.reshape(len(column), -1).double() for column in columns], dim=1).tolist()


def played(before: Tensor, action: Tensor, step: Step) -> list[list[float]]:
    return rows(before, step.next_observation, action, step.reward, step.terminated)


@pytest.mark.parametrize("ending", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("stack", [1, 2, 4])
@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 1), (1, 30), (3, 3), (3, 31), (200, 1000)])
def test_the_ring_returns_the_stacks_that_were_stored(
    make_games: MakeGames, num_envs: int, capacity: int, stack: int, ending: float
) -> None:
    games, ring, happened = (
        make_games(num_envs, ending, stack=stack),
        make_ring(capacity, num_envs, stack),
        [],
    )
    room = capacity // num_envs * num_envs
    for _ in range(80 if num_envs < 10 else 20):
        before, action, step = games.play()
        ring.append(before, action, step)
        happened += played(before, action, step)
        assert len(ring) == min(len(happened), room)
        assert stored(ring) == happened[-room:]


@pytest.mark.parametrize("ending", [0.0, 0.3])
@pytest.mark.parametrize("stack", [2, 4])
def test_stacks_do_not_reach_back_across_a_cut(make_games: MakeGames, stack: int, ending: float) -> None:
    ring, happened = make_ring(30, 3, stack), []
    for session in range(30):
        games = make_games(3, ending, session, stack)
        ring.cut()
        for _ in range(1 + session % 7):
            before, action, step = games.play()
            ring.append(before, action, step)
            happened += played(before, action, step)
        assert stored(ring) == happened[-30:]
        ring.cut()  # a second cut changes nothing
        assert stored(ring) == happened[-30:]


# --- worked by hand ----------------------------------------------------------------------------------------


def show(*frames: int) -> Tensor:
    return torch.tensor(frames, dtype=torch.float32).view(1, 3, 1)


def append(
    ring: Ring, before: Tensor, following: Tensor, terminated: Tensor = NO, ended: Tensor = NO
) -> None:
    nothing = torch.zeros(1)
    step = Step(following, following, nothing, terminated, NO, ended, nothing)
    ring.append(before, torch.tensor([0]), step)


def shown(ring: Ring) -> list[tuple[list[float], list[float]]]:
    place = ring.place(torch.arange(len(ring)))
    now, following = ring.observe(place).squeeze(-1).tolist(), ring.observe_next(place).squeeze(-1).tolist()
    return list(zip(now, following, strict=True))


def test_frames_from_before_the_episode_are_zero() -> None:
    ring = make_ring(10, frame=(1,))
    append(ring, show(0, 0, 1), show(0, 1, 2))
    append(ring, show(0, 1, 2), show(1, 2, 3), terminated=YES, ended=YES)
    append(ring, show(0, 0, 5), show(0, 5, 6))
    assert shown(ring) == [([0, 0, 1], [0, 1, 2]), ([0, 1, 2], [1, 2, 3]), ([0, 0, 5], [0, 5, 6])]


def test_a_lost_life_does_not_begin_an_episode() -> None:
    ring = make_ring(10, frame=(1,))
    append(ring, show(0, 0, 1), show(0, 1, 2), terminated=YES)
    append(ring, show(0, 1, 2), show(1, 2, 3))
    assert shown(ring) == [([0, 0, 1], [0, 1, 2]), ([0, 1, 2], [1, 2, 3])]


def test_the_oldest_transition_has_its_whole_stack() -> None:
    ring = make_ring(2, frame=(1,))
    for t in range(1, 8):
        append(ring, show(max(t - 2, 0), t - 1, t), show(t - 1, t, t + 1))
    assert shown(ring) == [([4, 5, 6], [5, 6, 7]), ([5, 6, 7], [6, 7, 8])]


# --- memory ------------------------------------------------------------------------------------------------


def size(ring: Ring) -> int:
    columns = [*vars(ring).values(), *vars(ring.frames).values()]
    return sum(value.nbytes for value in columns if isinstance(value, Tensor))


def test_each_frame_is_stored_once() -> None:
    ring, one_frame = make_ring(100, 4, 4, frame=(50, 20)), 4 * 50 * 20
    # 25 rows of transitions, one that the newest led to, 3 of older frames; the zero frame, room for finals
    assert size(ring) == (29 * 4 + 1 + 14) * one_frame + 29 * 4 * 23 + 4 + 4 * 8


def test_the_overflow_for_final_frames_grows_once_and_is_reused(make_games: MakeGames) -> None:
    games, ring = make_games(4, 1.0, stack=2), make_ring(400, 4, 2)
    empty = size(ring)
    for _ in range(101):
        ring.append(*games.play())
    full = size(ring)
    assert (
        (400 - 50) * 8 <= full - empty <= 2 * 350 * 8
    )  # of 400 finals of 8 bytes 50 have room beside the rows
    for _ in range(1000):
        ring.append(*games.play())
    assert size(ring) == full


def test_an_overflow_of_final_frames_does_not_move_the_main_frames(make_games: MakeGames) -> None:
    games, ring = make_games(4, 1.0, stack=2), make_ring(400, 4, 2)
    where = ring.frames.main.data_ptr()
    for _ in range(200):
        ring.append(*games.play())
    assert ring.frames.main.data_ptr() == where


def test_a_capacity_beyond_memory_is_refused_and_the_largest_fitting_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 100 floats and a row's 23 bytes are 423: 236 places fit, of which 4 · 8 hold no transition
    monkeypatch.setattr("sqn_rl.parts.replay.ring.available_bytes", lambda device: 100_000)
    with pytest.raises(SettingError, match="capacity = 205: expected at most 204: each takes 423 bytes"):
        make_ring(205, 8, 4, (10, 10))
    assert make_ring(204, 8, 4, (10, 10)).places * 423 <= 100_000


# --- what samplers receive --------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", [1, 3])
def test_the_newest_and_retired_rows_follow_the_window_of_stored_transitions(
    make_games: MakeGames, stack: int
) -> None:
    games, ring = make_games(2, 0.3, stack=stack), make_ring(10, 2, stack)
    inside: set[int] = set()
    for _ in range(40):
        ring.append(*games.play())
        newest, retired = (set(range(row.start, row.stop)) for row in (ring.newest_row, ring.retired_row))
        assert len(newest) == 2
        assert not newest & inside
        assert len(retired) == (2 if len(inside) == 10 else 0)
        assert retired <= inside
        inside = inside - retired | newest
        assert set(ring.place(torch.arange(len(ring))).tolist()) == inside
        assert max(inside) < ring.places


def test_an_observation_shape_that_does_not_match_frame_stack_is_refused() -> None:
    with pytest.raises(SettingError, match="frame_stack = 3: expected 2"):
        Ring(
            capacity=4,
            num_envs=1,
            observation_shape=(2, 5),
            observation_dtype=torch.uint8,
            frame_stack=3,
            device="cpu",
        )
