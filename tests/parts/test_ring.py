"""Ring, returns and uniform replay, against a plain list of everything that happened."""

from typing import NamedTuple

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from sqn_rl import OneStep, SettingError, Step, UniformReplay

GAMMA = 0.9
SHAPE = (2,)


class Transition(NamedTuple):
    observation: list[float]
    action: int
    reward: float
    next_observation: list[float]
    terminated: bool


class Games:
    """N games that end at random, in every way a game can; no two observations are alike."""

    def __init__(self, num_envs: int, ending: float, seed: int = 0) -> None:
        self.num_envs, self.ending = num_envs, ending
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = 0
        self.observation = self._new_observations()

    def _new_observations(self) -> Tensor:
        first, self.seen = self.seen, self.seen + self.num_envs
        return torch.arange(first, self.seen, dtype=torch.float32).unsqueeze(-1) + torch.tensor([0.0, 0.5])

    def _chance(self, probability: float) -> Tensor:
        return torch.rand(self.num_envs, generator=self.generator) < probability

    def play(self) -> tuple[Tensor, Tensor, Step]:
        before, following = self.observation, self._new_observations()
        action = torch.randint(5, (self.num_envs,), generator=self.generator)
        over, lost_life = self._chance(self.ending), self._chance(self.ending)
        truncated = self._chance(self.ending) & ~over
        ended = over | truncated
        after_reset = torch.where(ended.unsqueeze(-1), self._new_observations(), following)
        reward = torch.randn(self.num_envs, generator=self.generator)
        step = Step(after_reset, following, reward, over | lost_life & ~truncated, truncated, ended, reward)
        self.observation = after_reset
        return before, action, step


def make_replay(capacity: int, num_envs: int = 1, seed: int = 0, gamma: float = GAMMA) -> UniformReplay:
    returns = OneStep(gamma=gamma)
    where = {"observation_shape": SHAPE, "observation_dtype": torch.float32, "device": "cpu"}
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


@pytest.mark.parametrize("ending", [0.0, 0.15, 0.6, 1.0])
@pytest.mark.parametrize(("num_envs", "capacity"), [(1, 1), (1, 30), (3, 3), (3, 31), (8, 100)])
def test_every_transition_comes_back_as_it_happened(num_envs: int, capacity: int, ending: float) -> None:
    games, replay, happened = Games(num_envs, ending), make_replay(capacity, num_envs), []
    room = capacity // num_envs * num_envs
    for _ in range(80):
        played = games.play()
        replay.extend(*played)
        happened += rows(*played)
        assert len(replay) == min(len(happened), room)
        assert stored(replay) == happened[-room:]


def test_what_is_drawn_is_what_is_stored() -> None:
    games, replay, happened = Games(3, 0.3), make_replay(31, 3), []
    for _ in range(50):
        played = games.play()
        replay.extend(*played)
        happened += rows(*played)
        batch = replay.sample(20)
        columns = (batch.observation, batch.action, batch.reward, batch.next_observation, batch.terminated)
        drawn = {Transition(*row).__repr__() for row in zip(*(c.tolist() for c in columns), strict=True)}
        assert drawn <= {transition.__repr__() for transition in happened[-30:]}


def test_what_is_stored_is_a_copy() -> None:
    games, replay = Games(2, 0.0), make_replay(10, 2)
    before, action, step = games.play()
    replay.extend(before, action, step)
    kept = stored(replay)
    for tensor in (before, action, *step):
        tensor.zero_()
    assert stored(replay) == kept


def test_what_is_drawn_can_be_written_to() -> None:
    games, replay = Games(2, 0.5), make_replay(10, 2)
    for _ in range(5):
        replay.extend(*games.play())
    kept = stored(replay)
    for tensor in replay.sample(50):
        tensor.zero_()
    assert stored(replay) == kept


def test_the_room_of_final_observations_is_used_again() -> None:
    games, replay = Games(4, 1.0), make_replay(400, 4)

    def elements() -> int:
        return sum(value.numel() for value in vars(replay.ring).values() if isinstance(value, Tensor))

    for _ in range(101):
        replay.extend(*games.play())
    full = elements()
    for _ in range(1000):
        replay.extend(*games.play())
    assert elements() == full


def test_an_observation_lies_once() -> None:
    games, replay = Games(1, 0.0), make_replay(1000)
    for _ in range(1500):
        replay.extend(*games.play())
    seen = replay.ring.observation[replay.ring.observation.any(-1)]
    assert len(seen) == 1001  # and the one that the newest transition led to
    assert len(seen.unique(dim=0)) == 1001


@pytest.mark.parametrize("ending", [0.0, 0.3, 1.0])
def test_experience_that_starts_anew_follows_from_nothing(ending: float) -> None:
    replay, happened = make_replay(30, 3), []
    for session in range(20):
        games = Games(3, ending, seed=session)
        games.observation += 1000 * (session + 1)
        replay.cut()
        for _ in range(1 + session % 4):
            played = games.play()
            replay.extend(*played)
            happened += rows(*played)
        assert stored(replay) == happened[-30:]


def test_bytes_stay_bytes() -> None:
    where = {"observation_shape": (128,), "observation_dtype": torch.uint8, "device": "cpu"}
    replay = UniformReplay(capacity=4, num_envs=1, returns=OneStep(gamma=GAMMA), seed=0, **where)
    ram, no = torch.arange(128, dtype=torch.uint8).unsqueeze(0), torch.tensor([False])
    replay.extend(ram, torch.tensor([1]), Step(ram, ram + 100, torch.ones(1), no, no, no, torch.ones(1)))
    batch = replay.sample(3)
    assert batch.observation.dtype == batch.next_observation.dtype == torch.uint8
    assert torch.equal(batch.next_observation[2], ram[0] + 100)


# --- drawing -----------------------------------------------------------------------------------------------


def filled(steps: int = 37, seed: int = 0) -> UniformReplay:
    replay, games = make_replay(25, seed=seed), Games(1, 0.2)
    for _ in range(steps):
        replay.extend(*games.play())
    return replay


@pytest.mark.parametrize("steps", [10, 37])
def test_every_transition_is_equally_likely(steps: int) -> None:
    replay = filled(steps)
    counts = replay.sample(20_000).place.bincount(minlength=26)
    assert chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
    assert (counts > 0).sum() == len(replay) == min(steps, 25)


def test_the_generator_is_its_own() -> None:
    before = torch.get_rng_state()
    drawn = filled().sample(50).place
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(filled().sample(50).place, drawn)
    assert not torch.equal(filled(seed=1).sample(50).place, drawn)


def test_more_than_there_are_is_drawn_with_replacement() -> None:
    assert len(filled(2).sample(64).action) == 64


def test_nothing_is_drawn_from_nothing() -> None:
    with pytest.raises(IndexError, match="nothing is stored"):
        make_replay(10).sample(1)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("capacity", "num_envs"), [(0, 1), (-5, 1), (7, 8), (10.0, 1)])
def test_capacity_is_refused(capacity: float, num_envs: int) -> None:
    with pytest.raises(SettingError, match="capacity"):
        make_replay(capacity, num_envs)


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_gamma_is_refused(gamma: float) -> None:
    with pytest.raises(SettingError, match="gamma"):
        make_replay(10, gamma=gamma)
