"""The state of a ring, stored as in checkpoints: each checkpoint adds only the rows that are new."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.ring_state import load_ring_state, ring_state
from sqn_rl.types import Piece

MakeGames = Callable[..., Any]


def make_ring(num_envs: int, stack: int, capacity: int = 40) -> Ring:
    shape = (2,) if stack == 1 else (stack, 2)
    where = {"observation_dtype": torch.float32, "device": "cpu"}
    return Ring(capacity=capacity, num_envs=num_envs, observation_shape=shape, frame_stack=stack, **where)


def readable(ring: Ring) -> list[Any]:
    """Everything that can be read of a ring, oldest first, and the counters with which it continues."""
    place = ring.place(torch.arange(len(ring)))
    columns = [column[place] for column in (ring.action, ring.reward, ring.terminated, ring.truncated)]
    columns += [ring.observe(place), ring.observe_next(place), ring.successor[place], ring.is_last(place)]
    counts = [ring.row_count, len(ring), ring.newest_row, ring.retired_row]
    counts += [ring.frames.free_spill, ring.frames.spill_end]
    return [*(column.tolist() for column in columns), *counts, ring._episode_age.tolist()]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("ending", [0.0, 0.1, 0.6])
@pytest.mark.parametrize(("num_envs", "stack"), [(1, 1), (3, 1), (3, 4)])
def test_a_ring_restored_from_incremental_pieces_equals_the_original(
    make_games: MakeGames, num_envs: int, stack: int, ending: float, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    games, ring, restored = make_games(num_envs, ending, seed, stack), *(make_ring(num_envs, stack),) * 2
    kept: list[Piece] = []
    for _ in range(12):
        played = [games.play() for _ in range(int(torch.randint(30, (), generator=chance)))]
        is_cut = torch.rand((), generator=chance) < 0.5
        for each in {id(ring): ring, id(restored): restored}.values():
            if is_cut:
                each.cut()
            for step in played:
                each.append(*step)
        assert readable(restored) == readable(ring)

        state = ring_state(ring)
        kept = [piece for piece in kept if piece[1] > state["rows"].begin]
        kept += state["rows"].since(kept[-1][1] if kept else 0)
        restored = make_ring(num_envs, stack)
        restored.frames.main.fill_(float("nan"))  # what is not restored must not be read
        restored.frames.main[restored.places] = 0
        load_ring_state(restored, state | {"rows": kept})
        assert readable(restored) == readable(ring)


def test_rows_since_a_checkpoint_are_only_the_new_ones(make_games: MakeGames) -> None:
    games, ring = make_games(3, 0.1), make_ring(3, 1, capacity=300)
    for _ in range(50):
        ring.append(*games.play())
    rows = ring_state(ring)["rows"]
    ((begin, end, columns),) = rows.since(48)
    assert (begin, end, len(columns["action"])) == (48, 50, 6)
    assert [*rows.since(50)] == []


def test_many_rows_are_read_in_pieces_of_limited_size(
    make_games: MakeGames, monkeypatch: pytest.MonkeyPatch
) -> None:
    games, ring, other = make_games(3, 0.3, stack=4), make_ring(3, 4), make_ring(3, 4)
    for _ in range(35):
        ring.append(*games.play())
    monkeypatch.setattr("sqn_rl.parts.replay.ring_state.PIECE_BYTES", 4 * 3 * (8 + 23))  # four rows
    state = ring_state(ring)
    assert [end - begin for begin, end, _ in state["rows"]] == [4, 4, 4, 4]
    load_ring_state(other, state)
    assert readable(other) == readable(ring)


def without_first(pieces: list[Piece]) -> list[Piece]:
    return pieces[1:]


def without_one(pieces: list[Piece]) -> list[Piece]:
    return [pieces[0], *pieces[2:]]


def without_last(pieces: list[Piece]) -> list[Piece]:
    return pieces[:-1]


@pytest.mark.parametrize("damage", [without_first, without_one, without_last, lambda pieces: []])
def test_a_state_with_missing_rows_is_refused(damage: Callable, make_games: MakeGames) -> None:
    games, ring = make_games(1, 0.1), make_ring(1, 1)
    for _ in range(30):
        ring.append(*games.play())
    state = ring_state(ring)
    pieces = [piece for row in (0, 10, 20) for piece in [(row, row + 10, state["rows"].read(row, row + 10))]]
    load_ring_state(make_ring(1, 1), state | {"rows": pieces})
    with pytest.raises(ValueError, match="are missing"):
        load_ring_state(make_ring(1, 1), state | {"rows": damage(pieces)})


def test_a_restored_ring_shares_no_memory_with_the_original(make_games: MakeGames) -> None:
    games, ring, other = make_games(2, 0.3), make_ring(2, 1), make_ring(2, 1)
    for _ in range(30):
        ring.append(*games.play())
    load_ring_state(other, ring_state(ring))
    before = readable(other)
    for value in [*vars(ring).values(), *vars(ring.frames).values()]:
        if isinstance(value, Tensor):
            value.zero_()
    assert readable(other) == before
