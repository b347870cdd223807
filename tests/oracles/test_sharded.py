"""Sharded replay: against its equation, against one plain replay, and after the loss of a shard."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sqn_rl import NStep, PrioritizedReplay, SettingError, ShardedReplay, WiringError
from sqn_rl.errors import NumericsError, ReplayError
from sqn_rl.parts.hosting import LocalHost
from sqn_rl.types import Batch, Chunk

ACTORS, ENVS, ROWS = 4, 2, 5
OMEGA, BETA = 0.7, 0.6
PRIORITIES = {"omega": OMEGA, "beta": BETA, "epsilon": 0.01, "td_error": "mean", "steps": 1000}


class Losing(LocalHost):
    """A host whose objects can be lost, as if their machine failed."""

    lost: frozenset[int] = frozenset()

    def call(self, number: int, method: str, *arguments: Any) -> Any:
        return self if number in self.lost else super().call(number, method, *arguments)

    def answer(self, ticket: Any) -> Any:
        if ticket is self:
            raise ReplayError("unplugged")
        return ticket


def facts(lanes: int) -> dict[str, Any]:
    returns = NStep(gamma=0.9, n=2, soft=False)
    sizes = {"capacity": 12 * lanes * ENVS, "num_envs": lanes * ENVS, "observation_shape": (3,)}
    return {
        **PRIORITIES,
        **sizes,
        "observation_dtype": torch.float32,
        "frame_stack": 1,
        "returns": returns,
        "lanes": lanes,
        "device": "cpu",
    }


def make(shards: int, actors: int = ACTORS) -> ShardedReplay:
    replay = ShardedReplay(shards=shards, seed=7, **facts(actors))
    replay.use_host(Losing(replay.make_shard, shards))
    return replay


def chunks(seed: int, count: int) -> Iterator[Chunk]:
    """Chunks of random episodes, in which every transition has a different reward."""
    generator = np.random.default_rng(seed)
    for serial in range(count):
        ended = generator.random((ROWS, ENVS)) < 0.2
        terminated = ended & (generator.random((ROWS, ENVS)) < 0.5)
        yield Chunk(
            serial=serial,
            version=0,
            begins=serial == 0,
            observation=generator.normal(size=(ROWS + 1, ENVS, 3)).astype(np.float32),
            action=generator.integers(3, size=(ROWS, ENVS)),
            columns={
                "reward": generator.normal(size=(ROWS, ENVS)).astype(np.float32),
                "terminated": terminated,
                "truncated": ended & ~terminated,
                "ended": ended,
                "score": np.zeros((ROWS, ENVS)),
            },
            final=generator.normal(size=(int(ended.sum()), 3)).astype(np.float32),
            priority=generator.normal(size=(2, ROWS, ENVS)).astype(np.float32),
        )


def fill(replay: Any, seed: int = 0, count: int = 4, actors: int = ACTORS) -> None:
    """Store chunks; the errors differ by actor, so that the sums of the shards differ."""
    for chunk in chunks(seed, count * actors):
        actor = chunk.serial % actors
        changed = {"begins": chunk.serial < actors, "priority": chunk.priority * (1 + 3 * actor)}
        replay.store_chunk(chunk._replace(**changed), lane=actor)


def values(replay: ShardedReplay) -> list[np.ndarray]:
    """p^ω of all places, by shard."""
    return [shard["_sampler"]["value"].numpy() for shard in replay.state_dict()["shards"]]


def found(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The shard of each transition, and its place there."""
    place = batch.place.numpy()
    return place >> 40, place & (2**40 - 1)


