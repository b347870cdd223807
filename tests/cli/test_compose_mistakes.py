"""An error in a recipe or an override is reported with its location, its cause and how to fix it."""

from pathlib import Path

import pytest
from messages import repeated

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.recipe.overrides import expand

OVERRIDES = {
    "recipe=sqnn": ("there is no such recipe", "did you mean `sqn`?"),
    "head=duelling": ("there is no such part", "did you mean `dueling`?"),
    "task=atari_rom": ("there is no such part", "did you mean `atari_ram`?"),
    "hed=dueling": ("there is no such setting", "did you mean `head`?"),
    "stpes=3": ("there is no such setting", "did you mean `steps`?"),
    "+stpes=3": ("there is no such setting", "did you mean `steps`?"),
    "hydra.run.dir=x": ("there is no such setting", "write out=x"),
    "encoder.hiden=3": ("MLP has no such setting", "did you mean `hidden`?"),
    "env.kwarg={}": ("GymEnv has no such setting", "did you mean `kwargs`?"),
    "head.hiden=3": ("LinearHead has no such setting", "it takes no fields"),
    "collect.rows=3": ("LocalCollect has no such setting", "it takes no fields"),
    "optimizer.wait_decay=0.1": ("Adam has no such setting", "did you mean `weight_decay`?"),
    "encoder.layer=3": ("MLP has no such setting", "there are: hidden"),
    "q_net.zzzz=1": ("QNet has no such setting", "there are: in_keys, members, shared_encoder"),
    "replay.zzzz=1": ("UniformReplay has no such setting", "there are: capacity"),
    "env.kwargs={a:{0:1}}": ("env.kwargs.a: expected texts without dots as the keys of a mapping, not 0", ""),
    "env.kwargs={a.b:1}": ("expected texts without dots as the keys of a mapping, not 'a.b'", ""),
    "~optimizer.fast": ("there is nothing to remove", ""),
    "~replay": ("expected the name of a part", "write replay=NAME"),
    "head=3": ("expected the name of a part", "write head=NAME"),
    "head=[linear,dueling]": ("expected the name of a part", "write head=NAME"),
    "head=linear,dueling": ("several values are a sweep", "give one value here; `sqn-run -m` runs"),
    "seed=range(3)": ("several values are a sweep", "give one value here; `sqn-run -m` runs"),
    "steps": ("cannot be read as an override", "write name=value"),
    "=3": ("cannot be read as an override", "write name=value"),
    "out=a(3)": ("cannot be read as an override", "quote a value"),
    "steps=(3": ("cannot be read as an override", "close the (; if the shell split the text, quote it"),
    "encoder.hidden=[16": ("cannot be read as an override", "close the ["),
    "encoder.hidden=16]": ("cannot be read as an override", "nothing opens the ] at character 18"),
    "encoder.hidden=[16,[8]": ("cannot be read as an override", "close the ["),
    "env.kwargs={a: [1}": ("cannot be read as an override", "nothing opens the } at character 18"),
    "out='a": ("cannot be read as an override", "close the '"),
    "out='(a\\'": ("cannot be read as an override", "close the '"),
    "steps=" + "9" * 5000: ("cannot be read as an override", "quote a value"),
    "lr=" + "[" * 2000 + "]" * 2000: ("cannot be read as an override", "quote a value"),
    "lr=" + "[" * 40 + "]" * 40: ("within more than 32 others", ""),
    "env.kwargs" + ".a" * 900 + "=1": ("within more than 32 others", ""),
    "gamma=" + "9" * 400: ("expected a number in [0, 1]", ""),
    "threads=1e10": ("expected a whole number of threads in [1, 1024]", ""),
    "head=" + "x" * 300: ("there is no such part", "there are: "),
    "head._target_=[a]": ("expected the name of a class", ""),
    "steps=abc": ("expected a whole number of environment steps, at least 1", ""),
    "steps=2.5": ("expected a whole number of environment steps, at least 1", ""),
    "steps=0": ("expected a whole number of environment steps, at least 1", ""),
    "steps=null": ("expected a whole number", ""),
    "steps=true": ("expected a whole number", ""),
    "steps.more=3": ("steps = {'more': 3}: expected a whole number", ""),
    "gamma=1.01": ("expected a number in [0, 1]", ""),
    "gamma=nan": ("expected a number in [0, 1]", ""),
    "update_ratio=0": ("expected a positive number of updates", ""),
    "update_ratio=inf": ("expected a positive number of updates", ""),
    "update_ratio=1e308": ("expected a positive number of updates, at most 1e6", ""),
    "steps=" + "9" * 400: ("expected a whole number of environment steps, at least 1 and below 2^53", ""),
    "checkpoint_keep=" + "9" * 400: ("expected a whole number of checkpoints, at least 1 and below", ""),
    "seed=-1": ("expected a whole number in [0, 2^31)", ""),
    "device=gpu": ("expected cpu, cuda or mps", ""),
    "optimizer.lr=1e999": ("expected a finite number", ""),
    "temperature.initial=nan": ("expected a finite number", ""),
    "lr=fast": ("expected a number, such as ", ""),
    "optimizer.lr=fast": ("expected a number, such as ", ""),
    "encoder.hidden=64": ("expected a list, such as [128, 128]", ""),
    "loss.backup_entropy=2": ("expected true or false", ""),
    "lr=${rate}": ("there is no `rate`", ""),
    "lr=${lr}": ("stands for itself", ""),
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_invalid_override_is_refused_with_its_origin_and_a_hint(override: str) -> None:
    message, suggestion = OVERRIDES[override]
    with pytest.raises(RecipeError) as raised:
        compose_recipe("sqn", override)
    assert raised.value.origin == f"command line: {override}"
    assert message in raised.value.message
    assert raised.value.hint.startswith(suggestion)
    assert str(raised.value).startswith(f"command line: {override}: {raised.value.message}")
    assert repeated(str(raised.value)) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor.policy=q2", "expected one of q1, min"),
        ("tau=-1", "target_update.tau = -1: expected a number in (0, 1]"),
        ("replay.capacity=2", "expected at least 4, one step of every environment"),
        ("encoder.hidden=[0]", "expected a list of whole numbers, at least 1"),
        ("head._target_=torch.load", "_target_: torch.load: not a part of sqn_rl for the slot `head`"),
        ("head._target_=sqn_rl.DuelingHaed", "did you mean `sqn_rl.DuelingHead`?"),
        (
            "~replay.capacity",
            "replay: sqn_rl.UniformReplay needs `capacity`, which no part upstream produces",
        ),
    ],
)
def test_an_override_that_a_part_refuses_is_named_in_the_error(override: str, message: str) -> None:
    recipe = compose_recipe("sqn", override)
    with pytest.raises(RecipeError) as raised:
        recipe.build()
    assert message in str(raised.value)
    if not override.startswith("~"):
        assert raised.value.origin == f"command line: {override}"


