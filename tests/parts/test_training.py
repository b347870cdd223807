"""The training loop: what happens at which environment step, for any number of environments."""

import math
import signal
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import repeat
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from sqn_rl import Agent, GymEnv, NumericsError, Plan, Reporter, SettingError, Step, evaluate, train
from sqn_rl.training.stopping import Stopped, StopRequest, signals_to
from sqn_rl.types import Terms

LENGTH = 7


class Games:
    """N games that last seven steps, with a reward of 1 for each."""

    name, frame_skip, n_actions, action_mask = "games", 4, 3, None
    act_options = MappingProxyType({})

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.steps = num_envs, 0

    def begin(self) -> Tensor:
        return torch.zeros(self.num_envs, 1)

    def send(self, action: Tensor) -> None:
        self.sent = action

    def receive(self) -> Step:
        action = self.sent
        self.steps += 1
        ended, no = (
            torch.full_like(action, self.steps % LENGTH == 0, dtype=torch.bool),
            torch.zeros_like(action),
        )
        seen, one = torch.full((self.num_envs, 1), float(self.steps)), torch.ones(self.num_envs)
        return Step(seen, seen, one, ended, no.bool(), ended, one)


class Diary(Reporter):
    """Keeps everything that is reported."""

    def __init__(self) -> None:
        self.received: dict[str, list[Any]] = {
            "metrics": [],
            "episode": [],
            "evaluation": [],
            "checkpoint": [],
        }

    def metrics(self, row: dict[str, Any]) -> None:
        self.received["metrics"].append(row)

    def episode(self, row: dict[str, Any]) -> None:
        self.received["episode"].append(row)

    def evaluation(self, row: dict[str, Any]) -> None:
        self.received["evaluation"].append(row)

    def checkpoint(self, counters: Any, take_state: Any) -> None:
        self.received["checkpoint"].append(counters.env_steps)

    def steps(self, event: str) -> list[int]:
        return [row["env_steps"] for row in self.received[event]]


class Learner:
    """Replaces the agent: always takes action 0, and records after how many steps it was updated."""

    def __init__(self, **compiling: Callable[[], None]) -> None:
        self.compiling = compiling
        self.actions: list[int] = []
        self.stored = 0
        self.updated_at: list[int] = []
        self.annealed_to: list[int] = []
        self.actor = SimpleNamespace(act=self._act, device="cpu")
        self.replay = SimpleNamespace(cut=lambda: None, store=self._store)

    def compiles(self, *, acts: bool, learns: bool) -> bool:
        return (acts and "acts" in self.compiling) or (learns and "learns" in self.compiling)

    def _act(self, observation: Tensor) -> Tensor:
        self.compiling.pop("acts", lambda: None)()
        return torch.zeros(len(observation), dtype=torch.int64)

    def _store(self, observation: Tensor, action: Tensor, step: Step) -> None:
        self.actions += action.tolist()
        self.stored += len(action)

    def draw(self, batch_size: int, times: int) -> Iterator[int]:
        return repeat(batch_size, times)

    def anneal(self, env_steps: int) -> None:
        self.annealed_to.append(env_steps)

    def metrics(self) -> dict[str, float]:
        return {"alpha": 0.5}

    def advice(self) -> list[str]:
        return []

    def require_sound(self) -> None:
        pass

    def update(self, batch: int) -> Terms:
        self.compiling.pop("learns", lambda: None)()
        self.updated_at.append(self.stored)
        zero = torch.zeros(2, batch)
        log_pi = torch.log_softmax(torch.zeros(batch, 3), -1)
        return Terms(losses={"loss_q": zero.sum()}, td_error=zero, q=zero, log_pi=log_pi)


def make_plan(**settings: Any) -> Plan:
    defaults = {
        "steps": 60,
        "warmup_steps": 0,
        "update_ratio": 1.0,
        "batch_size": 4,
        "seed": 0,
        "log_every": 10,
    }
    return Plan(**defaults | settings)


def run(num_envs: int = 1, **settings: Any) -> tuple[Learner, Diary, Any]:
    keywords = {name: settings.pop(name) for name in ("evaluate", "should_stop") if name in settings}
    learner, diary = Learner(), Diary()
    counters = train(learner, Games(num_envs), make_plan(**settings), reporters=[diary], **keywords)
    return learner, diary, counters


