"""An env or a task may choose a part for another slot; overrides of that slot take precedence."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe

SEEING = "components/env/atari.yaml:2"


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Catalogue]:
    """Write files of a user's tree, and return the catalogue with that tree."""

    def write(**files: str) -> Catalogue:
        for path, text in files.items():
            folder, name = path.split("__")
            file = tmp_path / {"recipes": "recipes"}.get(folder, f"components/{folder}") / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"# The user's.\n{text}")
        return Catalogue([tmp_path])

    return write


@pytest.mark.parametrize(
    ("overrides", "part", "origin"),
    [
        ([], "mlp", "recipes/sqn.yaml:5"),
        (["env=atari"], "nature_cnn", SEEING),
        (["env=atari", "recipe=sqn_dueling"], "nature_cnn", SEEING),
        (["env=atari", "encoder=impala_cnn"], "impala_cnn", "command line: encoder=impala_cnn"),
        (["encoder=mlp", "env=atari"], "mlp", "command line: encoder=mlp"),
        (["env=atari", "env=acrobot"], "mlp", "recipes/sqn.yaml:5"),
        (["env=minatar"], "minatar_cnn", "components/env/minatar.yaml:2"),
        (["task=atari"], "mlp", "recipes/sqn.yaml:5"),  # this task sets numbers and chooses no encoder
    ],
)
def test_the_command_line_takes_precedence_over_a_part_chosen_by_an_env(
    overrides: list[str], part: str, origin: str
) -> None:
    recipe = compose_recipe("sqn", *overrides)
    assert (recipe.part("encoder"), recipe.origin("encoder")) == (part, origin)
    assert recipe.config["encoder"]["hidden"] == recipe.layers.resolved()["hidden"]
    own = Catalogue().read("encoder", part).content
    assert recipe.config["encoder"].keys() == own.keys()
    assert recipe.config["encoder"]["_target_"] == own["_target_"]


def test_a_recipe_override_takes_precedence_over_a_part_chosen_by_an_env(
    tree: Callable[..., Catalogue], tmp_path: Path
) -> None:
    catalogue = tree(
        recipes__seeing="defaults: [sqn, override /env: atari, _self_]\nlr: 0.5\n",
        recipes__deep="defaults: [sqn, override /env: atari, override /encoder: impala_cnn, _self_]\n",
        recipes__deeper="defaults: [deep, _self_]\nencoder: {width: 2}\n",
        recipes__flat="defaults: [deep, override /encoder: mlp, _self_]\n",
    )

    def encoder(recipe: str, *overrides: str) -> tuple[str, str]:
        composed = compose_recipe(recipe, *overrides, catalogue=catalogue)
        return composed.part("encoder"), composed.origin("encoder")

    assert encoder("seeing") == ("nature_cnn", SEEING)
    assert encoder("seeing", "env=cartpole") == ("mlp", "recipes/sqn.yaml:5")
    assert encoder("deep") == ("impala_cnn", f"{tmp_path}/recipes/deep.yaml:2")
    assert encoder("deeper") == ("impala_cnn", f"{tmp_path}/recipes/deep.yaml:2")
    assert compose_recipe("deeper", catalogue=catalogue).config["encoder"]["width"] == 2
    assert encoder("flat") == ("mlp", f"{tmp_path}/recipes/flat.yaml:2")
    assert encoder("flat", "encoder=nature_cnn") == ("nature_cnn", "command line: encoder=nature_cnn")


def test_a_task_may_choose_a_part_for_another_slot(tree: Callable[..., Catalogue], tmp_path: Path) -> None:
    numbers = "".join(
        f"{name}: {value}\n" for name, value in Catalogue().read("task", "classic_control").content.items()
    )
    catalogue = tree(
        task__short=f"defaults: [override /target_update: periodic, _self_]\n{numbers}",
        env__mine="defaults: [/task@_global_: short, _self_]\n_target_: sqn_rl.GymEnv\nid: CartPole-v1\n",
    )
    recipe = compose_recipe("sqn", "env=mine", catalogue=catalogue)
    assert recipe.part("target_update") == "periodic"
    assert recipe.origin("target_update") == f"{tmp_path}/components/task/short.yaml:2"
    assert recipe.config["target_update"].keys() == {"_target_", "every"}


MISTAKES = {
    "override /encoder: natura_cnn": "encoder=natura_cnn: there is no such part",
    "override /encodr: mlp": "there is no slot `encodr`",
    "override /env: cartpole": "an env cannot override the env",
    "override /task: atari": "an env cannot override the task",
    "override /recipe: sqn": "an env cannot override the recipe",
}


@pytest.mark.parametrize("asked", MISTAKES)
def test_an_env_that_overrides_an_invalid_slot_or_part_is_refused(
    asked: str, tree: Callable[..., Catalogue], tmp_path: Path
) -> None:
    defaults = f"defaults: [/task@_global_: classic_control, {asked}, _self_]"
    catalogue = tree(env__mine=f"{defaults}\n_target_: sqn_rl.GymEnv\nid: CartPole-v1\n")
    with pytest.raises(RecipeError) as raised:
        compose_recipe("sqn", "env=mine", catalogue=catalogue)
    assert MISTAKES[asked] in raised.value.message
    assert raised.value.origin == f"{tmp_path}/components/env/mine.yaml:2"