def test_an_override_that_an_optimizer_refuses_is_named_in_the_error() -> None:
    parts = compose_recipe("sqn", "optimizer.lr=-1").build()
    with pytest.raises(RecipeError, match=r"command line: optimizer.lr=-1: expected a positive number"):
        parts["optimizer"](parts["q_net"].parameters())


FILES = {
    "defaults: [sqn, _self_]\nsteps 5000\n": (":3", "not YAML"),
    "defaults: [sqn, _self_]\nhidden: [64\n": (":3", "not YAML"),
    "defaults: [sqn, _self_]\nseed: 1\nseed: 2\n": (":4", "found duplicate key seed"),
    "- sqn\n": ("", "not a mapping of names to values"),
    "defaults: sqn\n": (":2", "`defaults` is not a list"),
    "defaults:\n  - sqn\n  - override /head: duelling\n": (":4", "head=duelling: there is no such part"),
    "defaults:\n  - sqn\n  - override /hed: dueling\n": (":4", "there is no slot `hed`"),
    "defaults:\n  - sqn\n  - override head: dueling\n": (":4", "write `/head`, with a slash"),
    "defaults: [sqm, _self_]\n": (":2", "recipe=sqm: there is no such recipe"),
    "defaults: [{override /head: dueling}, _self_]\n": (":2", "Could not override 'head'"),
    "defaults: [sqn, {/head: dueling}, _self_]\n": (
        ":2",
        "Multiple values for head; recipes/sqn.yaml:6 fills it already",
    ),
    "defaults: [sqn, _self_, _self_]\n": (":2", "`_self_` is there twice"),
    "defaults:\n  - sqn\n  - override /head: dueling\n  - sqn_per\n": (":5", "write overrides last"),
    "defaults:\n  - sqn_per\n  - sqn_dueling\n": (":4", "Multiple values for env; recipes/sqn.yaml:"),
    "defaults: [sqn, {optional /head: dueling}]\n": (":2", "write `/head: dueling`"),
    "defaults: [sqn, {override /head@loss: dueling}]\n": (":2", "write `override /head: dueling`"),
    "defaults: [sqn, {override /task: atari}]\n": (":2", "write `override /task@_global_: atari`"),
    "defaults: [sqn, /head/dueling]\n": (":2", "write `/head: dueling`"),
    "defaults: [{/recipe: sqn}, _self_]\n": (":2", "write `sqn`"),
    "defaults: [sqn, {override /recipe: dqn}]\n": (":2", "a recipe cannot override the recipe"),
    "defaults: [mine, _self_]\n": ("", "inherits from itself"),
    "defaults: [sqn, /head, _self_]\n": (":2", "head=: there is no such part"),
    "defaults: [sqn, {'': x}, _self_]\n": (":2", "write `/`, with a slash"),
    "defaults: [" + "sqn, " * 50 + "_self_]\n": ("", "inherits from itself, or more than 300 files"),
    "defaults: [3]\n": (":2", "`3` is no entry of a defaults list"),
    "defaults: [/env: cartpole, _self_]\n": ("", "nothing fills the slot `layers`"),
    "defaults: [sqn, _self_]\nhead: dueling\n": (":3", "head: it is a slot, not a setting"),
    "defaults: [sqn, _self_]\nstpes: 3\n": (":3", "stpes: there is no such setting"),
    "defaults: [sqn, _self_]\nsteps: many\n": (":3", "steps = 'many': expected a whole number"),
    "defaults: [sqn, _self_]\nlr: fast\n": (":3", "lr = 'fast': expected a number"),
    "defaults: [sqn, _self_]\nencoder:\n  hiden: [3]\n": (":4", "encoder.hiden: MLP has no such setting"),
    "defaults: [sqn, _self_]\nlr: ${rate}\n": (":3", "there is no `rate`"),
    "defaults: [sqn, {override /env: gym}, _self_]\n": ("gym.yaml:4", "env.id: it has no value"),
}


