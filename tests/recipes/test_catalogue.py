"""Every recipe and part that ships, found by walking the tree; and what may be imported from YAML."""

import inspect
import sys
from pathlib import Path

import pytest

from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.recipe.build import TARGET, check_fields
from sqn_rl.recipe.catalogue import RECIPE, TASK, Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.defaults import entries_of
from sqn_rl.recipe.schema import SLOTS

CATALOGUE = Catalogue()
SLOT_NAMES = [slot.name for slot in SLOTS]
RECIPES = CATALOGUE.names(RECIPE)
ENVS = CATALOGUE.names("env")
PARTS = [(slot, name) for slot in SLOT_NAMES for name in CATALOGUE.names(slot)]
NEEDED = {name: ["env.id=CartPole-v1"] for name in ("envpool", "gym")}
"""Overrides that an env needs in order to work."""


def test_the_folders_of_the_tree_are_the_slots_tasks_and_recipes() -> None:
    assert set(CATALOGUE.groups()) == {*SLOT_NAMES, TASK, RECIPE}


@pytest.mark.parametrize(("group", "name"), [*PARTS, *((RECIPE, name) for name in RECIPES)])
def test_every_file_begins_with_a_description(group: str, name: str) -> None:
    description = CATALOGUE.read(group, name).description
    assert description.endswith(".")
    assert len(description) > 15


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_its_command_and_names_no_class(name: str) -> None:
    document = CATALOGUE.read(RECIPE, name)
    text = Path(CATALOGUE.trees[-1], document.shown).read_text()
    assert text.splitlines()[0].endswith(f"sqn-run recipe={name}")
    assert TARGET not in text


@pytest.mark.parametrize(("slot", "name"), PARTS)
def test_every_part_file_sets_only_fields_that_its_class_takes(slot: str, name: str) -> None:
    document = CATALOGUE.read(slot, name)
    target = CATALOGUE.resolve(slot, document.content[TARGET])
    check_fields(slot, target, document.content.keys() - {TARGET}, document.origin)
    if target.__module__.startswith("sqn_rl."):
        parameters = inspect.signature(target.__init__).parameters.values()
        defaults = {each.name for each in parameters if each.default is not each.empty}
        is_default = {name for name, value in document.content.items() if not str(value).startswith("${")}
        assert not defaults & is_default, "a default has one source: the YAML; a reference is none"


@pytest.mark.parametrize(("slot", "name"), [part for part in PARTS if part[0] != "env"])
def test_every_part_can_be_built(slot: str, name: str) -> None:
    works_with = CATALOGUE.read(slot, name).works_with.items()
    companions = [f"{other}={names[0]}" for other, names in works_with]
    parts = compose_recipe("sqn", f"{slot}={name}", *companions).build()
    parts["env"].close()
    if slot == "optimizer":
        parts["optimizer"]([{"params": list(parts["q_net"].parameters())}])


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_composes_with_every_env(name: str, env: str) -> None:
    recipe = compose_recipe(name, f"env={env}", *NEEDED.get(env, []))
    assert recipe.run.steps >= 10 * recipe.run.warmup_steps
    assert recipe.run.batch_size <= recipe.config["replay"]["capacity"]


@pytest.mark.parametrize(
    ("command", "slot", "kept"),
    [
        ("sqn_paper", "loss", {"backup": "sampled", "policy_source": "q1", "backup_entropy": True}),
        ("sqn_paper loss=munchausen", "loss", {"backup": "sampled", "m": 0.9}),
        ("sqn_paper loss=dqn", "loss", {}),
        ("paper/breakout env=atari", "env", {"game": "breakout", "frame_stack": 4}),
        ("paper/breakout env=acrobot", "env", {"id": "Acrobot-v1"}),
        ("rainbow head=quantile", "head", {"dueling": True, "kappa": 10.0}),
        ("rainbow head=linear", "head", {}),
        ("munchausen_dqn", "temperature", {"alpha": 0.03}),
    ],
)
def test_fields_of_a_recipe_apply_only_to_a_part_that_has_them(
    command: str, slot: str, kept: dict[str, object]
) -> None:
    fields = compose_recipe(*command.split()).fields(slot)
    assert kept.items() <= fields.items()
    assert bool(kept) == bool(fields)


