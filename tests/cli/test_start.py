"""First steps with ``sqn-run``: hints for names of other libraries, ``--dry-run``, and ``--save``."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml

from sqn_rl.errors import for_atari_id
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.recipe.schema import FOREIGN_NAMES, SETTINGS
from sqn_rl.watch.run import WatchedRun

Command = Callable[..., Any]


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_setting_name_of_another_library_is_refused_with_our_name(name: str, command: Command) -> None:
    done = command("run", f"{name}=3")
    assert done.code == 2
    (hint,) = re.findall(r"\n  write (.*)\n", done.err)
    catalogue = Catalogue()
    recipe = compose_recipe()
    known = {*SETTINGS, *catalogue.groups(), *recipe.layers.values}
    written = re.findall(r"(?<![\w.])([a-z_]+)(?:\.[a-z_]+)*=", hint)
    assert written or hint.startswith("`sqn-ablate")
    assert {*written} <= {*known, "seeds"}


@pytest.mark.parametrize(
    ("guess", "answer"),
    [
        (["learning_rate=3e-4"], "write lr=0.0003"),
        (["net_arch=[64,64]"], "write hidden=[64,64]"),
        (["algo=dqn"], "write recipe=dqn"),
        (["hydra.run.dir=x"], "write out=x"),
        (["hydra/launcher=joblib"], "write `sqn-ablate --jobs N`"),
        (["hydra.job.name=x"], "sqn-run --dry-run"),
        (["env=pong"], "env=atari env.game=pong"),
        (["env=ALE/SpaceInvaders-v5"], "write env=atari env.game=space_invaders"),
        (["env=PongNoFrameskip-v4"], "write env=atari env.game=pong"),
        (["env=SpaceInvaders"], "env=atari env.game=space_invaders"),
        (["env_id=ALE/Pong-v5"], "write env=atari env.game=pong"),
        (["env_id=Pendulum-v1"], "write env=gym env.id=Pendulum-v1"),
        (["env=Pendulum-v1"], "write env=gym env.id=Pendulum-v1"),
        (["batch_sise=3"], "did you mean `batch_size`?"),
        (["algo=ppo"], "write recipe=ppo; `sqn-list recipe` shows all"),
        (["replay=none"], "there are: prioritized, "),
        (["head=prioritized"], "write replay=prioritized"),
        (["recipe=mine.yaml"], "sqn-run recipe=sqn --save FILE.yaml"),
    ],
)
def test_a_wrong_guess_on_the_command_line_is_refused_with_a_hint(
    guess: list[str], answer: str, command: Command
) -> None:
    done = command("run", *guess)
    assert done.code == 2
    assert answer in done.err


def test_an_atari_id_of_gymnasium_is_refused_with_our_env(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id in filter(for_atari_id, [*gymnasium.registry]):  # another test may have registered them
        monkeypatch.delitem(gymnasium.registry, id)
    for guess in (["env=gym", "env.id=ALE/Pong-v5"], ["env=gym", "env.id=PongNoFrameskip-v4"]):
        done = command("run", *guess)
        assert (done.code, "; write env=atari env.game=pong (" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("guess", "answer"),
    [
        (["--steps", "1000"], "settings are written without dashes: steps=VALUE"),
        (["--learning-rate=3"], "settings are written without dashes: lr=VALUE"),
        (["--cfg", "job"], "sqn-run --dry-run prints the resolved recipe"),
    ],
)
def test_an_unknown_option_is_refused_with_a_hint(
    guess: list[str], answer: str, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command("run", *guess)
    assert ended.value.code == 2
    assert answer in capfd.readouterr().err


def test_a_dry_run_prints_the_recipe_file_of_the_run_and_writes_no_files(
    command: Command, folder: Path
) -> None:
    settings = [
        "recipe=sqn_per",
        "head=dueling",
        "steps=300",
        "optimizer.lr=3e-4",
        "out=run",
        "eval_episodes=1",
    ]
    done = command("run", *settings, "--dry-run")
    assert (done.code, [*folder.iterdir()]) == (0, [])
    assert "\n  lr: 0.0003  # command line: optimizer.lr=3e-4\n" in done.out
    assert command("run", *settings).code == 0
    assert (folder / "run" / "recipe.yaml").read_text() == done.out


def test_a_dry_run_refuses_a_wrong_recipe_and_prints_every_job_of_a_sweep(command: Command) -> None:
    done = command("run", "encoder=nature_cnn", "--dry-run")
    assert (done.code, done.out) == (2, "")
    done = command("run", "-m", "seed=1,2", "--dry-run")
    assert re.findall(r"^seed: (\d)", done.out, re.MULTILINE) == ["1", "2"]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [
            "recipe=sqn_dueling_per",
            "env=atari_ram",
            "env.game=breakout",
            "layers=noisy",
            "steps=700",
            "seed=3",
        ],
        ["recipe=rainbow", "optimizer.lr=3e-4", "head.atoms=21", "loss.gamma=${gamma}"],
        ["optimizer._target_=torch.optim.NAdam"],
        ["recipe=sqn_paper", "optimizer=adamw", "optimizer._target_=torch.optim.RAdam", "optimizer.eps=1e-5"],
        ["task=minatar"],
        ["env=minatar", "task=classic_control", "steps=900"],
    ],
)
def test_a_saved_recipe_composes_to_the_same_config(
    settings: list[str], command: Command, folder: Path
) -> None:
    done = command("run", *settings, "out=elsewhere", "--save", "mine.yaml")
    assert (done.code, done.out) == (0, "mine.yaml: run it with `sqn-run recipe=mine.yaml`\n")
    before, after = compose_recipe("sqn", *settings), compose_recipe("sqn", "recipe=mine.yaml")
    assert after.config == before.config | {"recipe": "mine"}


def test_a_saved_recipe_may_inherit_from_a_file_anywhere(command: Command, folder: Path) -> None:
    (folder / "base.yaml").write_text("defaults: [sqn, _self_]\nlr: 0.5\n")
    base = f"recipe={folder / 'base.yaml'}"
    assert command("run", base, "tau=0.5", "--save", "mine.yaml").code == 0
    before, after = compose_recipe("sqn", base, "tau=0.5"), compose_recipe("sqn", "recipe=mine.yaml")
    assert after.config == before.config | {"recipe": "mine"}


def test_a_saved_recipe_may_inherit_from_a_file_with_any_name(command: Command, folder: Path) -> None:
    (folder / "a #1.yaml").write_text("# Mine.\ndefaults: [sqn, _self_]\ntau: 0.25\n")
    saved = command("run", "recipe='./a #1.yaml'", "head=dueling", "--save", "mine.yaml")
    assert saved.code == 0
    recipe = compose_recipe("sqn", "recipe=mine.yaml")
    assert (recipe.part("head"), recipe.fields("target_update")["tau"]) == ("dueling", 0.25)


def test_the_printed_command_for_a_saved_recipe_quotes_its_file_name(command: Command, folder: Path) -> None:
    done = command("run", "--save", "e,f's.yaml")
    words = shlex.split(done.out.partition("run it with `")[2].rstrip("`\n"))
    assert words[0] == "sqn-run"
    assert command("run", *words[1:], "--dry-run").code == 0


def test_a_saved_recipe_named_without_yaml_is_refused_with_a_hint(command: Command, folder: Path) -> None:
    assert command("run", "--save", "mine.yaml").code == 0
    done = command("run", "recipe=mine")
    assert done.err == "command line: recipe=mine: there is no such recipe\n  write recipe=mine.yaml\n"


def test_a_recipe_that_names_a_class_instead_of_a_part_can_be_saved(command: Command, folder: Path) -> None:
    sqn = (Path(__file__).parents[2] / "recipes" / "sqn.yaml").read_text()
    own = sqn.replace("  - /head: linear\n", "")
    (folder / "own.yaml").write_text(own + "head: {_target_: sqn_rl.LinearHead}\n")
    settings = ["recipe=own.yaml", "head._target_=sqn_rl.LinearHead"]
    command("run", *settings, "--save", "mine.yaml")
    before, after = compose_recipe("sqn", *settings), compose_recipe("sqn", "recipe=mine.yaml")
    assert after.config == before.config | {"recipe": "mine"}


def test_a_saved_recipe_keeps_every_value_of_a_partly_overridden_mapping(
    command: Command, folder: Path
) -> None:
    text = "defaults: [sqn, _self_]\nenv: {id: CartPole-v1, kwargs: {sutton_barto_reward: true}}\n"
    (folder / "mine" / "recipes").mkdir(parents=True)
    (folder / "mine" / "recipes" / "kw.yaml").write_text(text)
    settings = ["--config-dir", "mine", "recipe=kw", "env.kwargs.render_mode=rgb_array"]
    assert command("run", *settings, "--save", "k1.yaml").code == 0
    after = compose_recipe("sqn", "recipe=k1.yaml", catalogue=Catalogue(["mine"]))
    assert after.config["env"]["kwargs"] == {"sutton_barto_reward": True, "render_mode": "rgb_array"}


def test_a_saved_recipe_without_its_comment_signs_composes_to_the_same_config(
    command: Command, folder: Path
) -> None:
    command("run", "head=dueling", "--save", "mine.yaml")
    text = (folder / "mine.yaml").read_text()
    head, comments = text.split("before its part's name.\n")
    (folder / "all.yaml").write_text(head + "\n" + re.sub(r"^# ?", "", comments, flags=re.MULTILINE))
    assert yaml.safe_load((folder / "all.yaml").read_text())["optimizer"] == {"lr": "${lr}"}
    everything = compose_recipe("sqn", "recipe=all.yaml")
    assert everything.config == compose_recipe("sqn", "head=dueling").config | {"recipe": "all"}
    assert everything.origin("optimizer.lr").startswith("all.yaml:")


def test_a_saved_recipe_runs_under_its_name_and_works_with_diff(command: Command, folder: Path) -> None:
    tiny = ["steps=200", "warmup_steps=100", "eval_episodes=1", "hidden=[4]"]
    command("run", "head=dueling", *tiny, "--save", "mine.yaml")
    done = command("run", "recipe=mine.yaml")
    assert (done.code, done.runs[0].path.parts[-3]) == (0, "mine")
    assert command("diff", "recipe=mine.yaml", str(done.runs[0].path)).code == 0
    assert command("diff", "mine.yaml", "sqn").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--save", "x.txt"], "save = 'x.txt': expected a file that ends in .yaml"),
        (["--save", "nl\nx: 1.yaml"], r"save = 'nl\nx: 1.yaml': expected a name without control characters"),
        (["--save", "there.yaml"], "expected a file that does not exist yet"),
        (["--save", "nowhere/x.yaml"], "save = 'nowhere/x.yaml': expected a file in a folder that exists"),
        (["-m", "seed=1,2", "--save", "x.yaml"], "expected a single recipe, not a sweep"),
        (
            ["optimizer=rmsprop", "~optimizer.eps", "--save", "x.yaml"],
            "command line: ~optimizer.eps: a recipe file cannot remove a value that it inherits",
        ),
    ],
)
def test_an_invalid_save_is_refused_and_writes_no_file(
    arguments: list[str], message: str, command: Command, folder: Path
) -> None:
    (folder / "there.yaml").write_text("mine")
    done = command("run", *arguments)
    assert done.code == 2
    assert message in done.err
    assert [each.name for each in folder.iterdir()] == ["there.yaml"]
    assert (folder / "there.yaml").read_text() == "mine"


def test_the_title_of_a_run_names_its_swapped_parts_in_every_output(command: Command, folder: Path) -> None:
    tiny = [
        "steps=200",
        "warmup_steps=100",
        "eval_episodes=1",
        "hidden=[4]",
        "logger=tensorboard",
        "env=acrobot",
    ]
    swapped = ["replay=prioritized", "head=dueling"]
    done = command("run", *tiny, *swapped)
    (run,) = done.runs
    title = "sqn head=dueling replay=prioritized"
    assert run.path.parts[-3:-1] == ("sqn,head=dueling,replay=prioritized", "Acrobot-v1")
    assert run.summary["title"] == title
    assert compose_recipe("sqn", *tiny, *swapped).title == title
    assert load_recipe(run.path / "recipe.yaml").title == title  # of the curve, the film and the page
    assert WatchedRun(run.path, Catalogue()).title.startswith(f"{title} on Acrobot-v1")
    assert command("graph", *swapped, "--output", "graph.svg").code == 0
    assert f"{title} on cartpole" in (folder / "graph.svg").read_text()
    assert title in command("compare", str(run.path)).out