@pytest.mark.parametrize("text", FILES)
def test_an_error_in_a_recipe_file_is_reported_with_file_and_line(text: str, tmp_path: Path) -> None:
    where, message = FILES[text]
    path = tmp_path / "recipes" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(f"# Mine.\n{text}")
    with pytest.raises(RecipeError) as raised:
        compose_recipe("mine", catalogue=Catalogue([tmp_path]))
    assert message in str(raised.value)
    assert raised.value.origin.endswith(where)
    if where.startswith(":"):
        assert raised.value.origin == f"{path}{where}"


def test_a_part_without_a_target_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "components" / "head" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# Mine.\n")
    with pytest.raises(
        RecipeError, match="command line: head=mine: the part in the slot `head` has no `_target_`"
    ):
        compose_recipe("sqn", "head=mine", catalogue=Catalogue([tmp_path]))


def test_an_env_without_a_task_is_refused_and_tasks_are_suggested(tmp_path: Path) -> None:
    path = tmp_path / "components" / "env" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# Mine.\n_target_: sqn_rl.GymEnv\nid: CartPole-v1\nkwargs: {}\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:2: no task says steps.*\n.*classic_control") as raised:
        compose_recipe("sqn_paper", "env=mine", "tau=0.1", catalogue=Catalogue([tmp_path]))
    assert raised.value.origin == f"{path}:2"


def test_a_config_tree_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no folder with recipes/ or components/ in it"):
        Catalogue([tmp_path / "nowhere"])


def test_a_saved_recipe_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_sweep_over_an_interval_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"an interval is no list of values"):
        expand(["lr=interval(0,1)"], Catalogue())


@pytest.mark.parametrize("override", ["seed=range(0)", "head=glob(x*)", "hed=glob(*)"])
def test_a_sweep_over_an_empty_list_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match="the list of values is empty"):
        expand([override, "lr=1,2"], Catalogue())


ENVS = {
    "/encoder: mlp": "an env cannot choose the encoder",
    "/head/dueling": "an env cannot choose the head",
    "/task: atari": "write `/task@_global_: atari`",
    "/task@_global_: atari": "Multiple values for task",
}


@pytest.mark.parametrize("entry", ENVS)
def test_an_env_that_chooses_another_part_or_a_second_task_is_refused(entry: str, tmp_path: Path) -> None:
    path = tmp_path / "components" / "env" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# Mine.\ndefaults:\n  - cartpole\n  - {entry}\n")
    with pytest.raises(RecipeError) as raised:
        compose_recipe("sqn", "env=mine", catalogue=Catalogue([tmp_path]))
    assert ENVS[entry] in str(raised.value)
    assert raised.value.origin == f"{path}:4"