def test_inherited_fields_apply_only_if_the_replacing_part_has_them(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for name, defaults, fields in (
        ("mine", "sqn_paper, override /loss: dqn", "gamma: 0.5"),
        ("more", "mine, override /loss: munchausen", "loss: {m: 0.5}"),
        ("wrong", "mine, override /loss: munchausen", "loss: {n: 0.5}"),
        ("unfit", "mine", "loss: {backup: sampled}"),
    ):
        text = f"# Mine.\ndefaults: [{defaults}, _self_]\n{fields}\n"
        (tmp_path / "recipes" / f"{name}.yaml").write_text(text.replace("sqn_paper", "/recipe/sqn_paper"))
    catalogue = Catalogue([tmp_path])
    assert compose_recipe("mine", catalogue=catalogue).fields("loss") == {}
    more = compose_recipe("more", catalogue=catalogue)
    assert (more.fields("loss")["m"], more.fields("loss")["backup"]) == (0.5, "sampled")
    for name in ("wrong", "unfit"):
        with pytest.raises(RecipeError, match=rf"{name}.yaml:3: loss\.\w+: \w+ has no such setting"):
            compose_recipe(name, catalogue=catalogue)


@pytest.mark.parametrize(("slot", "name"), PARTS)
def test_every_works_with_comment_names_existing_parts_of_another_slot(slot: str, name: str) -> None:
    for other, names in CATALOGUE.read(slot, name).works_with.items():
        assert other in SLOT_NAMES
        assert other != slot
        assert {*names} < {*CATALOGUE.names(other)}  # a comment that names all parts would be useless


def settings_of_task(name: str) -> set[str]:
    """The settings of a task, with those that it inherits."""
    document = CATALOGUE.read(TASK, name)
    inherited = [entry.choice.name for entry in entries_of(document, TASK, CATALOGUE) if entry.choice]
    return set(document.content).union(*map(settings_of_task, inherited))


def test_all_tasks_define_the_same_settings() -> None:
    tasks = [settings_of_task(name) for name in CATALOGUE.names(TASK)]
    assert all(task == tasks[0] for task in tasks)


@pytest.mark.parametrize(("slot", "name"), PARTS)
def test_a_part_may_be_imported_for_its_own_slot_only(slot: str, name: str) -> None:
    target = CATALOGUE.read(slot, name).content[TARGET]
    for other in SLOTS:
        if other.name == slot:
            assert CATALOGUE.resolve(slot, target).__name__ == target.rpartition(".")[2]
        else:
            with pytest.raises(RecipeError, match=f"not a part of sqn_rl for the slot `{other.name}`"):
                CATALOGUE.resolve(other.name, target)


def test_an_optimizer_of_torch_needs_no_part_file() -> None:
    assert CATALOGUE.resolve("optimizer", "torch.optim.LBFGS").__name__ == "LBFGS"
    for target in (
        "torch.optim.Optimizer",
        "torch.optim.swa_utils.AveragedModel",
        "torch.optim.lr_scheduler",
    ):
        with pytest.raises(RecipeError, match="not a part of sqn_rl"):
            CATALOGUE.resolve("optimizer", target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.nn.Linear",
        "torch.optim.adam.Adam",
        "torchrl.modules.MLP",
        "torchrl.render.import_utils.import_from_string",
        "torchrl.render.checkpoint.load_checkpoint",
        "tensordict.nn.TensorDictModule",
        "torch.hub.load",
        "torch.nn",
        "torch.nn.modules",
        "torch.nn.modules.module.os.system",
        "torch.nn.modules.module.torch.load",
        "torch.nn.modules.module.OrderedDict",
        "torch.nn.Module.load_state_dict",
        "torch.nn.Module.__subclasses__",
        "torch.nn.init._no_grad_uniform_",
        "torch.nn._reduction.warnings",
        "torch.nn.functional.conv2d",
        "torch.optim.optimizer.cast",
        "torch.optimisers.Adam",
        "torch.nnn.Linear",
        "torchrl.envs.os.system",
        "torchrl_evil.Part",
        "tensordict.TensorDict",
        "tensordict.nn.common.inspect.getsource",
        "builtins.open",
        "builtins.eval",
        "os.system",
        "subprocess.Popen",
        "pickle.loads",
        "site.addsitedir",
        "hydra.utils.instantiate",
        "numpy.load",
        "sqn_rl",
        "sqn_rl.recipe.catalogue",
        "sqn_rl.recipe.catalogue.import_module",
        "sqn_rl.recipe.catalogue.importlib.import_module",
        "sqn_rl.recipe.catalogue.Catalogue",
        "sqn_rl.cli.run.main",
        "sqn_rl.parts.encoder.mlp.math.prod",
        "sqn_rl._catalogue.part",
        "sqn_rl.__class__",
        "sqn_rl.parts.temperature.base.DualTemperature",
        "sqn_rl.NoSuchPart",
        "torch.nn.NoSuchPart",
        "torch.nn.nosuchmodule.Part",
        ".sqn_rl.MLP",
        "sqn_rl..MLP",
        "sqn_rl.MLP()",
        "sqn_rl.MLP\n",
        "MLP",
        "",
        3,
        None,
        ["sqn_rl.MLP"],
    ],
)
def test_any_other_target_is_refused_with_its_origin(target: object) -> None:
    for slot in SLOTS:
        with pytest.raises(RecipeError, match="_target_") as raised:
            CATALOGUE.resolve(slot.name, target, "recipes/mine.yaml:3")
        assert raised.value.origin == "recipes/mine.yaml:3"


