"""``sqn-eval``: evaluation of the weights of a run."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sqn_rl.cli.run import main as train

Command = Callable


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    settings = [
        "steps=600",
        "warmup_steps=100",
        "num_envs=4",
        "checkpoint_every=300",
        "eval_episodes=3",
        "seed=5",
    ]
    assert train([*settings, "head=dueling", f"out={path}"]) == 0
    return path


def returns(out: str) -> list[float]:
    return [float(word) for word in out.splitlines()[-1].split()[1:]]


def test_eval_repeats_the_evaluation_of_the_run(trained: Path, command: Command) -> None:
    done = command("evaluate", str(trained))
    assert (done.code, done.err) == (0, "")
    evaluation = re.search(r'"returns": (\[.*?\])', (trained / "evaluations.jsonl").read_text())
    assert evaluation
    assert str(returns(done.out)) == evaluation[1]
    first, second, _ = done.out.splitlines()
    assert first == f"{trained}: weights after 600 environment steps"
    assert re.fullmatch(r"return [\d.]+ ± [\d.]+ \(mean ± std of 3 greedy episodes\), IQM [\d.]+", second)


def test_a_single_episode_has_no_standard_deviation(trained: Path, command: Command) -> None:
    done = command("evaluate", str(trained), "--episodes", "1")
    assert re.fullmatch(r"return [\d.]+ \(1 greedy episode\)", done.out.splitlines()[1])


def test_another_seed_or_a_sampled_policy_changes_the_returns(trained: Path, command: Command) -> None:
    greedy = command("evaluate", str(trained), "--episodes", "12")
    sampled = command("evaluate", str(trained), "--episodes", "12", "--stochastic")
    others = command("evaluate", str(trained), "--episodes", "12", "--seed", "77")
    assert "(mean ± std of 12 sampled episodes), IQM" in sampled.out
    played = [returns(done.out) for done in (greedy, sampled, others)]
    assert [len(games) for games in played] == [12, 12, 12]
    assert played[0] != played[1] != played[2] != played[0]
    assert returns(command("evaluate", str(trained), "--episodes", "12", "--stochastic").out) == played[1]


def test_eval_does_not_change_the_run_directory(trained: Path, command: Command) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    command("evaluate", str(trained))
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_an_older_checkpoint_is_used_if_the_last_was_removed(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    shutil.rmtree(copy / "checkpoints" / "0000000600")
    assert "weights after 300 environment steps" in command("evaluate", str(copy)).out


def _without_recipe(run: Path) -> None:
    (run / "recipe.yaml").unlink()


def _without_weights(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")


def _truncated_weights(run: Path) -> None:
    path = run / "checkpoints" / "0000000600" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _old_weights(run: Path) -> None:
    path = run / "checkpoints" / "0000000600" / "weights.safetensors"
    shutil.copy(run / "checkpoints" / "0000000300" / "weights.safetensors", path)


def _without_manifest(run: Path) -> None:
    (run / "checkpoints" / "0000000600" / "manifest.json").unlink()


def _other_network(run: Path) -> None:
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("sqn_rl.DuelingHead", "sqn_rl.LinearHead"))


def _foreign_class(run: Path) -> None:
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("sqn_rl.DuelingHead", "os.system"))


def _misspelt_field(run: Path) -> None:
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("  policy: mean", "  polcy: mean"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_recipe, r"{run}: not a run directory: there is no recipe.yaml in it"),
        (_without_weights, r"{run}/checkpoints: no checkpoint yet"),
        (_truncated_weights, r"{newest}/weights.safetensors: damaged: [\d,]+ bytes instead of [\d,]+"),
        (_old_weights, r"{newest}/weights.safetensors: damaged: its contents have changed \(SHA-256\)"),
        (_without_manifest, r"{newest}/manifest.json: cannot be read \(No such file or directory\)"),
        (
            _other_network,
            r"{newest}/weights.safetensors: made by another agent: \d+ tensors differ, such .*",
        ),
        (_foreign_class, r"{run}/recipe.yaml:\d+: _target_: os.system: not a part of sqn_rl .*"),
        (_misspelt_field, r"{run}/recipe.yaml:\d+: actor.polcy: BoltzmannActor has no such setting"),
    ],
)
def test_a_damaged_run_is_refused_with_the_reason(
    damage: Callable[[Path], None], message: str, trained: Path, command: Command, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "copy"))
    damage(run)
    done = command("evaluate", str(run))
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(
        message.replace("{newest}", "{run}/checkpoints/0000000600").replace("{run}", str(run)),
        next(line for line in done.err.splitlines() if not line.startswith("note: ")),
    )


def test_an_older_checkpoint_is_evaluated_although_the_newest_is_damaged(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "copy"))
    (run / "checkpoints" / "0000000600" / "manifest.json").write_text("{")
    done = command("evaluate", str(run), "--checkpoint", "300")
    assert done.code == 0
    assert "weights after 300 environment steps" in done.out
    assert "note: " in done.err + done.out


MOVING = """
import os
import gymnasium

class Moving(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(2)
    def __init__(self):
        os.chdir("/")
    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), 1.0, False, True, {}

gymnasium.register("Moving-v0", Moving)
"""


def test_commands_work_with_an_environment_that_changes_the_working_directory(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "moving.py").write_text(MOVING)
    tiny = ["steps=60", "warmup_steps=20", "hidden=[8]", "batch_size=4", "eval_episodes=1", "out=run"]
    trust = ["--trust", "moving.py"]
    for name, *arguments in (
        ("run", *trust, "env=gym", "env.id=Moving-v0", *tiny),
        ("evaluate", "run", *trust),
        ("export", "run", "policy.onnx", *trust),
        ("hub.push", "run", "--to", "model", *trust),
    ):
        monkeypatch.chdir(folder)
        assert command(name, *arguments).code == 0
    assert {"run", "policy.onnx", "model"} <= {each.name for each in folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0"], "--episodes 0: expected a whole number, at least 1"),
        (["--seed", "-1"], "--seed -1: expected a whole number, at least 0"),
        (["--max-steps", "-3"], "--max-steps -3: expected a whole number, at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(
    arguments: list[str], message: str, trained: Path, command: Command
) -> None:
    done = command("evaluate", str(trained), *arguments)
    assert done.code == 2
    assert message in done.err


def test_a_video_shows_the_first_evaluation_episode(trained: Path, command: Command, folder: Path) -> None:
    evaluated = returns(command("evaluate", str(trained), "--episodes", "1").out)
    done = command("evaluate", str(trained), "--video", "game.gif")
    assert (done.code, done.err, returns(done.out)) == (0, "", evaluated)
    steps = f"{evaluated[0]:.0f}"  # CartPole gives 1 a step
    assert done.out.splitlines()[0] == f"game.gif: {steps} of {steps} steps"
    assert (folder / "game.gif").read_bytes().startswith(b"GIF89a")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("game.avi", "video = 'game.avi': expected a file name that ends in .mp4 or .gif\n"),
        ("no/game.gif", "video = 'no/game.gif': expected a file in a folder that exists\n"),
        ("folder.gif", "--video folder.gif: Is a directory\n"),
    ],
)
def test_a_video_file_that_cannot_be_written_is_refused(
    name: str, message: str, trained: Path, command: Command, folder: Path
) -> None:
    (folder / "folder.gif").mkdir()
    done = command("evaluate", str(trained), "--video", name)
    assert (done.code, done.out, done.err) == (2, "", message)
