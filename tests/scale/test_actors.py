"""Actors in one process: their guarantees, with engines that reorder chunks and lose workers."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sqn_rl import Agent, RecipeError, compose
from sqn_rl import functional as F
from sqn_rl.errors import ReplayError
from sqn_rl.parts.actor.boltzmann import temperature_ladder
from sqn_rl.parts.actor.epsilon_greedy import epsilon_ladder
from sqn_rl.parts.collect.base import Result, Sharded, WorkerLost, ladder_positions
from sqn_rl.parts.collect.inline import InlineEngine
from sqn_rl.parts.hosting import LocalHost
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.runs.workers import WorkerMaker
from sqn_rl.training.agent import AGENT_PARTS
from sqn_rl.training.collecting.learner import learn
from sqn_rl.training.collecting.worker import Worker, packed_weights, unpack_weights
from sqn_rl.types import Counters, Request

TINY = [
    *("env=cartpole", "num_envs=2", "hidden=[8]", "batch_size=8", "warmup_steps=60", "update_ratio=0.25"),
    *("replay_capacity=400", "log_every=40", "checkpoint_every=200", "eval_episodes=2", "compile=never"),
    *("collect=inline", "collect.actors=3", "collect.rows=5", "steps=600"),
]


SHARDED = ["replay=sharded", "replay.shards=3"]


class Learner(Reporter):
    """A learner with a test engine, and all that it reports.

    Args:
        engine: runs the actors.
        overrides: of the recipe.
    """

    def __init__(self, engine: Any, *overrides: str, recipe: str = "sqn_per") -> None:
        self.recipe = compose(recipe, *TINY, *overrides).recipe
        self.parts, self.engine, self.counters = self.recipe.build(), engine, Counters()
        self.agent = Agent(**{name: self.parts[name] for name in AGENT_PARTS})
        self.states: list[Any] = []
        self.rows: list[dict[str, Any]] = []
        self.episodes: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def train(self, state: Any = None) -> "Learner":
        actors, make_worker = self.parts["collect"], WorkerMaker(self.recipe.to_yaml())
        self.engine.start(make_worker, actors.actors)
        if isinstance(replay := self.agent.replay, Sharded):
            replay.use_host(self.engine.host(make_worker.shard, replay.shards))
        env, run, everyone = self.parts["env"], self.recipe.run, [self]
        learn(
            self.agent, env, run, actors, self.engine, reporters=everyone, counters=self.counters, state=state
        )
        return self

    def note(self, text: str) -> None:
        self.notes.append(text)

    def metrics(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def episode(self, row: dict[str, Any]) -> None:
        self.episodes.append(row)

    def checkpoint(self, counters: Counters, take_state: Any) -> None:
        self.states.append(frozen(take_state()))

    def learned(self) -> list[Any]:
        """Weights, moments, priorities and episodes, as plain values that can be compared."""
        return [plain(self.states[-1]), self.episodes]


def frozen(value: Any) -> Any:
    """A state, copied, with the rows of the replay read."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: frozen(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(each) for each in value]
    return [*value] if hasattr(value, "since") else value


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in ("wall_s", "restarts")}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


class Losing(InlineEngine):
    """Sometimes loses the worker that is asked, before or after it collects.

    Args:
        seed: of the random losses.
        often: the probability of a loss before collecting, and of one afterwards.
    """

    def __init__(self, seed: int, often: float) -> None:
        super().__init__()
        self._chance, self._often, self.lost = random.Random(seed), often, 0

    def result(self, ticket: Any) -> Result:
        before, after = self._chance.random() < self._often, self._chance.random() < self._often
        if not before:
            result = super().result(ticket)
        if before or after:
            self.lost += 1
            raise WorkerLost("unplugged")
        return result