def learn(replay: Any, batch: Batch, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    replay.update_priority(batch.place, 3 * torch.randn(2, len(batch.place), generator=generator))


def equal(one: Batch, other: Batch) -> bool:
    pairs = zip(one.columns().items(), other.columns().items(), strict=True)
    return all(name == same and torch.equal(column, its) for (name, column), (same, its) in pairs)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_importance_weights_use_the_probabilities_of_the_actual_draws(shards: int) -> None:
    """w_i ∝ P(i)^−β with P(i) = (B_s / B) p_i^ω / T_s, while the sums that the learner knows are old."""
    replay, batch_size = make(shards), 32
    fill(replay)
    for round_ in range(6):
        known = [value.sum() for value in values(replay)]
        batch = replay.draw(batch_size)
        shard_B, place_B = found(batch)
        count = np.bincount(shard_B, minlength=shards)
        if round_ == 0:  # the learner has just fetched the sums
            assert (np.abs(count - batch_size * np.array(known) / sum(known)) < 1).all()
        value = values(replay)
        p = np.array([value[s][place] / value[s].sum() for s, place in zip(shard_B, place_B, strict=True)])
        probability = count[shard_B] / batch_size * p
        expected = (probability / probability.min()) ** -BETA
        torch.testing.assert_close(batch.weight, torch.from_numpy(expected).float(), rtol=1e-6, atol=0)
        learn(replay, batch, round_)
        fill(replay, seed=round_ + 1, count=1)


def test_transitions_are_sampled_in_proportion_to_their_priorities() -> None:
    replay, draws = make(2), 600
    fill(replay)
    value = np.concatenate(values(replay))
    counts, offset = np.zeros(len(value)), len(value) // 2
    for _ in range(draws):
        shard_B, place_B = found(replay.draw(16))
        np.add.at(counts, shard_B * offset + place_B, 1)
    expected = 16 * draws * value / value.sum()
    deviation = np.abs(counts - expected)[expected > 0] / np.sqrt(expected[expected > 0])
    assert deviation.max() < 4.5  # of 80 Poisson numbers; stratified ones deviate less
    assert counts[expected == 0].sum() == 0


def test_td_errors_set_the_priorities_of_the_transitions_drawn() -> None:
    """p = mean over the networks of |δ|, plus ε; a place that was drawn twice has its last error."""
    replay = make(2)
    fill(replay)
    batch = replay.draw(32)
    td_error = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    replay.update_priority(batch.place, td_error)
    value, expected = values(replay), dict[tuple[int, int], float]()
    for shard, place, p in zip(*found(batch), td_error.abs().double().mean(0) + 0.01, strict=True):
        expected[shard, place] = p.item() ** OMEGA
    assert len(expected) > 20
    assert [value[shard][place] for shard, place in expected] == pytest.approx(
        [*expected.values()], rel=1e-12
    )


def test_one_shard_equals_a_plain_prioritized_replay() -> None:
    sharded, plain = make(1), PrioritizedReplay(seed=8, **facts(ACTORS))
    for round_ in range(5):
        for replay in (sharded, plain):
            fill(replay, seed=round_, count=2)
            replay.anneal(200 * round_)
        one, other = sharded.draw(16), plain.draw(16)
        assert equal(one, other)
        for replay, batch in ((sharded, one), (plain, other)):
            learn(replay, batch, round_)


def test_shards_hold_the_same_transitions_as_one_plain_replay() -> None:
    """The same transitions can be drawn as from one plain replay with all lanes."""
    sharded, plain = make(2), PrioritizedReplay(seed=8, **facts(ACTORS))
    for replay in (sharded, plain):
        fill(replay)
    rows = [set[tuple[float, ...]](), set[tuple[float, ...]]()]
    for seen, replay in zip(rows, (sharded, plain), strict=True):
        for _ in range(400):
            batch = replay.draw(32)
            columns = (
                batch.observation,
                batch.next_observation,
                batch.reward[:, None],
                batch.discount[:, None],
            )
            seen |= {*map(tuple, torch.cat(columns, -1).tolist())}
    assert rows[0] == rows[1]
    assert len(rows[0]) == 12 * ACTORS * ENVS


def test_a_sharded_replay_continues_exactly_from_its_saved_state() -> None:
    replay, again = make(2), make(2)
    fill(replay)
    learn(replay, replay.draw(16), 0)
    again.load_state_dict(replay.state_dict())
    for round_ in range(3):
        one, other = replay.draw(16), again.draw(16)
        assert equal(one, other)
        for each, batch in ((replay, one), (again, other)):
            learn(each, batch, round_)
            fill(each, seed=9 + round_, count=1)


def test_a_lost_shard_raises_an_error_and_is_empty_when_restored() -> None:
    replay, again = make(2), make(2)
    fill(replay)
    learn(replay, replay.draw(16), 0)
    replay._host.lost = frozenset({1})  # type: ignore[attr-defined]
    learn(
        replay, Batch.of({**replay_free_batch(), "place": torch.tensor([1 << 40])}), 0
    )  # does not wait for an answer
    with pytest.raises(ReplayError, match="unplugged"):
        replay.draw(16)
    state = replay.state_dict()
    assert [shard is None for shard in state["shards"]] == [False, True]
    again.load_state_dict(state)
    assert again.advice() == "replay: shard 1 began empty, as its transitions were lost"
    assert {*found(again.draw(16))[0]} == {0}
    fill(again, seed=3, count=1)
    again.draw(16)  # whose answers have the new sums
    assert {*found(again.draw(16))[0]} == {0, 1}
    assert again.lazy_state_dict()["tables"] == [0, 3]


def replay_free_batch() -> dict[str, torch.Tensor]:
    one, no = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
    return {
        "observation": one,
        "action": one.long(),
        "reward": one,
        "next_observation": one,
        "terminated": no,
        "discount": one,
    }


def test_invalid_settings_td_errors_and_saved_states_are_refused() -> None:
    with pytest.raises(SettingError, match="shards = 3: expected a divisor of 4, the actors"):
        make(3)
    with pytest.raises(WiringError, match="shards take what actors collect; choose collect=ray"):
        ShardedReplay(shards=1, seed=0, **{**facts(ACTORS), "lanes": None})
    with pytest.raises(SettingError, match="shards = 0"):
        make(0)
    soft = {**facts(ACTORS), "returns": type("Soft", (), {"independent": False})()}
    with pytest.raises(WiringError, match=r"a shard has no policy.*returns.soft=false"):
        ShardedReplay(shards=2, seed=0, **soft)
    replay = make(2)
    with pytest.raises(IndexError, match="nothing is stored yet"):
        replay.draw(4)
    fill(replay)
    batch = replay.draw(4)
    replay._host.lost = frozenset({0, 1})  # type: ignore[attr-defined]
    for error in (torch.nan, torch.inf, 1e305):
        with pytest.raises(NumericsError, match=r"NaN or infinite.*too large"):
            replay.update_priority(batch.place, torch.full((2, 4), error, dtype=torch.float64))
    replay._host.lost = frozenset()  # type: ignore[attr-defined]
    state = replay.state_dict()
    with pytest.raises(ValueError, match="shards was 2 in the replay saved; here it is 4"):
        make(4).load_state_dict(state)
