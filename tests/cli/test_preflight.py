"""Every mistake is found before the first environment step, and reported in a line or two."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flat import FLAT
from messages import repeated

import sqn_rl
from sqn_rl import BoltzmannActor, GamesEnv, LearnedTemperature, OneStep, SQNLoss, compose
from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.graph import Graph
from sqn_rl.recipe.preflight import preflight

CATALOGUE = Catalogue()
ATARI = "env=atari_ram"
TASK = "env=gym env.id=users/Task-v0"

OVERRIDES = {
    # missing
    "env=gym": ("components/env/gym.yaml:4", "env.id: it has no value", "give it one: env.id=…"),
    "~replay.capacity": (
        "components/replay/uniform.yaml:2",
        "UniformReplay needs `capacity`",
        "set replay.capacity",
    ),
    "head=hungryhead": (
        "{tree}/components/head/hungryhead.yaml:2",
        "needs `width`, which no part upstream",
        "ask for",
    ),
    "loss=loss": (
        "head",
        "Loss reads `next.value_prefix`, which no part upstream produces",
        "there are: action, ",
    ),
    "q_net.in_keys=[obs]": (
        "",
        "QNet reads `obs`, which no part upstream produces",
        "there are: observation",
    ),
    "q_net.in_keys=[observatio]": ("", "QNet reads `observatio`", "did you mean `observation`?"),
    # generators
    "loss=dicingloss": (
        "command line: loss=dicingloss: ",
        "DicingLoss.dice.0 is a Generator of numpy, which no checkpoint keeps",
        "draw from a torch.Generator, and name that in `randomness`: see docs/walkthroughs/own_parts.md",
    ),
    # shapes
    "head=widehead": ("", "WideHead gives q_values as [2, 8, 3] torch.float32; expected [2, 8, 2]", ""),
    "head=tornhead": ("", "TornHead fails at Q(s, ·) on observation [8, 4] torch.float32: RuntimeError", ""),
    "head=brokenhead": (
        "",
        "AttributeError: 'BrokenHead' object has no attribute 'actions'",
        "users_parts.py:",
    ),
    "encoder=encoder": ("", "encoder: Encoder has no `out_features`, which the head needs to know", ""),
    "head._target_=torch.nn.Linear": ("", "torch.nn.Linear: not a part of sqn_rl", "if you trust `torch.nn`"),
    # names
    "recipe=sqn_duelling": ("", "there is no such recipe", "did you mean `sqn_dueling`?"),
    "q_net=twins": ("", "there is no such part", "did you mean `twin`?"),
    "warmup_step=3": ("", "there is no such setting", "did you mean `warmup_steps`?"),
    "encoder.hiden=[3]": ("", "MLP has no such setting", "did you mean `hidden`?"),
    "head._target_=os.system": ("", "_target_: os.system: not a part of sqn_rl ", "say so with --trust os"),
    "loss.backup=expectd": (
        "",
        "expected one of expected, ",
        "did you mean 'expected'?",
    ),
    "loss.policy_source=q": ("", "expected one of q1, ", "did you mean 'q1'?"),
    "env.id=CartPol-v1": ("", "expected an id", "did you mean 'CartPole-v1'?"),
    f"{ATARI} env.game=pongg": (
        "env.game=pongg",
        "expected a game",
        "did you mean 'pong'?",
    ),
    # values
    "temperature=fixed temperature.alpha=-1": (
        "temperature.alpha=-1",
        "expected a number in [1e-12, 1e12]",
        "",
    ),
    "initial_alpha=-1": ("", "temperature.initial = -1: expected a number in [1e-12, 1e12]", ""),
    "target_entropy=5": ("", "temperature.target_entropy = 5: expected nats in [0, 0.693)", "log 2"),
    "gamma=1.01": ("", "expected a number in [0, 1]", ""),
    "tau=0": ("", "target_update.tau = 0: expected a number in (0, 1]", ""),
    "batch_size=1e7": (
        "",
        "expected at most the replay's capacity",
        "components/task/classic",
    ),
    "replay_capacity=7": (
        "command line: batch_size=8",
        "expected at most the replay's capacity, 7",
        "raise replay.capacity (command line: replay_capacity=7)",
    ),
    "replay_capacity=1e12": ("", "replay.capacity = 1000000000000: expected at most", "GB are free"),
    "optimizer.lr=-1": ("", "optimizer.lr=-1: expected a positive number", ""),
    "optimizer.betas=[2,3]": ("", "optimizer.betas=[2,3]: expected two numbers in [0, 1)", ""),
    "optimizer.betas=[0.9]": ("", "optimizer.betas=[0.9]: expected two numbers in [0, 1)", ""),
    "device=mps": ("", "torch cannot use it here", "set device=cpu"),
    "encoder.hidden=[1000000,1000000]": (
        "",
        "the networks, their targets, gradients and moments take",
        "use smaller",
    ),
    "env.id=Pendulum-v1": ("", "MultiBinary actions; it has Box", ""),
    f"{TASK} env.kwargs.actions=0": ("", "MultiBinary actions; it has Box(-1.0, 1.0, (3,)", ""),
    "env=gym env.id=Mine-v0": ("env.id=Mine-v0", "or that a module registers: --trust MODULE", ""),
    "env.kwargs.foo=1": ("", "env.kwargs = {{'foo': 1}}: expected what CartPole-v1 takes", "'foo'"),
    f"{TASK} env.kwargs.actions=123456789012345678901": (
        "env.kwargs.actions=123456789012345678901",
        "the run's recipe.yaml could not be read: a whole number of more than 64 bits",
        "",
    ),
    "out=/dev/null": ("", "expected a directory", ""),
}


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_a_mistake_on_the_command_line_is_refused_with_its_origin_and_a_fix(
    overrides: str, command: Callable, trusting: list[str], users_tree: Path, no_steps: None
) -> None:
    where, what, fix = (text.format(tree=users_tree) for text in OVERRIDES[overrides])
    done = command("run", *trusting, "batch_size=8", *overrides.split())
    assert (done.code, done.runs) == (2, [])
    assert list(Path.cwd().iterdir()) == []
    assert "Traceback" not in done.err
    assert 1 <= len(done.err.splitlines()) <= 2
    assert what in done.err
    assert fix in done.err
    assert repeated(done.err) == []
    origin = where if ".yaml" in where or "command" in where else "command line: "
    assert done.err.startswith(origin)


WIRED = {
    "returns": OneStep,
    "temperature": LearnedTemperature,
    "actor": BoltzmannActor,
    "loss": SQNLoss,
}


@pytest.mark.parametrize("slot", WIRED)
@pytest.mark.parametrize(
    ("key", "hint"),
    [("alfa", "did you mean `alpha`?"), ("entropi", "did you mean `entropy`?"), ("x", "there are: ")],
)
def test_a_part_that_consumes_a_key_without_a_producer_is_refused_with_a_hint(
    slot: str, key: str, hint: str, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = type(f"My{slot}", (WIRED[slot],), {"consumes": [key]})
    monkeypatch.setattr(sqn_rl, WIRED[slot].__name__, part)
    done = command("graph", "batch_size=8")
    assert done.code == 2
    assert f"{slot}: {part.__name__} reads `{key}`, which no part upstream produces\n" in done.err
    assert hint in done.err


@pytest.fixture
def no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: GamesEnv, action: object) -> None:
        raise AssertionError("an environment step before the end of preflight")

    monkeypatch.setattr(GamesEnv, "send", refuse)


FILES = {
    "defaults: [sqn, {override /head: duelling}, _self_]\n": (
        2,
        "head=duelling: there is no such part",
        "did you mean `dueling`?",
    ),
    "defaults: [sqn, _self_]\nwarm_up: 3\n": (
        3,
        "warm_up: there is no such setting",
        "did you mean `warmup_steps`?",
    ),
    "defaults: [sqn, _self_]\n\nloss:\n  backup: expectd\n": (
        5,
        "loss.backup = 'expectd'",
        "did you mean 'expected'?",
    ),
    "defaults: [sqn, _self_]\nactor: {polcy: min}\n": (
        3,
        "BoltzmannActor has no such setting",
        "did you mean `policy`?",
    ),
    "defaults: [sqn, _self_]\ngamma: 2\n": (3, "gamma = 2: expected a number in [0, 1]", ""),
    "defaults: [sqn, _self_]\ninitial_alpha: -1\n": (
        3,
        "temperature.initial = -1: expected a number in [1e-12, 1e12]",
        "",
    ),
    "defaults: [sqn, _self_]\nbatch_size: 9999999\n": (
        3,
        "batch_size = 9999999: expected at most the replay's",
        "lower",
    ),
    "defaults: [sqn, {override /env: gym}, _self_]\nenv:\n  id: Pendulum-v1\n": (
        4,
        "expected Discrete, MultiDiscrete or MultiBinary actions",
        "",
    ),
    "defaults: [sqn, {override /encoder: encoder}, _self_]\n": (2, "Encoder has no `out_features`", ""),
    "defaults: [sqn, {override /loss: loss}, _self_]\n": (2, "Loss reads `next.value_prefix`", "there are: "),
    "defaults: [sqn, {override /head: widehead}, _self_]\n": (2, "gives q_values as [2, ", ""),
    "defaults: [sqn, _self_]\nsteps 5\n": (3, "not YAML", ""),
}


@pytest.mark.parametrize("text", FILES)
def test_a_mistake_in_a_recipe_file_is_refused_with_its_line_and_a_fix(
    text: str, command: Callable, trusting: list[str], tmp_path: Path, no_steps: None
) -> None:
    line, what, fix = FILES[text]
    recipe = tmp_path / "mine" / "recipes" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(f"# Mine.\n{text}")
    done = command("run", *trusting, "--config-dir", str(tmp_path / "mine"), "recipe=mine")
    assert (done.code, done.runs) == (2, [])
    assert done.err.startswith(f"{recipe}:{line}: ")
    assert what in done.err
    assert fix in done.err


def test_trusting_a_missing_module_is_refused_with_a_hint(command: Callable) -> None:
    done = command("run", "--trust", "no_such_parts")
    assert done.code == 2
    assert done.err.startswith(
        "--trust no_such_parts: ModuleNotFoundError: No module named 'no_such_parts'\n"
    )
    assert "PYTHONPATH=. is this folder" in done.err


@pytest.mark.parametrize("name", ["a/b", "", ".parts", "my-parts", "my-parts.py"])
def test_trusting_an_invalid_module_name_is_refused(command: Callable, folder: Path, name: str) -> None:
    (folder / "my-parts.py").touch()
    done = command("run", "--trust", name)
    expected = "expected the name of a module, such as my_envs.robots"
    assert (done.code, done.err) == (2, f"--trust {name.removesuffix('.py')}: {expected}\n")


FILE = """
import gymnasium
class Robot(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 1.0, False, True, {}
gymnasium.register("Robot-v0", Robot)
class Rewarded(gymnasium.RewardWrapper):
    pass
"""


def test_a_trusted_file_registers_environment_ids_for_run_and_eval(command: Callable, folder: Path) -> None:
    (folder / "here").mkdir()
    (folder / "here" / "my_robots.py").write_text(FILE)
    task = ["env=gym", "env.id=my_robots:Robot-v0", "steps=40", "eval_episodes=1"]
    done = command("run", *task)
    assert (done.code, "if you trust `my_robots`, by --trust my_robots" in done.err) == (2, True)
    done = command("run", "--trust", "./here/my_robots.py", *task)
    assert (done.code, done.runs[0].summary["env"]) == (0, "Robot-v0")
    assert command("evaluate", "--trust", "here/my_robots.py", str(done.runs[0].path)).code == 0
    del sys.modules["my_robots"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("json.py", "--trust json: ImportError: there is another module `json`; rename the file"),
        ("antigravity.py", "ImportError: `antigravity` is the name of a module of Python; rename the file"),
        ("broken.py", "--trust broken: NameError: name 'nothing' is not defined"),
        ("nowhere.py", "--trust nowhere.py: there is no such file"),
    ],
)
def test_trusting_a_file_that_cannot_be_imported_is_refused(
    command: Callable, folder: Path, file: str, message: str
) -> None:
    if file != "nowhere.py":
        (folder / file).write_text("nothing()")
    done = command("run", "--trust", file)
    assert (done.code, message in done.err) == (2, True)
    assert "broken" not in sys.modules


def test_a_trusted_module_that_raises_system_exit_is_refused(command: Callable, folder: Path) -> None:
    (folder / "exits.py").write_text("raise SystemExit(0)\n")
    sys.path.append(str(folder))
    done = command("run", "--trust", "exits")
    assert (done.code, done.err) == (2, "--trust exits: SystemExit: 0\n")


@pytest.mark.parametrize("env", ["cartpole", "atari_ram"])
@pytest.mark.parametrize("name", CATALOGUE.names(RECIPE))
def test_preflight_of_every_recipe_takes_less_than_1_5_s_of_processor_time(name: str, env: str) -> None:
    recipe = compose(name, f"env={env}", *FLAT.get(name, ())).recipe
    preflight(recipe)  # imports
    before = time.process_time()
    preflight(recipe)
    assert time.process_time() - before < 1.5


def test_preflight_does_not_change_the_results_of_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(out: str) -> list[str]:
        settings = ["steps=300", "warmup_steps=100", "log_every=50", "eval_episodes=2", f"out={out}"]
        compose("sqn", "loss.backup=sampled", *settings).train()
        rows = [line.split('"wall_s"') for line in Path(out, "metrics.jsonl").read_text().splitlines()]
        rest = [Path(out, f"{name}.jsonl").read_text() for name in ("episodes", "evaluations")]
        return [row[0] + row[1].partition(",")[2] for row in rows] + rest

    with_preflight = train("with")
    monkeypatch.setattr("sqn_rl.runs.experiment.preflight", lambda _: Graph())
    assert train("without") == with_preflight
