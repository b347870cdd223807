"""Invalid values and wirings are refused before the first step, in a line or two with their origin."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from textwrap import dedent

import pytest
from messages import repeated

from sqn_rl import compose
from sqn_rl.cli.run import main
from sqn_rl.errors import RecipeError, to_install

SCALED = "env=gym env.id=MountainCar-v0 env.wrappers=[{RescaleObservation:{min_obs:-99,max_obs:99}}]"
"""Observations with a scaling."""
VALUES = {
    # heads
    "head=categorical head.v_max=5 head.v_min=5": "expected a finite number below v_max, 5",
    "head=categorical head.v_max=-100 head.v_min=1": "expected a finite number below v_max, -100",
    "recipe=sqn_rainbow v_min=100": "head.v_min = 100: expected a finite number below v_max, 100",
    "head=categorical head.atoms=1": "expected a whole number, at least 2",
    "head=categorical head.atoms=2.5": "expected a whole number, at least 2",
    "head=quantile head.quantiles=0": "expected a whole number, at least 1",
    "head=quantile head.kappa=-1": "expected a number, at least 0",
    "head=rescaled head.epsilon=-1": "expected a number, at least 0",
    "head=quantile head.dueling=2": "expected true or false",
    # networks
    "layers=noisy layers.sigma=-0.5": "expected a number, at least 0",
    "encoder.hidden=[0]": "expected a list of whole numbers, at least 1",
    "hidden=[16,2.5]": "encoder.hidden = [16, 2.5]: expected a list of whole numbers, at least 1",
    "env=atari hidden=[-1]": "encoder.hidden = [-1]: expected a list of whole numbers, at least 1",
    "env=atari encoder=impala_cnn encoder.width=0": "expected a whole number",
    "q_net.members=0": "expected a whole number, at least 1",
    # returns and replay
    "returns=n_step returns.n=0": "expected a whole number, at least 1",
    "returns=n_step returns.n=1.5": "expected a whole number, at least 1",
    "replay=prioritized replay.omega=-1": "expected a number, at least 0",
    "replay=prioritized replay.beta=1.5": "expected a number in [0, 1]",
    # losses and temperatures
    "loss=munchausen loss.m=2": "expected a number in [0, 1]",
    "loss=munchausen loss.lowest=1": "expected a number below 0",
    "actor=policy loss=discrete_sac loss.backup=mean": "expected one of expected, ",
    "temperature=annealed temperature.over=0": "expected a number in (0, 1]",
    "temperature=fixed temperature.alpha=0": "expected a number in [1e-12, 1e12]",
    "temperature=fixed temperature.alpha=1e-300": "expected a number in [1e-12, 1e12]",
    "temperature.minimum=1e-300": "expected a number in [1e-12, 1e12]",
    "temperature.target_entropy=null": "expected nats here, or a fraction: target_entropy_fraction",
    "temperature.target_entropy_fraction=0.5": "expected null, as target_entropy = 0.1; or set that to null",
    # actors
    "actor=epsilon_greedy actor.start=2": "expected a number in [0, 1]",
    "actor=epsilon_greedy actor.end=-0.1": "expected a number in [0, 1]",
    "actor=epsilon_greedy actor.over=0": "expected a number in (0, 1]",
    "actor=greedy actor.policy=q2": "expected one of q1, min",
    # environments
    "num_envs=200000000": "expected a whole number in [1, 65,536]",
    "env=atari env.game=pongg": "expected a game of ale-py's",
    "env=atari_ram env.game=Pongg": "in snake_case; did you mean 'pong'?",
    "env=atari env.game=combat": "expected a game whose rules ALE knows",
    "env=atari_ram env.game=combat": "expected a game whose rules ALE knows",
    "env=atari env.frame_stack=0": "expected a whole number, at least 1",
    "env=atari env.frame_skip=0": "expected a whole number, at least 1",
    "env=atari env.sticky_actions=1": "expected a probability in [0, 1)",
    "env=atari env.sticky_actions=null": "expected a probability in [0, 1)",
    "env=atari env.life_loss=null": "expected True or False",
    "env=minatar env.minimal_actions=null": "expected True or False",
    "env=envpool env.id=CartPole-v1 env.kwargs=[1]": "expected a dict",
    "env=envpool env.id=CartPole-v1 env.threads=null": "expected a whole number, at least 0",
    "env=football env.max_episode_steps=1": "expected a whole number, at least 2, or null",
    "env=atari env.noop_max=-1": "expected a whole number, at least 0",
    "env=atari env.max_frames=0": "expected a whole number, at least 1, or null",
    "env=minatar env.game=pong": "expected one of asterix, breakout, freeway, seaquest, space_invaders",
    "env=minatar env.sticky_action_prob=1": "expected a probability in [0, 1)",
    "env=minatar env.max_episode_steps=0": "expected a whole number, at least 1, or null",
    # values that another part or the run provides
    "loss.gamma=0.5": "every part is given the same `gamma`\n  write gamma=0.5",
    "returns.gamma=0.5": "every part is given the same `gamma`\n  write gamma=0.5",
    "temperature.n_actions=9": "every part is given the same `n_actions`\n  leave it out",
    f"{SCALED} encoder.observation_scaling=[0,1]": "given the same `observation_scaling`\n  leave it out",
    "loss.temperature=null": "every part is given the same `temperature`\n  leave it out",
    # targets
    "target_update=periodic target_update.every=0": "expected a whole number",
    "tau=2": "target_update.tau = 2: expected a number in (0, 1]",
}
"""By overrides, the last of which is to blame: the message."""

WIRINGS = {
    "loss=sqn temperature=none actor=greedy": (
        "loss=sqn",
        "SQNLoss needs a temperature",
        "temperature=learned",
    ),
    "loss=dqn temperature=none actor=boltzmann": (
        "actor=boltzmann",
        "BoltzmannActor needs a temperature",
        "actor=epsilon_greedy",
    ),
    "temperature=none": ("temperature=none", "needs a temperature", "temperature=learned"),
    "actor=greedy temperature=none": ("temperature=none", "loss: SQNLoss needs", "or a loss that has none"),
    "loss=sqn actor=policy": ("actor=policy", "no gradient of SQNLoss reaches", "loss=discrete_sac"),
    "actor=greedy loss=discrete_sac": ("loss=discrete_sac", "GreedyActor has none", "choose actor=policy"),
    "encoder=nature_cnn": ("encoder=nature_cnn", "NatureCNN reads images [C, H, W]", "env=atari"),
    "env=minatar encoder=nature_cnn": (
        "encoder=nature_cnn",
        "observations here are [4, 10, 10]",
        "env=atari",
    ),
    "env=atari_ram encoder=impala_cnn": ("encoder=impala_cnn", "observations here are [128]", "env=atari"),
    "actor=epsilon_greedy returns=n_step returns.soft=true": (
        "returns.soft=true",
        "expected an actor with a policy",
        "EpsilonGreedyActor has none",
    ),
    "actor=greedy loss=dqn temperature=none returns=n_step returns.soft=true": (
        "returns.soft=true",
        "expected a temperature",
        "there is none",
    ),
    "loss.backup_entropy=false returns=n_step returns.soft=true": (
        "returns.soft=true",
        "expected a loss that counts the entropy of the last step too",
        "set it to false: SQNLoss leaves that entropy out",
    ),
    "recipe=sqn_nstep loss.backup_entropy=false": (
        "loss.backup_entropy=false",
        "returns.soft = true",
        "set it to false",
    ),
    "returns=retrace loss.backup=sampled": (
        "returns=retrace",
        "Retrace needs π(a|s), in whose place loss.backup = sampled has one action",
        "choose returns=tree_backup or loss.backup=expected",
    ),
    "recipe=sqn_paper returns=retrace": (
        "returns=retrace",
        "Retrace needs π(a|s)",
        "choose returns=tree_backup or loss.backup=expected",
    ),
    "returns=retrace head=categorical": (
        "returns=retrace",
        "Retrace subtracts values, which a distribution of returns does not allow",
        "choose returns=tree_backup or head=linear",
    ),
    "recipe=sqn_nstep loss=dqn": ("loss=dqn", "returns.soft = true", "DQNLoss leaves that"),
}
"""By overrides: which of them is to blame, the message, and how to fix it."""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(overrides: str, capfd: pytest.CaptureFixture[str]) -> str:
    """The error message, which the command and the library share; no file is written."""
    with pytest.raises(RecipeError) as raised:
        compose("sqn", *overrides.split()).preflight()
    capfd.readouterr()
    assert main(overrides.split()) == 2
    message = capfd.readouterr().err
    assert message == f"{raised.value}\n"
    assert len(message.splitlines()) <= 2
    assert repeated(message) == []
    assert list(Path.cwd().iterdir()) == []
    return message


@pytest.mark.parametrize("overrides", VALUES)
def test_an_invalid_value_is_refused_with_what_is_expected(
    overrides: str, capfd: pytest.CaptureFixture[str]
) -> None:
    message = refusal(overrides, capfd)
    assert message.startswith(f"command line: {overrides.split()[-1]}: ")
    assert VALUES[overrides] in message


@pytest.mark.parametrize("overrides", WIRINGS)
def test_incompatible_parts_are_refused_with_a_fix(overrides: str, capfd: pytest.CaptureFixture[str]) -> None:
    blamed, what, fix = WIRINGS[overrides]
    message = refusal(overrides, capfd)
    assert message.startswith(f"command line: {blamed}: ")
    assert what in message
    assert fix in message


def test_an_invalid_value_in_a_recipe_file_is_refused_with_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine" / "recipes" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("# Mine.\ndefaults: [sqn_rainbow, _self_]\nreplay:\n  beta: 2\n")
    assert main(["--config-dir", str(tmp_path / "mine"), "recipe=mine"]) == 2
    message = capfd.readouterr().err
    assert message == f"{recipe}:4: replay.beta = 2: expected a number in [0, 1]\n"


@pytest.mark.parametrize(
    ("module", "override", "message", "fix"),
    [
        (
            "Box2D",
            "env=lunarlander",
            "components/env/lunarlander.yaml:4: env.id = 'LunarLander-v3': expected ",
            to_install("envs"),
        ),
        (
            "minatar",
            "env=minatar",
            "components/env/minatar.yaml:4: env.game = 'breakout': expected MinAtar to be installed",
            to_install("minatar"),
        ),
        (
            "envpool",
            "env=football",
            "components/env/football.yaml:4: env.scenario = 'academy_empty_goal_close': expected EnvPool",
            to_install("envpool"),
        ),
        (
            "tensorboard",
            "logger=tensorboard",
            "command line: logger=tensorboard: expected ",
            to_install("logging"),
        ),
    ],
)
def test_a_missing_extra_is_refused_with_how_to_install_it(
    module: str, override: str, message: str, fix: str
) -> None:
    code = f"""
        import sys
        sys.modules[{module!r}] = None
        from sqn_rl.cli.run import main
        sys.exit(main([{override!r}]))"""
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 2
    assert done.stderr.startswith(message)
    assert fix in done.stderr
    assert list(Path.cwd().iterdir()) == []


SOURCES = {
    '{"dir_info": {"editable": true}, "url": "file:///srv/my%20clone"}': "-e '/srv/my clone[video]'",
    '{"dir_info": {}, "url": "file:///srv/clone"}': "'/srv/clone[video]'",
    '{"archive_info": {}, "url": "https://example.org/sqn_rl.whl"}': "'sqn_rl[video]'",
    None: "'sqn_rl[video]'",
}
"""By pip's record of the package's source, the argument of pip that adds an extra."""


@pytest.mark.parametrize("source", SOURCES)
def test_the_install_hint_for_an_extra_uses_the_source_of_the_package(
    source: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata.PathDistribution, "read_text", lambda self, name: source)
    assert to_install("video") == f"pip install {SOURCES[source]}"
