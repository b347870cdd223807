"""A ring of several lanes is compared with one plain ring for each lane, for any order of appended rows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqn_rl import NStep, OneStep, SettingError, UniformReplay
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.ring_state import load_ring_state, ring_state
from sqn_rl.types import Piece

MakeGames = Callable[..., Any]
Event = tuple[int, int, str]

LANES, ENVS, WINDOW = 3, 2, 7
"""Number of lanes; environments and rows of each lane."""


def make_ring(lanes: int, stack: int) -> Ring:
    return Ring(
        capacity=WINDOW * ENVS * lanes,
        num_envs=ENVS * lanes,
        observation_shape=(2,) if stack == 1 else (stack, 2),
        observation_dtype=torch.float32,
        frame_stack=stack,
        device="cpu",
        lanes=lanes,
    )


def readable(ring: Ring, column: int, n: int) -> list[Any]:
    """Everything that can be read of one environment's transitions, oldest first; places as rows."""
    place = ring.place(torch.arange(len(ring)))
    place = place[place % ring.num_envs == column]
    if not len(place):
        return []
    batch = NStep(gamma=0.5, n=n, soft=False).gather(ring, place)
    columns = [each for each in batch[:6] if each is not None]
    columns += [ring.observe_next(place), ring.is_last(place), ring.lookahead(place, n)[1]]
    columns += [ring.next_places(place, n) // ring.num_envs]
    return [column.tolist() for column in columns]


EVENTS = st.lists(
    st.tuples(st.integers(0, LANES - 1), st.integers(0, 9), st.sampled_from(["nothing", "cut", "save"])),
    min_size=1,
    max_size=15,
)
"""A lane, the number of rows appended to it, and what happens before: a cut of its first environment, or a
save and restore of the ring."""


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    EVENTS, st.sampled_from([1, 3]), st.sampled_from([0.0, 0.1, 0.6]), st.integers(1, 5), st.integers(0, 99)
)
def test_every_lane_equals_a_plain_ring_with_the_same_rows(
    make_games: MakeGames, events: list[Event], stack: int, ending: float, n: int, seed: int
) -> None:
    ring, plain = make_ring(LANES, stack), [make_ring(1, stack) for _ in range(LANES)]
    games = [make_games(ENVS, ending, 100 * seed + lane, stack) for lane in range(LANES)]
    kept: list[Piece] = []
    for lane, rows, before in events:
        if before == "cut":
            games[lane].restart(torch.tensor([0]))
            plain[lane].cut(torch.tensor([0]))
            ring.cut(torch.tensor([lane * ENVS]))
        if before == "save":
            ring, kept = save_and_restore(ring, kept, stack)
        for _ in range(rows):
            played = games[lane].play()
            plain[lane].append(*played)
            ring.append(*played, lane=lane)
            newest, retired = plain[lane].newest_row, plain[lane].retired_row
            assert ring.newest_row.start // ring.num_envs == newest.start // ENVS
            assert len(range(*ring.retired_row.indices(ring.places))) == retired.stop - retired.start
        assert len(ring) == sum(map(len, plain))
        assert ring.place(torch.arange(len(ring))).unique().numel() == len(ring)
        holds = ring.holds(torch.arange(ring.places))
        assert holds.nonzero().flatten().tolist() == sorted(ring.place(torch.arange(len(ring))).tolist())
        for other in range(LANES):
            for env in range(ENVS):
                assert readable(ring, other * ENVS + env, n) == readable(plain[other], env, n)


def save_and_restore(ring: Ring, kept: list[Piece], stack: int) -> tuple[Ring, list[Piece]]:
    """The ring restored from a checkpoint, and the rows in the checkpoint, each of which is written once."""
    state = ring_state(ring)
    kept = [piece for piece in kept if piece[1] > state["rows"].begin]
    kept += state["rows"].since(kept[-1][1] if kept else 0)
    restored = make_ring(LANES, stack)
    restored.frames.main.fill_(float("nan"))  # what is not restored must not be read
    restored.frames.main[restored.places] = 0
    load_ring_state(restored, state | {"rows": kept})
    assert ring_state(restored)["rows"].begin == state["rows"].begin
    assert (restored.newest_row, restored.retired_row) == (ring.newest_row, ring.retired_row)
    return restored, kept


def test_a_slow_lane_keeps_its_rows(make_games: MakeGames) -> None:
    ring, games = make_ring(2, 1), [make_games(ENVS, 0.1, seed) for seed in range(2)]
    first = games[1].play()
    ring.append(*first, lane=1)
    for _ in range(10 * WINDOW):
        ring.append(*games[0].play(), lane=0)
    assert ring.observe(torch.tensor([ENVS, ENVS + 1])).tolist() == first[0].tolist()
    assert len(ring) == (WINDOW + 1) * ENVS
    assert ring_state(ring)["rows"].begin == 0  # the first row is still needed


def make_replay(lanes: int) -> UniformReplay:
    return UniformReplay(
        capacity=60,
        num_envs=6,
        observation_shape=(2,),
        observation_dtype=torch.float32,
        frame_stack=1,
        returns=OneStep(gamma=0.9),
        seed=0,
        device="cpu",
        lanes=lanes,
    )


def test_a_state_with_another_number_of_lanes_is_refused() -> None:
    with pytest.raises(ValueError, match="lanes was 2 in the replay saved; here it is 3"):
        make_replay(3).load_state_dict(make_replay(2).state_dict())


def test_lanes_that_do_not_divide_the_environments_are_refused() -> None:
    with pytest.raises(SettingError, match="lanes = 4: expected a divisor of 6"):
        make_replay(4)


def test_every_transition_of_every_lane_is_drawn(make_games: MakeGames) -> None:
    replay, games = make_replay(3), [make_games(2, 0.1, seed) for seed in range(3)]
    for lane, rows in enumerate((25, 3, 0)):
        for _ in range(rows):
            replay.store(*games[lane].play(), lane=lane)
    places = replay.draw(2000).place.unique()
    assert len(places) == len(replay) == 2 * (10 + 3)
    assert bool(replay.ring.holds(places).all())


def test_the_state_of_a_single_lane_has_no_lanes_entry() -> None:
    assert "lanes" not in make_replay(1).state_dict()["_storage"]