def test_refusing_an_untrusted_target_does_not_import_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_part.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=r"if you trust `evil_part`, say so with --trust evil_part"):
        CATALOGUE.resolve("head", "evil_part.Part")
    assert "evil_part" not in sys.modules


def test_a_trusted_module_may_be_imported_but_not_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_part.py").write_text("from subprocess import Popen\nclass Head: ...\ndef make(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert Catalogue(trust=["my_part"]).resolve("head", "my_part.Head").__name__ == "Head"
    monkeypatch.setenv("SQN_RL_TRUST", "my_part")
    assert Catalogue().resolve("head", "my_part.make").__name__ == "make"
    with pytest.raises(RecipeError, match="defined in subprocess"):
        Catalogue().resolve("head", "my_part.Popen")


def test_did_you_mean_suggests_the_nearest_name_or_lists_all() -> None:
    assert did_you_mean("duelling", ["linear", "dueling"]) == "did you mean `dueling`?"
    assert did_you_mean("xyz", ["b", "a"]) == "there are: a, b"
    assert did_you_mean("xyz", []) == ""


def test_two_trusted_files_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "parts.py").touch()
    with pytest.raises(RecipeError, match=r"--trust a/parts.py --trust b/parts.py: two files of one name\n"):
        Catalogue(trust=["a/parts.py", "b/parts.py"])
    assert Catalogue(trust=["a/parts.py", "./a/parts.py"]).trusted == ("parts", "parts")


def test_a_relative_tree_is_found_after_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "recipes").mkdir(parents=True)
    (tmp_path / "mine" / "recipes" / "own.yaml").write_text("# Mine.\ndefaults: [sqn]\n")
    (tmp_path / "mine" / "parts_beside.py").write_text("class Head: ...\n")
    monkeypatch.chdir(tmp_path)
    catalogue = Catalogue(["mine"], trust=["parts_beside"])
    monkeypatch.chdir("/")
    assert catalogue.read(RECIPE, "own").shown == "mine/recipes/own.yaml"
    assert catalogue.resolve("head", "parts_beside.Head").__name__ == "Head"
    assert catalogue.arguments["config_dirs"] == [str(tmp_path / "mine")]
