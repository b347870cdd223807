"""Ring, returns and uniform replay, compared with a plain list of all transitions played."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from sqn_rl import OneStep, SettingError, Step, UniformReplay
from sqn_rl.parts.replay.ring import Ring

GAMMA = 0.9
SHAPE = (2,)

MakeGames = Callable[..., Any]
Filled = Callable[..., UniformReplay]


class Transition(NamedTuple):
    observation: list[float]
    action: int
    reward: float
    next_observation: list[float]
    terminated: bool


def make_replay(capacity: int, num_envs: int = 1, seed: int = 0, gamma: float = GAMMA) -> UniformReplay:
    returns = OneStep(gamma=gamma)
    where = {
        "observation_shape": SHAPE,
        "observation_dtype": torch.float32,
        "frame_stack": 1,
        "device": "cpu",
    }
    return UniformReplay(capacity=capacity, num_envs=num_envs, returns=returns, seed=seed, **where)


def rows(before: Tensor, action: Tensor, step: Step) -> list[Transition]:
    columns = (before, action, step.reward, step.next_observation, step.terminated)
    return [Transition(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def stored(replay: UniformReplay) -> list[Transition]:
    """Everything in the replay, oldest first."""
    batch = replay.returns.gather(replay.ring, replay.ring.place(torch.arange(len(replay))))
    columns = (batch.observation, batch.action, batch.reward, batch.next_observation, batch.terminated)
    assert torch.equal(batch.discount, torch.full((len(replay),), GAMMA))
    return [Transition(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def test_a_frame_stack_of_more_than_255_frames_is_refused() -> None:
    deep = {"capacity": 10, "num_envs": 1, "observation_dtype": torch.float32, "device": "cpu"}
    Ring(observation_shape=(255, 1), frame_stack=255, **deep)
    with pytest.raises(SettingError, match="frame_stack = 256: expected at most 255"):
        Ring(observation_shape=(256, 1), frame_stack=256, **deep)


def test_reusing_an_observation_tensor_in_place_does_not_change_the_replay() -> None:
    """As a caller does that writes the first observation of a game over the last one of the game before."""
    replay, now = make_replay(10), torch.tensor([[1.0, 1.0]])
    for ended, then in ((True, 2.0), (False, 3.0)):
        before, flag = now.clone(), torch.tensor([ended])
        led_to = now + 10
        step = Step(led_to, led_to, torch.ones(1), flag, ~flag, flag, torch.ones(1))
        replay.store(now, torch.zeros(1, dtype=torch.int64), step)
        assert stored(replay)[-1].observation == before[0].tolist()
        now = led_to
        now.fill_(then)
    assert [each.observation for each in stored(replay)] == [[1.0, 1.0], [2.0, 2.0]]
    assert [each.next_observation for each in stored(replay)] == [[11.0, 11.0], [12.0, 12.0]]


@pytest.mark.parametrize("ending", [0.0, 0.15, 0.6, 1.0])
@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 1), (1, 30), (3, 3), (3, 31), (8, 100)])
def test_the_replay_holds_exactly_the_newest_transitions_played(
    make_games: MakeGames, num_envs: int, capacity: int, ending: float
) -> None:
    games, replay, happened = make_games(num_envs, ending), make_replay(capacity, num_envs), []
    room = capacity // num_envs * num_envs
    for _ in range(80):
        played = games.play()
        replay.store(*played)
        happened += rows(*played)
        assert len(replay) == min(len(happened), room)
        assert stored(replay) == happened[-room:]


def test_every_drawn_transition_is_one_that_was_stored(make_games: MakeGames) -> None:
    games, replay, happened = make_games(3, 0.3), make_replay(31, 3), []
    for _ in range(50):
        played = games.play()
        replay.store(*played)
        happened += rows(*played)
        batch = replay.draw(20)
        columns = (batch.observation, batch.action, batch.reward, batch.next_observation, batch.terminated)
        drawn = {Transition(*row).__repr__() for row in zip(*(c.tolist() for c in columns), strict=True)}
        assert drawn <= {transition.__repr__() for transition in happened[-30:]}


def test_the_replay_stores_copies(make_games: MakeGames) -> None:
    games, replay = make_games(2, 0.0), make_replay(10, 2)
    before, action, step = games.play()
    replay.store(before, action, step)
    kept = stored(replay)
    for tensor in (before, action, *step):
        if tensor is not None:
            tensor.zero_()
    assert stored(replay) == kept


def test_writing_into_a_drawn_batch_does_not_change_the_replay(make_games: MakeGames) -> None:
    games, replay = make_games(2, 0.5), make_replay(10, 2)
    for _ in range(5):
        replay.store(*games.play())
    kept = stored(replay)
    for tensor in replay.draw(50)[:7]:
        tensor.zero_()
    assert stored(replay) == kept


def test_the_memory_of_final_observations_is_reused(make_games: MakeGames) -> None:
    games, replay = make_games(4, 1.0), make_replay(400, 4)

    def elements() -> int:
        columns = [*vars(replay.ring).values(), *vars(replay.ring.frames).values()]
        return sum(value.numel() for value in columns if isinstance(value, Tensor))

    for _ in range(101):
        replay.store(*games.play())
    full = elements()
    for _ in range(1000):
        replay.store(*games.play())
    assert elements() == full


def test_each_observation_is_stored_once(make_games: MakeGames) -> None:
    games, replay = make_games(1, 0.0), make_replay(1000)
    for _ in range(1500):
        replay.store(*games.play())
    frames = replay.ring.frames.main[:1001]
    seen = frames[frames.any(-1)]
    assert len(seen) == 1001  # with the one that the newest transition led to
    assert len(seen.unique(dim=0)) == 1001


@pytest.mark.parametrize("ending", [0.0, 0.3, 1.0])
def test_a_cut_separates_the_episodes_before_and_after(make_games: MakeGames, ending: float) -> None:
    replay, happened = make_replay(30, 3), []
    for session in range(20):
        games = make_games(3, ending, seed=session)
        games.observation += 1000 * (session + 1)
        replay.cut()
        for _ in range(1 + session % 4):
            played = games.play()
            replay.store(*played)
            happened += rows(*played)
        assert stored(replay) == happened[-30:]


def test_a_step_without_masks_does_not_keep_those_of_the_overwritten_step() -> None:
    ring = Ring(
        capacity=1, num_envs=1, observation_shape=(1,), observation_dtype=torch.float32, frame_stack=1,
        device="cpu",
    )  # fmt: skip
    observation, no, action = torch.zeros(1, 1), torch.zeros(1, dtype=torch.bool), torch.tensor([1])
    plain = Step(observation, observation, torch.zeros(1), no, no, no, torch.zeros(1).double())
    mask = torch.tensor([[True, False]])
    for _ in range(3):  # more often than there are rows
        ring.append(
            observation,
            1 - action,
            plain._replace(action_mask=mask, next_action_mask=mask, log_mu=torch.full((1,), -3.0)),
        )
    place = ring.newest_places()
    assert ring.log_mu is not None
    assert torch.equal(ring.allowed(place), mask)
    assert torch.equal(ring.allowed_next(place), mask)
    assert ring.log_mu[place] == -3
    for _ in range(2):
        ring.append(observation, action, plain)
        place = ring.newest_places()
        assert ring.allowed(place).all()
        assert ring.allowed_next(place).all()
        assert ring.log_mu[place] == 0


def test_observations_of_bytes_stay_bytes() -> None:
    where = {"observation_shape": (128,), "observation_dtype": torch.uint8, "frame_stack": 1, "device": "cpu"}
    replay = UniformReplay(capacity=4, num_envs=1, returns=OneStep(gamma=GAMMA), seed=0, **where)
    ram, no = torch.arange(128, dtype=torch.uint8).unsqueeze(0), torch.tensor([False])
    replay.store(ram, torch.tensor([1]), Step(ram, ram + 100, torch.ones(1), no, no, no, torch.ones(1)))
    batch = replay.draw(3)
    assert batch.observation.dtype == batch.next_observation.dtype == torch.uint8
    assert torch.equal(batch.next_observation[2], ram[0] + 100)


# --- drawing -----------------------------------------------------------------------------------------------


@pytest.fixture
def filled(make_games: MakeGames) -> Filled:
    """A replay of capacity 25, in which ``steps`` steps of one environment were stored."""

    def fill(steps: int = 37, seed: int = 0) -> UniformReplay:
        replay, games = make_replay(25, seed=seed), make_games(1, 0.2)
        for _ in range(steps):
            replay.store(*games.play())
        return replay

    return fill


@pytest.mark.parametrize("steps", [10, 37])
def test_every_transition_is_equally_likely(filled: Filled, steps: int) -> None:
    replay = filled(steps)
    counts = replay.draw(20_000).place.bincount(minlength=26)
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
    assert (counts > 0).sum() == len(replay) == min(steps, 25)


def test_draws_depend_only_on_the_seed_of_the_replay(filled: Filled) -> None:
    before = torch.get_rng_state()
    drawn = filled().draw(50).place
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(filled().draw(50).place, drawn)
    assert not torch.equal(filled(seed=1).draw(50).place, drawn)


def test_a_batch_larger_than_the_replay_is_drawn_with_replacement(filled: Filled) -> None:
    assert len(filled(2).draw(64).action) == 64


def test_drawing_from_an_empty_replay_fails() -> None:
    with pytest.raises(IndexError, match="nothing is stored"):
        make_replay(10).draw(1)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capacity", "num_envs"), [(0, 1), (-5, 1), (7, 8), (10.0, 1)])
def test_an_invalid_capacity_is_refused(capacity: float, num_envs: int) -> None:
    with pytest.raises(SettingError, match="capacity"):
        make_replay(capacity, num_envs)


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_an_invalid_gamma_is_refused(gamma: float) -> None:
    with pytest.raises(SettingError, match="gamma"):
        make_replay(10, gamma=gamma)