# --- updates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 3, 8])
@pytest.mark.parametrize("ratio", ["1", "0.25", "1.5", "0.3"])
def test_updates_follow_the_steps_at_the_update_ratio(num_envs: int, ratio: str) -> None:
    learner, _, counters = run(num_envs, steps=400, warmup_steps=50, update_ratio=float(ratio))
    assert counters.env_steps == -(-400 // num_envs) * num_envs
    assert counters.frames == 4 * counters.env_steps
    due = 0
    for now in range(num_envs, counters.env_steps + 1, num_envs):
        before, due = due, (now - 50) * Fraction(ratio) // 1 if now - num_envs >= 50 else 0
        assert learner.updated_at.count(now - num_envs) == due - before  # while the newest step is played
    assert counters.updates == len(learner.updated_at) == due


@pytest.mark.parametrize("ratio", ["0.1", "0.29", "0.3", "0.7", "1.1", "0.001", "0.125", "2", "3.3", "0.37"])
def test_the_number_of_updates_is_exact_for_a_decimal_update_ratio(ratio: str) -> None:
    plan = make_plan(update_ratio=float(ratio), warmup_steps=0)
    for env_steps in [*range(5000), *(10**8 + k for k in range(1000))]:
        assert plan.total_updates(env_steps) == env_steps * Fraction(ratio) // 1


def test_an_update_ratio_of_one_third_is_exact() -> None:
    plan = make_plan(update_ratio=1 / 3)
    assert [plan.total_updates(n) for n in (2, 3, 299_999, 300_000)] == [0, 1, 99_999, 100_000]


def test_the_warm_up_acts_uniformly_and_makes_no_updates() -> None:
    learner, diary, _ = run(3, steps=6000, warmup_steps=5000)
    warm_up = torch.tensor(learner.actions[:5001])  # the first multiple of 3 that is not below 5000
    assert chisquare(warm_up.bincount(minlength=3).numpy()).pvalue > 1e-3
    assert set(learner.actions[5001:]) == {0}
    assert min(learner.updated_at) == 5001
    assert min(diary.steps("metrics")) > 5000


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7, 8])
def test_no_update_comes_before_the_warm_up_ends_for_any_number_of_environments(num_envs: int) -> None:
    learner, _, counters = run(num_envs, steps=60, warmup_steps=20, update_ratio=2.0)
    assert min(learner.updated_at) == -(-20 // num_envs) * num_envs
    assert counters.updates == 2 * (counters.env_steps - 20)  # those due for random steps come later


def test_the_warm_up_depends_on_its_seed_only() -> None:
    first = run(2, warmup_steps=50)[0].actions
    torch.manual_seed(3)
    assert run(2, warmup_steps=50)[0].actions == first
    assert run(2, warmup_steps=50, seed=1)[0].actions != first


def test_without_a_warm_up_the_updates_of_the_first_steps_are_made_later() -> None:
    learner, _, counters = run(4, steps=12)
    assert learner.updated_at == [4] * 8 + [8] * 4
    assert counters.updates == 12


class RecordedGames(Games):
    """Games that record the order of their calls."""

    def __init__(self, num_envs: int, asked: list[str]) -> None:
        super().__init__(num_envs)
        self.asked = asked

    def send(self, action: Tensor) -> None:
        self.asked.append("send")
        super().send(action)

    def receive(self) -> Step:
        self.asked.append("receive")
        return super().receive()


def test_the_environments_step_while_the_agent_updates() -> None:
    asked: list[str] = []
    learner = Learner()
    learner.actor.act = lambda observation: asked.append("act") or torch.zeros(2, dtype=torch.int64)
    update = learner.update
    learner.update = lambda batch: asked.append("learn") or update(batch)  # type: ignore[method-assign]
    learner.replay.store = lambda *_: asked.append("store")
    train(learner, RecordedGames(2, asked), make_plan(steps=6, update_ratio=0.5))
    first, later = ["act", "send", "receive", "store"], ["act", "send", "learn", "receive", "store"]
    assert asked == [*first, *later[:2], "learn", *later[2:], *later]


# --- cadence -----------------------------------------------------------------------------------------------


def play_evaluation() -> SimpleNamespace:
    return SimpleNamespace(row=lambda: {"mean": 1.0})


def test_periodic_events_happen_at_the_first_step_that_reaches_the_period() -> None:
    _, diary, _ = run(3, steps=50, eval_every=20, checkpoint_every=25, evaluate=play_evaluation)
    assert diary.steps("metrics") == [12, 21, 30, 42, 51]
    assert diary.steps("evaluation") == [21, 42, 51]
    assert diary.received["checkpoint"] == [27, 51]


@pytest.mark.parametrize("every", [0, 20, 1000])
def test_the_last_step_is_evaluated_and_checkpointed_exactly_once(every: int) -> None:
    _, diary, _ = run(2, steps=60, eval_every=every, checkpoint_every=every, evaluate=play_evaluation)
    expected = [20, 40, 60] if every == 20 else [60]
    assert diary.steps("evaluation") == diary.received["checkpoint"] == expected


def test_a_log_period_below_the_number_of_environments_logs_at_every_step() -> None:
    _, diary, _ = run(8, steps=32, log_every=3)
    assert diary.steps("metrics") == [16, 24, 32]  # before the first update, at 8, nothing is logged


def test_every_finished_episode_is_reported_with_its_return_and_length() -> None:
    _, diary, counters = run(2, steps=40)
    rows = diary.received["episode"]
    assert [(row["return"], row["length"]) for row in rows] == [(LENGTH, LENGTH)] * 4
    assert diary.steps("episode") == [14, 14, 28, 28]
    assert counters.episodes == 4
    assert [row["return_mean"] for row in diary.received["metrics"]] == [None, LENGTH, LENGTH, LENGTH]


def test_schedules_are_annealed_by_the_steps_taken() -> None:
    assert run(3, steps=12)[0].annealed_to == [0, 3, 6, 9]


def test_a_requested_stop_writes_a_checkpoint_and_skips_the_evaluation() -> None:
    asked = iter([False] * 4 + [True])
    learner, diary, counters = run(2, should_stop=lambda: next(asked), evaluate=play_evaluation)
    assert counters.env_steps == learner.stored == 10
    assert counters.updates == len(learner.updated_at) == 10
    assert diary.received["checkpoint"] == [10]
    assert diary.received["evaluation"] == []


@pytest.mark.parametrize(
    ("compiling", "steps", "checkpoints"),
    [("acts", 6, [6]), ("learns", 8, [6, 8]), ("nothing", 10, [6, 8, 10])],
)
def test_a_stop_request_interrupts_compiling_at_once_but_nothing_else(
    compiling: str, steps: int, checkpoints: list[int]
) -> None:
    """Acting is first compiled after six steps, the update after eight; ``metrics`` is called after ten."""
    stop, diary = StopRequest(), Diary()
    if compiling == "nothing":
        diary.metrics = lambda row: stop.request("somebody")  # type: ignore[method-assign]  # after ten steps
    done = dict.fromkeys(("acts", "learns"), lambda: None)
    learner = Learner(**done | {compiling: lambda: stop.request("somebody")})
    plan = make_plan(warmup_steps=6, update_ratio=0.25)
    counters = train(learner, Games(2), plan, reporters=[diary], should_stop=stop)
    assert counters.env_steps == learner.stored == steps
    assert counters.updates == len(learner.updated_at) == (1 if steps == 10 else 0)
    assert diary.received["checkpoint"] == checkpoints
    assert stop.by == "somebody"


def test_a_stop_requested_before_an_interruptible_block_prevents_it() -> None:
    stop = StopRequest()
    stop.request("somebody")
    with pytest.raises(Stopped), stop.interrupting():
        raise AssertionError("begun")
    stop.request("somebody again")


class Hanging(Games):
    """Requests a stop, ``times`` times, while it begins or receives a step."""

    def __init__(self, stop: StopRequest, times: int, when: str) -> None:
        super().__init__(2)
        self.stop, self.times, self.when = stop, times, when

    def hang(self, when: str) -> None:
        for time in range(self.times if when == self.when else 0):
            self.stop.request(str(time))

    def begin(self) -> Tensor:
        self.hang("begins")
        return super().begin()

    def receive(self) -> Step:
        self.hang(f"plays {self.steps}")
        return super().receive()


@pytest.mark.parametrize(
    ("when", "times", "steps", "checkpoints"),
    [("begins", 1, 2, [2]), ("begins", 2, 0, []), ("plays 4", 1, 10, [10]), ("plays 4", 2, 8, [8])],
)
def test_only_a_second_stop_request_interrupts_a_hanging_environment(
    when: str, times: int, steps: int, checkpoints: list[int]
) -> None:
    stop, diary, learner = StopRequest(), Diary(), Learner()
    counters = train(learner, Hanging(stop, times, when), make_plan(), reporters=[diary], should_stop=stop)
    assert counters.env_steps == learner.stored == steps
    assert diary.received["checkpoint"] == checkpoints


def test_a_second_stop_request_interrupts_an_evaluation() -> None:
    stop, diary = StopRequest(), Diary()

    def games() -> SimpleNamespace:
        stop.request("somebody")
        stop.request("somebody")
        raise AssertionError("waited for")

    train(Learner(), Games(2), make_plan(eval_every=20), evaluate=games, reporters=[diary], should_stop=stop)
    assert (diary.received["checkpoint"], diary.received["evaluation"]) == ([20], [])


def test_a_signal_after_another_stop_request_counts_as_the_first_signal() -> None:
    stop = StopRequest()
    stop.request("a broken pipe")  # as when a terminal closes, just before its SIGHUP
    assert stop.receive(signal.SIGHUP, None)
    assert not stop.receive(signal.SIGHUP, None)


def test_an_ignored_hangup_signal_stays_ignored() -> None:
    stop, before = StopRequest(), signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_to(stop.receive):
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
            signal.raise_signal(signal.SIGUSR1)
            assert stop()
    finally:
        signal.signal(signal.SIGHUP, before)


# --- with a real agent -------------------------------------------------------------------------------------


def cartpole(seed: int = 0, num_envs: int = 2) -> GymEnv:
    return GymEnv(id="CartPole-v1", num_envs=num_envs, seed=seed)


def test_evaluating_does_not_change_the_run(make_agent: Callable[..., Agent]) -> None:
    def metrics(eval_every: int) -> list[dict[str, Any]]:
        env, diary = cartpole(), Diary()
        agent = make_agent(env)
        plan = make_plan(steps=300, warmup_steps=50, eval_every=eval_every, log_every=20)

        def games() -> Any:
            return evaluate(agent.actor, cartpole(seed=9), episodes=2, greedy=False, seed=9)

        train(agent, env, plan, evaluate=games, reporters=[diary])
        assert len(diary.received["evaluation"]) == (1 if eval_every == 0 else 6)
        return [row | {"wall_s": None} for row in diary.received["metrics"]]

    assert metrics(eval_every=0) == metrics(eval_every=50)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_non_finite_loss_is_refused_and_changes_no_weights(
    make_agent: Callable[..., Agent], bad: float
) -> None:
    env = cartpole()
    agent = make_agent(env)
    train(agent, env, make_plan(steps=100, warmup_steps=20))
    before = {name: tensor.clone() for name, tensor in agent.loss.state_dict().items()}
    batch = agent.replay.draw(8)
    with pytest.raises(NumericsError, match="loss_q"):
        agent.update(batch._replace(reward=torch.full_like(batch.reward, bad)))
    for name, tensor in agent.loss.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_failed_search_for_the_cause_does_not_hide_the_numerics_error(
    make_agent: Callable[..., Agent],
) -> None:
    agent = make_agent(cartpole())
    train(agent, cartpole(), make_plan(steps=100, warmup_steps=20))
    agent.loss.q_net.values = lambda: None  # as of a user's network with other arguments than ours
    batch = agent.replay.draw(8)
    with pytest.raises(NumericsError, match=r"loss_q = nan(?s:.)*the search failed: TypeError"):
        agent.update(batch._replace(reward=torch.full_like(batch.reward, math.nan)))


def test_one_update_moves_networks_temperature_and_targets(make_agent: Callable[..., Agent]) -> None:
    env = cartpole()
    agent = make_agent(env)
    train(agent, env, make_plan(steps=40, warmup_steps=40))
    before = {name: tensor.clone() for name, tensor in agent.loss.state_dict().items()}
    agent.update(agent.replay.draw(32))
    after = agent.loss.state_dict()
    for name in before:
        assert not torch.equal(after[name], before[name]), name
        if name.startswith("target_q_net."):  # towards the new online networks, not the old
            online = after[name.removeprefix("target_")]
            torch.testing.assert_close(after[name], torch.lerp(before[name], online, 0.05))


def test_alpha_shares_the_parameter_group_of_the_networks_at_an_equal_lr(
    make_agent: Callable[..., Agent],
) -> None:
    agent = make_agent(cartpole())
    assert any(
        parameter is agent.temperature.parameter for parameter in agent.optimizer.param_groups[0]["params"]
    )
    assert len(agent.optimizer.param_groups) == 1


@pytest.mark.parametrize("keywords", [{"lr": 3e-2}, {"lr": 1e-2, "weight_decay": 0.1}])
def test_alpha_has_its_own_learning_rate_and_no_weight_decay(
    make_agent: Callable[..., Agent], keywords: dict[str, float]
) -> None:
    agent = make_agent(cartpole())
    parts = {name: getattr(agent, name) for name in ("actor", "loss", "target_update", "replay")}
    networks, alpha = Agent(**parts, optimizer=partial(torch.optim.AdamW, **keywords)).optimizer.param_groups
    assert (networks["lr"], alpha["lr"], alpha["weight_decay"]) == (keywords["lr"], 1e-2, 0)
    assert alpha["params"] == [agent.temperature.parameter]


BAD = {"steps": 0, "warmup_steps": -1, "update_ratio": 0.0, "batch_size": 0}


@pytest.mark.parametrize(("field", "value"), BAD.items())
def test_a_plan_with_an_invalid_setting_is_refused(field: str, value: float) -> None:
    with pytest.raises(SettingError, match=field):
        make_plan(**{field: value})
