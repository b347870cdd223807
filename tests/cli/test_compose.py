"""Recipes composed of parts, a task and the command line: precedence, and the origin of each value."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.recipe.overrides import expand
from sqn_rl.recipe.schema import SLOTS


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str, str], Catalogue]:
    """Write a file of a user's configuration tree; returns the catalogue with that tree."""

    def write(path: str, text: str) -> Catalogue:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return Catalogue([tmp_path])

    return write


def test_the_base_recipe_fills_every_slot() -> None:
    recipe = compose_recipe("sqn")
    assert {slot.name for slot in SLOTS} < recipe.config.keys()
    assert recipe.part("env") == "cartpole"


def test_an_env_selects_its_task_and_the_settings_of_that_task() -> None:
    cartpole, atari = compose_recipe("sqn"), compose_recipe("sqn", "env=atari_ram")
    control, ram = (Catalogue().read("task", name) for name in ("classic_control", "atari_ram"))
    assert control.values["steps"] != ram.values["steps"]
    assert cartpole.run.steps == control.values["steps"]
    assert atari.run.steps == compose_recipe("sqn", "task=atari_ram").run.steps == ram.values["steps"]
    assert atari.config["optimizer"]["lr"] == ram.values["lr"]
    assert atari.config["env"]["clip_reward"] is True
    assert atari.origin("optimizer.lr") == ram.origin("lr") == "components/task/atari_ram.yaml:8"


CLASSIC_CONTROL = "components/task/classic_control.yaml"


def test_a_task_inherits_from_its_family() -> None:
    recipe = compose_recipe("sqn", "env=lunarlander")
    family = compose_recipe("sqn", "env=acrobot")
    assert recipe.origin("steps") == "components/task/lunarlander.yaml:3"
    assert recipe.run.steps == 4 * family.run.steps
    assert recipe.origin("temperature.lr") == family.origin("temperature.lr") == f"{CLASSIC_CONTROL}:8"


def test_a_recipe_wins_over_the_task_and_the_command_line_over_both() -> None:
    recipe = compose_recipe("sqn_paper", "env=acrobot", "tau=0.5")
    assert recipe.config["env"]["id"] == "Acrobot-v1"
    assert recipe.run.steps == compose_recipe("sqn").run.steps
    assert recipe.config["optimizer"]["lr"] == 1e-4
    assert recipe.config["target_update"]["tau"] == 0.5


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        ("steps", "command line: steps=2000"),
        ("optimizer.lr", "recipes/sqn_paper.yaml:4"),
        ("loss.backup", "recipes/sqn_paper.yaml:8"),
        ("loss.backup_entropy", "components/loss/sqn.yaml:6"),
        ("num_envs", "components/task/atari_ram.yaml:3"),
        ("env.game", "components/env/atari_ram.yaml:4"),
        ("seed", "default of sqn_rl"),
        ("env", "recipes/sqn_paper.yaml:2"),
        ("head", "command line: head=dueling"),
        ("actor", "recipes/sqn.yaml:9"),
    ],
)
def test_the_origin_of_a_value_or_choice_is_its_file_and_line_or_its_override(key: str, origin: str) -> None:
    assert compose_recipe("sqn_paper", "steps=2000", "head=dueling").origin(key) == origin


def test_the_later_of_two_overrides_counts() -> None:
    recipe = compose_recipe("sqn", "seed=1", "env=acrobot", "seed=2", "env=cartpole", "recipe=sqn_dueling")
    assert (recipe.run.seed, recipe.part("env"), recipe.run.recipe) == (2, "cartpole", "sqn_dueling")


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    recipe = compose_recipe("sqn", "steps=1e5", "replay.capacity=2e4")
    assert (recipe.run.steps, recipe.config["replay"]["capacity"]) == (100_000, 20_000)
    assert type(recipe.config["replay"]["capacity"]) is int


def test_a_field_that_the_class_takes_may_be_added_or_removed() -> None:
    recipe = compose_recipe(
        "sqn", "optimizer=adamw", "optimizer.eps=0.1", "~optimizer.fused", "env.kwargs.sutton=true", "lr=0.5"
    )
    assert recipe.fields("optimizer") == {"lr": 0.5, "weight_decay": 0.01, "eps": 0.1}
    assert recipe.config["env"]["kwargs"] == {"sutton": True}