class Unordered(InlineEngine):
    """Chunks are ready in random order, those of the first actor most often."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)

    def ready(self, tickets: Sequence[Any]) -> int:
        return self._chance.choices(range(len(tickets)), [8, 3, 1])[0]


# --- exactly the same, exactly once ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "more"), [("sqn_per", []), ("sqn_per", SHARDED), ("sqn_r2d2", ["q_net.units=8"])], ids=str
)
def test_a_run_that_loses_workers_equals_one_that_does_not(recipe: str, more: list[str]) -> None:
    losing = Losing(0, 0.1)
    run = Learner(InlineEngine(), *more, recipe=recipe).train()
    other = Learner(losing, *more, recipe=recipe).train()
    assert losing.lost > 5
    assert len([note for note in other.notes if "unplugged" in note]) == losing.lost
    assert other.rows[-1]["restarts"] == losing.lost
    assert other.learned() == run.learned()


@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("sqn_per", []),
        ("sqn_per", ["layers=noisy", "returns=n_step"]),
        ("sqn_per", ["actor=epsilon_greedy"]),
        ("sqn_per", SHARDED),
        ("sqn_r2d2", ["q_net.units=8", "update_ratio=0.25"]),
    ],
    ids=str,
)
def test_a_resumed_run_equals_an_uninterrupted_run(recipe: str, more: list[str]) -> None:
    run = Learner(InlineEngine(), *more, "steps=300", "checkpoint_every=90", recipe=recipe).train()
    for state in run.states[:2]:
        resumed = Learner(InlineEngine(), *more, "steps=300", recipe=recipe).train(state)
        assert plain(resumed.states[-1]) == plain(run.states[-1])
        assert resumed.episodes == run.episodes[-len(resumed.episodes) :]


def test_resuming_with_another_number_of_actors_is_refused() -> None:
    run = Learner(InlineEngine()).train()
    with pytest.raises(Exception, match=r"a run with actors = 3; here actors = 2: this cannot change"):
        Learner(InlineEngine(), "collect.actors=2", "num_envs=3").train(run.states[0])


def test_with_order_any_each_chunk_is_stored_exactly_once() -> None:
    run = Learner(Unordered(0), "collect.order=any", "replay_capacity=6000").train()
    ring = run.agent.replay.ring
    assert sum(ring._counts) * 2 == 600
    assert len({*ring._counts}) == 3  # of slow and fast actors
    fewest = min(ring._counts)
    others = Learner(InlineEngine(), "collect.order=any", "warmup_steps=9999", "replay_capacity=6000").train()
    assert [*others.agent.replay.ring._counts] == [100, 100, 100]  # of 600 steps of two environments each
    again = Learner(Unordered(1), "collect.order=any", "warmup_steps=9999", "replay_capacity=6000").train()
    for lane in range(3):  # the random actions of an actor do not depend on when its chunks are stored
        rows = min(others.agent.replay.ring._counts[lane], again.agent.replay.ring._counts[lane], fewest)
        assert rows
        mine, theirs = (each.agent.replay.ring.action.view(-1, 6)[:rows] for each in (others, again))
        assert torch.equal(mine[:, 2 * lane], theirs[:, 2 * lane])


def test_updates_are_exact_after_every_chunk_and_requests_are_bounded() -> None:
    class Counting(InlineEngine):
        def ask(self, actor: int, weights: Any, request: Request) -> Any:
            in_flight = [ticket for ticket in self.tickets if ticket.actor == actor]
            assert len(in_flight) < 2
            serials.setdefault(actor, []).append(request.serial)
            ticket = super().ask(actor, weights, request)
            self.tickets.append(ticket)
            return ticket

        def result(self, ticket: Any) -> Result:
            run = learner.recipe.run
            assert learner.counters.updates == run.total_updates(learner.counters.env_steps)
            self.tickets.remove(ticket)
            return super().result(ticket)

    engine, serials = Counting(), dict[int, list[int]]()
    engine.tickets = []
    learner = Learner(engine)
    learner.train()
    assert learner.counters.updates == learner.recipe.run.total_updates(600) == 135
    assert all(numbers == [*range(len(numbers))] for numbers in serials.values())


def test_weights_are_published_less_often_with_a_larger_sync_every() -> None:
    class Publishing(InlineEngine):
        published = 0

        def publish(self, weights: np.ndarray) -> np.ndarray:
            self.published += 1
            return super().publish(weights)

    often, seldom = Publishing(), Publishing()
    Learner(often).train()
    Learner(seldom, "collect.sync_every=20").train()
    assert often.published > 50
    assert 5 <= seldom.published <= 1 + 135 // 20


def test_an_actor_that_is_always_lost_stops_the_run_with_a_checkpoint() -> None:
    learner = Learner(Losing(0, 1.0))
    with pytest.raises(Exception, match=r"actor 0: lost 4 times in a row at chunk 0: unplugged"):
        learner.train()
    assert len(learner.states) == 1


def test_many_actors_lost_once_each_do_not_stop_the_run() -> None:
    class Unplugged(InlineEngine):
        def ready(self, tickets: Sequence[Any]) -> int:
            return next((actor for actor in range(len(tickets)) if actor not in lost), 0)

        def result(self, ticket: Any) -> Result:
            if ticket.actor not in lost:
                lost.add(ticket.actor)
                raise WorkerLost("unplugged")
            return super().result(ticket)

    lost = set[int]()
    learner = Learner(Unplugged(), "collect.order=any", "collect.actors=6", "steps=60", "warmup_steps=20")
    assert learner.train().counters.env_steps == 60
    assert len(learner.notes) == 6


def test_an_error_while_learning_saves_the_collected_steps_and_the_run_resumes() -> None:
    learner, calls = Learner(InlineEngine()), iter(range(20))

    def update_priority(*_: Any) -> None:
        if next(calls, None) is None:
            raise ValueError("an own replay fails")

    learner.agent.replay.update_priority = update_priority  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="an own replay fails"):
        learner.train()
    counters, state = learner.counters, learner.states[-1]
    assert counters.updates == 20
    assert counters.env_steps > 60
    resumed = Learner(InlineEngine()).train(state).counters
    assert (resumed.env_steps, resumed.updates) == (600, 135)


# --- whole runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], SHARDED], ids=str)
def test_a_resumed_run_directory_equals_an_uninterrupted_one(more: list[str], tmp_path: Path) -> None:
    compose("sqn_per", *TINY, *more, f"out={tmp_path / 'whole'}").train()
    stopped, turns = compose("sqn_per", *TINY, *more, f"out={tmp_path / 'stopped'}"), iter(range(11))
    assert stopped.train(should_stop=lambda: next(turns, None) is None)["status"] == "stopped"
    assert stopped.train(resume=tmp_path / "stopped")["status"] == "done"
    last = "checkpoints/0000000600/state.safetensors"
    one, other = (load_file(tmp_path / run / last) for run in ("whole", "stopped"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for file in ("episodes.jsonl", "checkpoints/0000000600/weights.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "stopped" / file).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert all(row["lag"] >= 0 and row["actors_up"] == 3 and 0 <= row["learner_wait"] <= 1 for row in rows)


def test_the_checkpoint_before_compiling_has_the_state_before_the_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the checkpoint at the end of the turn, of the same step, would lack its updates."""
    compose("sqn_per", *TINY, f"out={tmp_path / 'plain'}").train()
    monkeypatch.setattr(Agent, "compiles", lambda agent, *, acts, learns: learns)
    compose("sqn_per", *TINY, f"out={tmp_path / 'compiling'}").train()
    last = "checkpoints/0000000600"
    for file in ("weights.safetensors", "state.safetensors"):
        one, other = (load_file(tmp_path / run / last / file) for run in ("plain", "compiling"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


class Unplugged(LocalHost):
    """A host that loses object 1 after so many calls.

    Args:
        make: makes an object.
        number: the number of objects.
    """

    calls = 40

    def call(self, number: int, method: str, *arguments: Any) -> Any:
        self.calls -= number == 1
        return self if number == 1 and self.calls < 0 else super().call(number, method, *arguments)

    def answer(self, ticket: Any) -> Any:
        if ticket is self:
            raise ReplayError("shard 1 is unplugged")
        return ticket


def test_a_lost_shard_stops_the_run_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, notes = tmp_path / "run", Learner(InlineEngine())
    with monkeypatch.context() as patch:
        patch.setattr(InlineEngine, "host", lambda _, make, number: Unplugged(make, number))
        with pytest.raises(ReplayError, match="shard 1 is unplugged"):
            compose("sqn_per", *TINY, *SHARDED, f"out={out}").train()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "error"
    assert summary["updates"] > 0
    (newest, *_) = sorted((out / "checkpoints").glob("0*"), reverse=True)
    assert int(newest.name) == summary["env_steps"] < 600
    with monkeypatch.context() as patch:  # the shard is lost again while the run is restored
        patch.setattr(InlineEngine, "host", lambda _, make, number: Unplugged(make, number))
        patch.setattr(Unplugged, "calls", 0)
        with pytest.raises(ReplayError, match="shard 1 is unplugged"):
            compose("sqn_per", *TINY, *SHARDED, f"out={out}").train(resume=out)
    assert compose("sqn_per", *TINY, *SHARDED, f"out={out}").train(resume=out, reporters=[notes])
    assert notes.notes.count("replay: shard 1 began empty, as its transitions were lost") == 1
    summary = json.loads((out / "summary.json").read_text())
    assert [summary[name] for name in ("status", "env_steps", "updates")] == ["done", 600, 135]


# --- what a worker sends -----------------------------------------------------------------------------------


def made(*overrides: str, recipe: str = "sqn_per") -> tuple[Any, Any, Learner]:
    learner = Learner(InlineEngine(), *overrides, recipe=recipe)
    make_worker = WorkerMaker(learner.recipe.to_yaml())
    return make_worker(1), make_worker, learner


def test_a_worker_is_a_pure_function_of_weights_request_and_state() -> None:
    worker, make_worker, learner = made()
    weights, state, chunks = packed_weights(learner.agent.loss), None, []
    for serial in range(4):
        chunk, state = worker.collect(weights, Request(serial, serial, 30 * serial, serial == 0, True))
        again = make_worker(1)
        again.restore(states[-1] if (states := [each[1] for each in chunks]) else None)
        other, other_state = again.collect(weights, Request(serial, serial, 30 * serial, serial == 0, True))
        for mine, theirs in zip(chunk, other, strict=True):
            np.testing.assert_equal(mine, theirs)
        assert plain(state) == plain(other_state)
        chunks.append((chunk, state))
    request = Request(0, 0, 0, True, False)
    one, other = (make_worker(actor).collect(weights, request)[0].action for actor in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("more", [[], ["layers=noisy"], ["encoder=nature_cnn", "env=atari"]], ids=str)
def test_packed_weights_are_unpacked_unchanged(more: list[str]) -> None:
    small = ["replay_capacity=50", "env.game=pong"] if "env=atari" in more else []
    (_, _, learner), (_, _, other) = made(*more, *small), made(*more, *small, "seed=1")
    unpack_weights(other.agent.loss, packed_weights(learner.agent.loss))
    sent, there = learner.agent.loss.state_dict(), other.agent.loss.state_dict()
    assert all(torch.equal(sent[name], there[name]) for name in sent)


@pytest.mark.parametrize("n", [1, 3])
def test_initial_priorities_are_the_td_errors_of_the_network_that_acted(n: int) -> None:
    # δ = Σ_{k<m} γ^k r + γ^m (1 − d) V(s_m) − Q(s, a), with m steps to the end of the chunk at most
    overrides = ["returns=n_step", f"returns.n={n}", "returns.soft=false", "collect.rows=40"]
    worker, _, learner = made(*overrides)
    loss = learner.agent.loss
    chunk, _ = worker.collect(packed_weights(loss), Request(0, 0, 0, True, True))
    rows = [(observation, action, step) for observation, action, step in chunk.steps(stacked=False)]
    alpha, gamma = loss.temperature.alpha, learner.recipe.run.gamma
    for env in range(2):
        for row in range(40):
            total, m = 0.0, 0
            while True:
                step = rows[row + m][2]
                total += gamma**m * step.reward[env].item()
                m += 1
                last = step.terminated[env] or step.truncated[env]
                if last or m == n or row + m == 40:
                    break
            with torch.no_grad():
                q_NA = loss.q_net.values(step.next_observation[env : env + 1])
                log_pi = F.log_policy(q_NA.mean(0), alpha)
                value = F.expected_mean(q_NA, log_pi) + alpha * F.entropy(log_pi)
                q_N = loss.q_net.values(rows[row][0][env : env + 1])[:, 0, rows[row][1][env]]
            target = total + gamma**m * value.item() * (not step.terminated[env])
            expected = (q_N - target).abs().numpy()
            np.testing.assert_allclose(np.abs(chunk.priority[:, row, env]), expected, rtol=1e-4, atol=1e-5)


class Norm(torch.nn.Module):
    """An encoder with batch norm."""

    def __init__(self, *, observation_shape: tuple[int, ...], layer: Any) -> None:
        super().__init__()
        self.out_features = 8
        self.norm, self.linear = (
            torch.nn.BatchNorm1d(*observation_shape),
            torch.nn.Linear(*observation_shape, 8),
        )

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(self.norm(observation)))


def test_computing_priorities_does_not_change_batch_norm_statistics() -> None:
    """Otherwise a worker that replaces a lost one, with freshly unpacked weights, would act differently."""

    def worker() -> Worker:
        recipe = compose("sqn_per", *TINY).recipe
        parts = recipe.build(last="returns", instead={"encoder": Norm})
        names = ("env", "actor", "loss", "returns")
        return Worker(**{name: parts[name] for name in names}, rows=20, ladder=None, seed=3)

    first, other = worker(), worker()
    weights = packed_weights(first._loss)
    requests = [Request(serial, 0, 40 * serial, random=False, priorities=True) for serial in range(2)]
    _, state = first.collect(weights, requests[0])
    other.restore(state)
    (chunk, _), (again, _) = (each.collect(weights, requests[1]) for each in (first, other))
    assert np.array_equal(chunk.action, again.action)
    assert np.array_equal(chunk.priority, again.priority)


def test_workers_compute_on_the_cpu_even_if_the_learner_uses_a_gpu() -> None:
    recipe = compose("sqn_per", *TINY, "device=cuda").recipe
    worker = WorkerMaker(recipe.to_yaml())(0)
    assert {each.device.type for each in worker._loss.parameters()} == {"cpu"}


def test_initial_priorities_are_stored_in_the_replay() -> None:
    learner = Learner(InlineEngine(), "warmup_steps=9999", "steps=30", "replay.omega=0.5").train()
    replay, worker = learner.agent.replay, WorkerMaker(learner.recipe.to_yaml())(0)
    chunk, _ = worker.collect(packed_weights(learner.agent.loss), Request(0, 0, 0, True, True))
    value = replay.sampler.tree.value.reshape(-1, 6)[:5, :2]
    expected = (np.abs(chunk.priority.astype(np.float64)).mean(0) + replay.sampler.epsilon) ** 0.5
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_episodes_of_a_lost_worker_are_cut_if_they_cannot_be_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sqn_rl.parts.env.gym.GymEnv.restorable", False)
    learner = Learner(Losing(3, 0.05)).train()
    lost = [note for note in learner.notes if "the episodes in progress are lost, and new ones begin" in note]
    assert lost
    ring = learner.agent.replay.ring
    spilled = (ring.successor > ring.places).nonzero().flatten()
    cuts = [place for place in spilled.tolist() if not (ring.terminated[place] or ring.truncated[place])]
    assert cuts


# --- exploration -------------------------------------------------------------------------------------------


def test_ladder_positions_epsilons_and_temperatures_worked_by_hand() -> None:
    # 2 actors of 2 environments: i = 0…3, N − 1 = 3
    position = torch.cat([ladder_positions(actor, 2, 2) for actor in range(2)])
    torch.testing.assert_close(position, torch.tensor([0, 1 / 3, 2 / 3, 1]))
    exponents = [1, 1 + 7 / 3, 1 + 14 / 3, 8]
    torch.testing.assert_close(epsilon_ladder(position), torch.tensor([0.4**each for each in exponents]))
    factors = [4, 4 ** (1 / 3), 4 ** (-1 / 3), 1 / 4]
    torch.testing.assert_close(temperature_ladder(position, 4.0), torch.tensor(factors))
    assert ladder_positions(0, 1, 1).tolist() == [0.5]


@pytest.mark.parametrize(("actor", "temperature"), [("epsilon_greedy", "none"), ("boltzmann", "learned")])
def test_actors_on_different_rungs_explore_by_different_amounts(actor: str, temperature: str) -> None:
    parts = ["loss=dqn", f"temperature={temperature}"] if temperature == "none" else []
    wide = ["num_envs=2", "collect.rows=400", "collect.ladder=8", "initial_alpha=0.5", "hidden=[4]"]
    _, make_worker, learner = made(f"actor={actor}", *parts, *wide)
    loss, request = learner.agent.loss, Request(0, 0, 0, False, False)

    def greedy(number: int) -> float:
        chunk, _ = make_worker(number).collect(packed_weights(loss), request)
        best = loss.q_net.values(torch.tensor(chunk.observation[:-1]).flatten(0, 1))[0].argmax(-1)
        return (best == torch.tensor(chunk.action).flatten()).float().mean().item()

    assert greedy(2) > greedy(0) + 0.05


def test_a_ladder_setting_is_refused_for_an_actor_without_a_ladder() -> None:
    overrides = ["actor=greedy", "loss=dqn", "temperature=none", "layers=noisy", "collect.ladder=4"]
    with pytest.raises(RecipeError, match=r"collect.ladder=4: GreedyActor has no ladder"):
        compose("sqn", *TINY, *overrides).preflight()


def test_actors_take_only_allowed_actions() -> None:
    taxi = ["env=gym", "env.id=Taxi-v4", "encoder.hidden=[8]", "steps=150", "checkpoint_every=0"]
    learner = Learner(InlineEngine(), *taxi).train()
    ring, place = learner.agent.replay.ring, torch.arange(150)
    assert not ring.action_mask[place].all()
    assert ring.action_mask[place].gather(1, ring.action[place].unsqueeze(1)).all()
