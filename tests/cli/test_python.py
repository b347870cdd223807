"""The Python API of recipes: keyword overrides, custom parts, and progress."""

import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from rich.console import Console

from sqn_rl import (
    MLP,
    Agent,
    BoltzmannActor,
    Dense,
    DQNLoss,
    DuelingHead,
    Experiment,
    FixedTemperature,
    GymEnv,
    LinearHead,
    LSTMQNet,
    MunchausenLoss,
    NStep,
    OneStep,
    Periodic,
    Polyak,
    QNet,
    RecipeError,
    Reporter,
    SettingError,
    SQNLoss,
    WiringError,
    compose,
    evaluate,
    load,
    train,
)
from sqn_rl.plots.progress import ProgressReporter
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.schema import SLOTS
from sqn_rl.types import Counters

TINY = {"steps": 200, "warmup_steps": 64, "batch_size": 8, "hidden": [8], "eval_episodes": 2, "log_every": 50}


@pytest.mark.parametrize(
    ("settings", "overrides"),
    [
        ({"env": "acrobot", "steps": 2000}, ["env=acrobot", "steps=2000"]),
        ({"loss": {"backup": "own"}}, ["loss.backup=own"]),
        ({"env": {"kwargs": {"sutton_barto_reward": True}}}, ["env.kwargs.sutton_barto_reward=true"]),
        ({"hidden": [8, 8], "lr": np.float64(0.5)}, ["hidden=[8,8]", "lr=0.5"]),
        ({"hidden": (8, np.int64(8))}, ["hidden=[8,8]"]),
        ({"hidden": np.array([8, 8])}, ["hidden=[8,8]"]),
        ({"env": {"wrappers": ({"TimeLimit": {"max_episode_steps": 9}},)}},
         ["env.wrappers=[{TimeLimit: {max_episode_steps: 9}}]"]),
        ({"out": Path("runs/it's here")}, [r"out='runs/it\'s here'"]),
        ({"replay_capacity": np.int64(100)}, ["replay_capacity=100"]),
        ({"temperature": {"target_entropy": None, "target_entropy_fraction": 0.5}},
         ["temperature.target_entropy=null", "temperature.target_entropy_fraction=0.5"]),
    ],
)  # fmt: skip
def test_keyword_settings_compose_the_same_config_as_text_overrides(
    settings: dict[str, Any], overrides: list[str]
) -> None:
    assert compose("sqn", **settings).recipe.config == compose("sqn", *overrides).recipe.config


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ([["sqn"]], {}, "compose(): expected a text, such as \"head=dueling\", got ['sqn']\n  give several"),
        (["sqn", ["head=dueling"]], {}, 'compose(): expected a text, such as "head=dueling", got ['),
        (["sqn"], {"head": DuelingHead}, "compose(): head: expected a number, a text, a list or a dict, got"),
        (["sqn"], {"loss": {"backup": [print]}}, "compose(): loss.backup: expected a number"),
    ],
)
def test_an_override_of_an_invalid_type_is_refused(
    arguments: list[Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        compose(*arguments, **settings)


def test_a_recipe_may_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [sqn, _self_]\ngamma: 0.5\n")
    assert compose(tmp_path / "mine.yaml").run.gamma == 0.5


def test_the_repr_of_an_experiment_names_its_recipe_and_settings() -> None:
    experiment = compose("sqn", "head=dueling", env="acrobot", steps=500)
    assert repr(experiment) == "<Experiment sqn head=dueling: id=Acrobot-v1, steps=500, seed=0>"


def test_a_built_agent_trains_to_the_same_q_values_as_a_run(folder: Path) -> None:
    experiment = compose("sqn", **TINY, checkpoint_every=0)
    agent, env, _ = experiment.build()
    counters = train(agent, env, experiment.run)
    summary = Experiment(compose("sqn", **TINY, out="run").recipe).train()
    assert (counters.env_steps, counters.updates) == (summary["env_steps"], summary["updates"])
    observation = [[0.1, -0.2, 0.3, -0.4]]
    values = agent.loss.q_net.values(torch.tensor(observation)).mean(0)
    assert load("run").q_values(observation).tolist() == values.tolist()


class Halved(LinearHead):
    """A custom head."""


def test_train_and_evaluate_refuse_an_unsuitable_environment_or_actor() -> None:
    experiment = compose("sqn", **TINY)
    agent, _, _ = experiment.build()
    outside = gym.make("CartPole-v1")
    with pytest.raises(SettingError, match=r"^env = <.*>: expected one of sqn_rl, such as GymEnv\(env\)$"):
        train(agent, outside, experiment.run)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"^env = <.*>: expected one of sqn_rl"):
        evaluate(agent.actor, outside, episodes=1, greedy=True, seed=0)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"^actor = <.*>: expected an actor, such as agent.actor$"):
        evaluate(agent, GymEnv(outside), episodes=1, greedy=True, seed=0)  # type: ignore[arg-type]
    fits = r"^replay: UniformReplay is made for 4 environments with observations \[4\]; here are "
    for env, has in (
        (GymEnv(outside, seed=0), r"1 environments with observations \[4\]"),
        (GymEnv("Acrobot-v1", num_envs=4, seed=0), r"4 environments with observations \[6\]"),
    ):
        with pytest.raises(WiringError, match=fits + has):
            train(agent, env, experiment.run)


