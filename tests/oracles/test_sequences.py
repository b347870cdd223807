"""Sequences drawn from a replay, against a brute-force reading of the episodes that were stored in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sqn_rl import NStep, OneStep, SequenceReplay, SettingError, TreeBackup, WiringError
from sqn_rl.parts.replay.sequences import sequence_error
from sqn_rl.types import Batch, Piece

LANES, ENVS, WINDOW, GAMMA, STATE = 2, 2, 17, 0.5, 3
NUM_ENVS = LANES * ENVS


class Remembers:
    """The only attribute of a Q-network that a replay reads."""

    state_size = STATE


@pytest.fixture(autouse=True)
def float32() -> None:
    """The dtype in which memories are stored."""
    torch.set_default_dtype(torch.float32)


def make_replay(**fields: Any) -> SequenceReplay:
    sampling = {"eta": 0.9, "omega": 1.0, "beta": 0.4, "epsilon": 1e-3, "td_error": "mean", "steps": 100}
    lengths = {"length": 3, "burn_in": 2, "stride": 3}
    stack = fields.get("frame_stack", 1)
    sizes = {
        "capacity": WINDOW * NUM_ENVS,
        "num_envs": NUM_ENVS,
        "lanes": LANES,
        "observation_shape": (2,) if stack == 1 else (stack, 2),
        "observation_dtype": torch.float32,
        "frame_stack": 1,
    }
    rest = {"q_net": Remembers(), "returns": OneStep(gamma=GAMMA), "seed": 0, "device": "cpu"}
    return SequenceReplay(**sampling | lengths | sizes | rest | fields)


class Row(NamedTuple):
    """A step of one environment, as it was stored."""

    observation: list[Any]
    action: int
    reward: float
    terminated: bool
    truncated: bool
    next_observation: list[Any]
    memory: list[float]


class Played:
    """Plays and stores random games, and keeps the episodes of every environment, the newest last."""

    def __init__(
        self, make_games: Callable[..., Any], replay: SequenceReplay, ending: float, seed: int
    ) -> None:
        stack = replay.ring.frame_stack
        self.replay = replay
        self.games = [make_games(ENVS, ending, LANES * seed + lane, stack) for lane in range(LANES)]
        self.episodes: list[list[list[Row]]] = [[[]] for _ in range(NUM_ENVS)]
        self.rng = torch.Generator().manual_seed(seed)

    def play(self, lane: int) -> None:
        observation, action, step = self.games[lane].play()
        memory = torch.rand(ENVS, STATE + 2, generator=self.rng)
        memory[:, -2] = torch.randint(5, (ENVS,), generator=self.rng)  # an action
        self.replay.store(observation, action, step._replace(memory=memory), lane=lane)
        columns = (
            observation,
            action,
            step.reward,
            step.terminated,
            step.truncated,
            step.next_observation,
            memory,
        )
        for env, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            episodes = self.episodes[lane * ENVS + env]
            episodes[-1].append(Row(*row))
            if step.ended[env]:
                episodes.append([])

    def cut(self, lane: int) -> None:
        """Abandon all episodes of a lane, and begin new ones."""
        self.games[lane].restart(torch.arange(ENVS))
        self.replay.cut(lane=lane)
        for env in range(lane * ENVS, (lane + 1) * ENVS):
            self.episodes[env].append([])

    def starts(self, env: int) -> dict[float, tuple[list[Row], int]]:
        """The possible starts of sequences in an environment: episode and step, by observation number."""
        states, found, after = self.replay.starts, {}, 0
        for episode in reversed(self.episodes[env]):
            for step in reversed(range(len(episode))):
                after += 1  # rows from this one on
                learns = step == 0 or (step % states.stride == 0 and step + states.burn_in < len(episode))
                if learns and after <= WINDOW:
                    found[number(episode[step].observation)] = episode, step
        return found


def number(observation: Any) -> float:
    """The number that identifies an observation."""
    newest = observation[-1] if isinstance(observation[0], list) else observation
    return float(newest[0])


def expected(episode: list[Row], start: int, replay: SequenceReplay, n: int) -> list[tuple[Any, ...]]:
    """The transitions learned from a sequence, each with the actions and rewards before both states."""
    burn_in, steps = replay.starts.burn_in if start else 0, []
    for step in range(start + burn_in, min(start + replay.starts.burn_in + LENGTH(replay), len(episode))):
        reward, last = 0.0, step
        for last in range(step, min(step + n, len(episode))):
            reward += GAMMA ** (last - step) * episode[last].reward
            if episode[last].terminated or episode[last].truncated:
                break
        end, before = episode[last], episode[:step][-1:]
        came = (
            (before[0].action, before[0].reward) if before and step > start else memory_of(episode, start)[1:]
        )
        discount = GAMMA ** (last - step + 1)
        row = episode[step]
        then = (end.next_observation, end.terminated, discount, (end.action, end.reward))
        steps.append((row.observation, row.action, reward, *then, came))
    return steps


def LENGTH(replay: SequenceReplay) -> int:
    return replay._max_steps - replay.starts.burn_in


def memory_of(episode: list[Row], start: int) -> tuple[list[float], float, float]:
    """The state, and the previous action and reward, that a sequence begins with."""
    *state, action, reward = episode[start].memory if start else [0.0] * STATE + [-1.0, 0.0]
    return state, action, reward


def drawn(batch: Batch, place: int) -> tuple[list[tuple[Any, ...]], list[float], int]:
    """The same from a batch, of the sequence that begins at a place; with its state and burn-in."""
    assert batch.sequences is not None
    own = (batch.place == place).nonzero().flatten()
    many = batch.sequences.action.shape[1]
    sequence = int(batch.observation[own[0]]) // many
    own = own[batch.observation[own] // many == sequence]
    seen = batch.sequences.observation.flatten(0, 1)
    came = [column.flatten() for column in (batch.sequences.action, batch.sequences.reward)]

    def before(step: Tensor) -> list[tuple[float, float]]:
        return list(zip(*(column[step].tolist() for column in came), strict=True))

    columns = (
        seen[batch.observation[own]].tolist(),
        batch.action[own].tolist(),
        batch.reward[own].tolist(),
        seen[batch.next_observation[own]].tolist(),
        batch.terminated[own].tolist(),
        batch.discount[own].tolist(),
        before(batch.next_observation[own]),
        before(batch.observation[own]),
    )
    sequences = batch.sequences
    return (
        list(zip(*columns, strict=True)),
        sequences.state[sequence].tolist(),
        int(sequences.burn_in[sequence]),
    )


EVENTS = st.lists(
    st.tuples(st.integers(0, LANES - 1), st.integers(1, 12), st.sampled_from(["nothing", "cut", "save"])),
    min_size=1,
    max_size=12,
)
"""A lane, the number of rows it stores, and what happens before: a cut of its episodes, or a save."""


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    EVENTS,
    st.sampled_from([1, 3]),
    st.sampled_from([0.0, 0.05, 0.3]),
    st.sampled_from([(3, 2, 3), (4, 0, 2), (1, 5, 1), (5, 3, 4)]),
    st.integers(1, 4),
    st.integers(0, 50),
)
def test_drawn_sequences_equal_the_stored_episodes(
    make_games: Callable[..., Any],
    events: list[tuple[int, int, str]],
    stack: int,
    ending: float,
    lengths: tuple[int, int, int],
    n: int,
    seed: int,
) -> None:
    length, burn_in, stride = lengths
    fields = {"length": length, "burn_in": burn_in, "stride": stride, "frame_stack": stack}

    def make() -> SequenceReplay:
        return make_replay(**fields, returns=NStep(gamma=GAMMA, n=n, soft=False))

    played = Played(make_games, make(), ending, seed)
    kept: list[Piece] = []
    for lane, rows, before in events:
        if before == "cut":
            played.cut(lane)
        if before == "save":
            played.replay, kept = saved(played.replay, make(), kept)
        for _ in range(rows):
            played.play(lane)
    replay = played.replay
    ready = replay.sampler.tree.value.nonzero()[0]
    found = {number(observation) for observation in replay.ring.observe(torch.from_numpy(ready)).tolist()}
    starts = {key: value for env in range(NUM_ENVS) for key, value in played.starts(env).items()}
    assert found == starts.keys()
    batch = replay.draw(40)
    for place in batch.place.unique().tolist():
        episode, start = starts[number(replay.ring.observe(torch.tensor([place]))[0].tolist())]
        steps, state, burnt = drawn(batch, place)
        assert burnt == (burn_in if start else 0)
        assert torch.equal(torch.tensor(state), torch.tensor(memory_of(episode, start)[0]))
        assert steps == expected(episode, start, replay, n)


def saved(
    replay: SequenceReplay, other: SequenceReplay, kept: list[Piece]
) -> tuple[SequenceReplay, list[Piece]]:
    """Restore the state into another replay, with only the new rows written again."""
    state = replay.lazy_state_dict()
    rows = state["_storage"]["rows"]
    begin = kept[-1][1] if kept else 0
    kept = [*kept, *(piece for piece in rows.since(begin))]
    state["_storage"]["rows"] = [piece for piece in kept if piece[1] > rows.begin]
    other.load_state_dict(state)
    return other, kept


def test_the_sequence_priority_interpolates_between_maximum_and_mean_error() -> None:
    error, sequence = np.array([1.0, 5.0, 3.0, 2.0]), np.array([0, 1, 0, 0])
    #  sequence 0: max 3, mean (1 + 3 + 2)/3 = 2;  1: 5 and 5
    for eta, wanted in ((0.0, [2.0, 5.0]), (1.0, [3.0, 5.0]), (0.9, [2.9, 5.0])):
        np.testing.assert_allclose(sequence_error(error, sequence, eta), wanted)


@pytest.mark.parametrize("td_error", ["mean", "max"])
def test_a_batch_sets_the_priorities_of_its_sequences(make_games: Callable[..., Any], td_error: str) -> None:
    replay = make_replay(td_error=td_error)
    played = Played(make_games, replay, 0.0, 0)
    for _ in range(12):
        for lane in range(LANES):
            played.play(lane)
    batch = replay.draw(2)
    first, *others = batch.place.unique().tolist()
    own = batch.place == first
    error = torch.zeros(2, len(batch.place))  # of two networks: 0 and 2 at each step of the first sequence,
    error[:, own] = torch.tensor([[0.0], [2.0]])
    error[:, own.nonzero()[0]] = torch.tensor([[2.0], [-6.0]])  # but 2 and -6 at one
    replay.update_priority(batch.place, error)
    highest, usual = {"mean": (4, 1), "max": (6, 2)}[td_error]
    mean = (highest + (int(own.sum()) - 1) * usual) / int(own.sum())
    value = replay.sampler.tree.value
    assert value[first] == pytest.approx(0.9 * highest + 0.1 * mean + 1e-3)
    assert others
    assert value[others] == pytest.approx([1e-3] * len(others))


def test_every_step_has_the_importance_weight_of_its_sequence(make_games: Callable[..., Any]) -> None:
    replay = make_replay()
    played = Played(make_games, replay, 0.1, 0)
    for _ in range(30):
        for lane in range(LANES):
            played.play(lane)
    replay.update_priority(*((batch := replay.draw(20)).place, torch.rand(1, len(batch.place))))
    batch = replay.draw(20)
    assert batch.weight is not None
    value = torch.from_numpy(replay.sampler.tree.value[batch.place.numpy()])
    weight = (value / value.min()) ** -0.4
    torch.testing.assert_close(batch.weight.double(), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"length": 0}, "length = 0"),
        ({"burn_in": -1}, "burn_in = -1"),
        ({"stride": 4}, "stride = 4: expected at most the length, 3"),
        ({"eta": 1.5}, "eta = 1.5"),
        (
            {"capacity": 31},
            "capacity = 31: expected at least 32: burn_in . length . stride = 8 steps of each",
        ),
    ],
)
def test_settings_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_replay(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"q_net": object()}, "object is not one; choose q_net=lstm"),
        (
            {"returns": TreeBackup(gamma=GAMMA, n=2, lmbda=1.0)},
            "TreeBackup needs .*returns=one_step or n_step",
        ),
    ],
)
def test_parts_without_support_for_sequences_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(WiringError, match=message):
        make_replay(**fields)


def test_a_step_without_memory_and_sampling_by_torchrl_are_refused(make_games: Callable[..., Any]) -> None:
    replay, games = make_replay(), make_games(ENVS, 0.0)
    with pytest.raises(ValueError, match=r"a step without the memory of its actor, \[5\] numbers each"):
        replay.store(*games.play())
    with pytest.raises(NotImplementedError):
        replay.sample(3)