def test_a_users_tree_adds_recipes_and_parts_and_overrides_built_in_ones(
    tree: Callable[[str, str], Catalogue], tmp_path: Path
) -> None:
    tree("components/head/mine.yaml", "# Mine.\n_target_: sqn_rl.DuelingHead\n")
    tree("components/loss/sqn.yaml", "# Ours, otherwise.\n_target_: sqn_rl.SQNLoss\nbackup: max\n")
    catalogue = tree(
        "recipes/paper/mine.yaml",
        "# A.\ndefaults: [/recipe/sqn_paper, {override /head: mine}, _self_]\nloss: {policy_source: min}\n",
    )
    recipe = compose_recipe("paper/mine", catalogue=catalogue)
    assert recipe.part("head") == "mine"
    assert recipe.fields("loss") == {"backup": "sampled", "policy_source": "min"}
    assert recipe.origin("loss.policy_source") == f"{tmp_path}/recipes/paper/mine.yaml:3"


def test_config_trees_are_found_through_sqn_rl_path(
    tree: Callable[[str, str], Catalogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(
        "recipes/mine.yaml",
        "# Mine, which comes last although it does not say `_self_`.\ndefaults: [sqn]\nsteps: 7\n",
    )
    monkeypatch.setenv("SQN_RL_PATH", str(tmp_path))
    assert compose_recipe("mine").run.steps == 7


def test_a_saved_recipe_is_loaded_unchanged_and_states_the_origin_of_its_values(tmp_path: Path) -> None:
    recipe = compose_recipe("sqn_paper", "env.game=ms_pacman", "out='a b'")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    again = load_recipe(tmp_path / "recipe.yaml", "seed=9")
    assert again.config == recipe.config | {"seed": 9}
    assert {slot.name: again.part(slot.name) for slot in SLOTS} == {
        slot.name: recipe.part(slot.name) for slot in SLOTS
    }
    text = recipe.to_yaml().replace("sqn_rl.LinearHead", "sqn_rl.DuelingHead")
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml").part("head") == "DuelingHead"  # the class in the file counts
    assert "gamma: 0.99  # recipes/sqn_paper.yaml:5" in recipe.to_yaml()
    assert "  game: ms_pacman  # command line: env.game=ms_pacman" in recipe.to_yaml()
    assert "\nhead:  # recipes/sqn.yaml:6\n" in recipe.to_yaml()
    older = "".join(line for line in recipe.to_yaml().splitlines(True) if "eval_max_steps" not in line)
    (tmp_path / "recipe.yaml").write_text(older)  # of a version without this setting
    assert load_recipe(tmp_path / "recipe.yaml").config == recipe.config
    with pytest.raises(RecipeError, match="the env of a saved recipe cannot be changed"):
        load_recipe(tmp_path / "recipe.yaml", "env=acrobot")


def test_a_sweep_is_every_combination_in_order() -> None:
    jobs = expand(["recipe=sqn,sqn_dueling", "seed=range(2)", "steps=10"], Catalogue())
    assert jobs == [
        ["recipe=sqn", "seed=0", "steps=10"],
        ["recipe=sqn", "seed=1", "steps=10"],
        ["recipe=sqn_dueling", "seed=0", "steps=10"],
        ["recipe=sqn_dueling", "seed=1", "steps=10"],
    ]
    assert expand(["target_update=glob(*)"], Catalogue()) == [
        ["target_update=periodic"],
        ["target_update=polyak"],
    ]
    assert expand([], Catalogue()) == [[]]


def test_initial_weights_are_determined_by_the_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        parts = compose_recipe("sqn", f"seed={seed}").build()
        parts["env"].close()
        return torch.cat([parameter.flatten() for parameter in parts["q_net"].parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_parts_are_wired_by_name() -> None:
    parts = compose_recipe("sqn", "num_envs=3", "gamma=0.5").build()
    assert parts["env"].num_envs == 3
    assert parts["loss"].q_net is parts["q_net"]
    acting = zip(parts["actor"].q_net.parameters(), parts["q_net"].parameters(), strict=True)
    assert all(view is weight for view, weight in acting)  # a view of it, in eval mode
    assert parts["loss"].gamma == parts["returns"].gamma == 0.5
    assert parts["replay"].returns is parts["returns"]
    more = parts["make_env"](num_envs=2, seed=1, training=False)
    assert more.num_envs == 2
    more.close()
    parts["env"].close()


def test_composing_imports_no_torch_and_works_in_any_working_directory(tmp_path: Path) -> None:
    composed = "from sqn_rl.recipe.compose import compose_recipe; compose_recipe('sqn')"
    code = f"import sys; {composed}; print('torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "SQN_RL_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