def test_train_refuses_an_invalid_plan_or_invalid_reporters() -> None:
    experiment = compose("sqn", **TINY)
    agent, env, _ = experiment.build()
    for plan in (experiment, None, {"steps": 3}):
        with pytest.raises(SettingError, match=r"^plan = .*: expected a Plan, such as experiment.run$"):
            train(agent, env, plan)  # type: ignore[arg-type]
    for reporters in (Reporter(), [Reporter], [print], None):
        with pytest.raises(SettingError, match=r"^reporters = .*: expected a list of reporters: objects"):
            train(agent, env, experiment.run, reporters=reporters)  # type: ignore[arg-type]
        with pytest.raises(SettingError, match=r"^reporters = .*: expected a list of reporters: objects"):
            experiment.train(reporters=reporters)  # type: ignore[arg-type]


def test_train_resumes_a_run_given_its_path_as_a_string(folder: Path) -> None:
    assert compose("sqn", **TINY, out="run").train()["env_steps"] == 200
    assert compose("sqn", **TINY | {"steps": 240}).train(resume="run")["env_steps"] == 240
    assert load("run").env_steps == 240
    with pytest.raises(SettingError, match=r"^resume = 3: expected a path$"):
        compose("sqn", **TINY).train(resume=3)  # type: ignore[arg-type]


def test_parts_of_another_agent_are_refused() -> None:
    (mine, _, _), (other, _, _) = (compose("sqn", **TINY).build() for _ in range(2))
    parts = {"actor": mine.actor, "loss": mine.loss, "target_update": mine.target_update}
    rest = {"optimizer": partial(torch.optim.Adam, lr=1e-3), "replay": mine.replay}
    Agent(**parts, **rest)
    actor = BoltzmannActor(q_net=other.loss.q_net, temperature=mine.loss.temperature, policy="q1", seed=0)
    periodic = Periodic(loss=other.loss, every=2)
    wrong = {"actor": [actor], "target_update": [other.target_update, periodic]}
    for slot, part in ((slot, part) for slot, given in wrong.items() for part in given):
        with pytest.raises(WiringError, match=f"^{slot}: none of its networks is the loss's"):
            Agent(**parts | {slot: part}, **rest)
    actor.requires_grad_(False)  # a teacher
    Agent(**parts | {"actor": actor}, **rest)


Q_NET = {"encoder": partial(MLP, hidden=[8]), "head": LinearHead, "layer": Dense, "observation_shape": (4,)}


@pytest.mark.parametrize("value", ["0.5", None, True, float("nan"), 2e12, [0.5]], ids=str)
def test_a_number_that_is_invalid_or_out_of_range_is_refused_with_its_field(value: Any) -> None:
    agent, _, _ = compose("sqn", **TINY).build()
    for make, field in (
        (partial(Polyak, loss=agent.loss, tau=value), "tau"),
        (partial(DQNLoss, q_net=agent.loss.q_net, temperature=None, gamma=value, seed=0), "gamma"),
        (partial(OneStep, gamma=value), "gamma"),
        (partial(NStep, gamma=value, n=2, soft=False), "gamma"),
        (partial(FixedTemperature, alpha=value), "alpha"),
    ):
        with pytest.raises(SettingError, match=f"^{field} = {re.escape(repr(value))}: expected a number in "):
            make()


def test_a_string_for_a_boolean_is_refused_with_its_field() -> None:
    agent, _, _ = compose("sqn", **TINY).build()
    parts = {"q_net": agent.loss.q_net, "temperature": agent.temperature, "gamma": 0.9, "seed": 0}
    sqn = {"backup": "expected", "policy_source": "q1", "backup_entropy": "no"}
    for make, field in (
        (partial(QNet, **Q_NET, n_actions=2, members=2, shared_encoder="no"), "shared_encoder"),
        (partial(LSTMQNet, **Q_NET, units=4, n_actions=2, members=2, shared_encoder="no"), "shared_encoder"),
        (partial(SQNLoss, **parts, **sqn), "backup_entropy"),
        (partial(MunchausenLoss, **parts, **sqn, m=0.9, lowest=-1.0), "backup_entropy"),
        (partial(NStep, gamma=0.9, n=3, soft="no"), "soft"),
    ):
        with pytest.raises(SettingError, match=f"^{field} = 'no': expected True or False$"):
            make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env: env.begin([2]), "rows = [2]: expected a list of whole numbers in [0, 2)"),
        (lambda env: env.begin([-1]), "rows = [-1]: expected a list of whole numbers in [0, 2)"),
        (lambda env: env.begin("a"), "rows = 'a': expected a list of whole numbers in [0, 2)"),
        (lambda env: env.advance(None), "action = None: expected 2 of them, each in [0, 2)"),
        (lambda env: env.advance("ab"), "action = 'ab': expected 2 of them, each in [0, 2)"),
        (lambda env: env.advance(0), "action = 0: expected 2 of them, each in [0, 2)"),
        (lambda env: env.advance(torch.zeros(2)), "action = [0.0, 0.0]: expected 2 of them, each in [0, 2)"),
        (lambda env: env.advance(torch.zeros(3).long()), "action = [0, 0, 0]: expected 2 of them, each in"),
    ],
)  # fmt: skip
def test_an_environment_refuses_invalid_rows_and_actions(call: Any, message: str) -> None:
    env = GymEnv("CartPole-v1", num_envs=2, seed=0)
    env.begin()
    with pytest.raises(SettingError, match=re.escape(message)):
        call(env)
    assert env.advance([0, 1]).reward.tolist() == [1, 1]  # type: ignore[arg-type]


def test_custom_parts_receive_the_values_that_their_parameters_name() -> None:
    agent, env, make_env = compose("sqn", gamma=0.9, seed=3, **TINY).build(
        head=Halved,
        returns=partial(NStep, n=2, soft=False),
        env=partial(GymEnv, id=lambda: gym.make("Acrobot-v1")),
    )
    assert isinstance(agent.loss.q_net.head, Halved)
    assert (agent.replay.returns.n, agent.replay.returns.gamma) == (2, 0.9)
    assert env.observation_shape == (6,)
    other = make_env(num_envs=2, seed=9, training=False)
    assert (env.num_envs, other.num_envs) == (4, 2)
    env.close()
    other.close()


def passing_on(kind: type) -> type:
    """A subclass that passes all its keywords to the base class."""

    def make(self: Any, *arguments: Any, **keywords: Any) -> None:
        kind.__init__(self, *arguments, **keywords)  # type: ignore[misc]

    return type(kind)(f"My{kind.__name__}", (kind,), {"__init__": make})


@pytest.mark.parametrize("slot", [slot.name for slot in SLOTS if slot.name not in ("collect", "logger")])
def test_a_subclass_with_keyword_arguments_receives_what_its_base_class_takes(slot: str) -> None:
    """``__init__(self, mine=1, **keywords)`` is the usual way to extend a class."""
    recipe = compose_recipe("sqn", *(f"{name}={value}" for name, value in TINY.items()))
    kind = recipe.catalogue.resolve(slot, recipe.config[slot]["_target_"], "")
    part = partial(passing_on(kind), **recipe.fields(slot))
    agent, env, _ = compose("sqn", **TINY).build(**{slot: part})
    assert train(agent, env, compose("sqn", **TINY).run).updates > 0
    env.close()
    with pytest.raises(RecipeError, match=r"mispelled: .* has no such setting"):
        compose("sqn", **TINY).build(**{slot: partial(part, mispelled=1)})


def returns_of(n: int = 1, gamma: float = 0.99) -> NStep:
    return NStep(n=n, gamma=gamma, soft=False)


def test_a_partial_may_have_positional_arguments() -> None:
    make = partial(partial(GymEnv, lambda: gym.make("Acrobot-v1")), frame_stack=2)
    agent, env, _ = compose("sqn", gamma=0.9, **TINY).build(returns=partial(returns_of, 3), env=make)
    assert (agent.replay.returns.n, agent.replay.returns.gamma) == (3, 0.9)
    assert env.observation_shape == (2, 6)
    env.close()


class Misspelled(torch.nn.Module):
    def __init__(self, *, in_feature: int, n_actions: int) -> None:
        super().__init__()


class Refusing(torch.nn.Module):
    def __init__(self, *, in_features: int) -> None:
        raise ValueError("my own mistake")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"hed": DuelingHead}, "build(): hed: there is no such slot\n  did you mean `head`?"),
        ({"returns": OneStep(gamma=0.9)}, "build(): returns: expected a class or function that makes the"),
        ({"head": torch.nn.Linear(3, 2)}, "build(): head: expected a class or function"),
        ({"head": partial(DuelingHead, width=3)}, "build(): head.width: DuelingHead has no such setting"),
        ({"returns": partial(NStep, n=2, soft=False, gamma=0.5)}, "every part is given the same `gamma`"),
        ({"returns": NStep}, "build(): returns: NStep needs `n`, which no part upstream produces"),
        ({"returns": partial(NStep, n=2)}, "produces\n  write partial(NStep, soft=…), or ask for one of: "),
        ({"head": Misspelled}, "`in_feature`, which no part upstream produces; did you mean 'in_features'?"),
        ({"head": Refusing}, f"build(): head: my own mistake ({__file__}:"),
        ({"returns": partial(NStep, n=0, soft=False)}, "build(): returns.n = 0"),
    ],
)  # fmt: skip
def test_build_refuses_an_unsuitable_part_with_the_reason(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        compose("sqn", **TINY).build(**parts)


def test_progress_is_printed_to_stderr_only_with_progress_true(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compose("sqn", **TINY, out="quiet").train()
    assert capsys.readouterr() == ("", "")
    compose("sqn", **TINY, out="shown").train(progress=True)
    shown = capsys.readouterr()
    assert "200/200  return" in shown.err
    assert shown.out == ""


# --- progress ----------------------------------------------------------------------------------------------


def follow(terminal: bool) -> tuple[ProgressReporter, Counters, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    counters = Counters(env_steps=500, wall_s=1.0, updates=1)
    reporter = ProgressReporter(1010, console)
    reporter.begin(counters)
    return reporter, counters, file


ROW = {"return_mean": 3.0, "alpha": 0.1}


def test_progress_averages_the_speed_since_begin_and_caps_steps_at_the_budget() -> None:
    reporter, counters, file = follow(terminal=False)
    counters.env_steps, counters.wall_s = 700, 3.0
    reporter.metrics(ROW)
    counters.env_steps = 1012
    reporter.metrics(ROW)
    assert file.getvalue().splitlines() == [
        "700/1,010  return 3.0  α 0.1  100 steps/s  0:00:03 left",
        "1,010/1,010  return 3.0  α 0.1  256 steps/s  0:00:00 left",
    ]


def test_progress_omits_a_missing_metric_and_blanks_an_overlong_remaining_time() -> None:
    reporter, counters, file = follow(terminal=False)
    reporter._steps, counters.env_steps, counters.wall_s = 2**53, 510, 3.0
    reporter.metrics({"return_mean": 3.0, "alpha": None})
    assert file.getvalue() == f"510/{2**53:,}  return 3.0  5 steps/s  –:––:–– left\n"


def test_the_progress_bar_moves_between_metrics_and_names_slow_phases() -> None:
    reporter, counters, _ = follow(terminal=True)

    def drawn() -> str:
        paper = Console(file=io.StringIO(), width=100, color_system=None)
        with paper.capture() as captured:
            paper.print(*reporter._bar.get_renderables())
        return captured.get().rstrip("\n")

    with reporter:
        counters.updates = 0
        assert "random actions" in drawn()
        counters.updates = 1
        assert "random actions" not in drawn()
        counters.env_steps, counters.wall_s = 600, 2.0
        bar = drawn()
        assert (bar[:10], bar[-24:], len(bar)) == ("600/1,010 ", "100 steps/s 0:00:04 left", 100)
        reporter.phase("compiling")
        assert "compiling…" in drawn()
        reporter.phase("")
        assert "compiling…" not in drawn()


def test_the_evaluation_of_one_episode_is_printed_without_a_standard_deviation() -> None:
    reporter, _, file = follow(terminal=False)
    row = {"env_steps": 9, "mean": 2.0, "std": 0.0, "greedy": True, "cut": 0, "lengths": [9]}
    reporter.evaluation(row | {"episodes": 1})
    reporter.evaluation(row | {"episodes": 2, "lengths": [9, 9]})
    assert file.getvalue().splitlines() == [
        "evaluation at 9 steps: 2.0 (1 greedy episode)",
        "evaluation at 9 steps: 2.0 ± 0.0 (mean ± std of 2 greedy episodes)",
    ]
