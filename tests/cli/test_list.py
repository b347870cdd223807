"""``sqn-list``: the parts, recipes and tasks, with their descriptions and settings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sqn_rl.cli.list import main
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, names_in
from sqn_rl.recipe.schema import SLOTS


def test_every_part_recipe_and_task_is_listed_with_its_description(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    catalogue = Catalogue()
    parts = [(group, name) for group in catalogue.groups() for name in catalogue.names(group)]
    assert len(lines) == len(parts)
    for group, name in parts:
        start = f"{group}={name}  {catalogue.read(group, name).description}"
        assert any(line.startswith(start) for line in lines)


def test_the_parts_of_a_slot_are_listed_with_their_arguments_and_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["target_update"]) == 0
    periodic, polyak = capsys.readouterr().out.splitlines()
    assert periodic.endswith("  every=500  works with everything")
    assert polyak.endswith("  tau=${tau} (0.05)  works with everything")


@pytest.mark.parametrize(
    ("part", "limits"),
    [
        ("encoder=nature_cnn", "env=atari,envpool,football,gym"),
        ("actor=policy", "loss=discrete_sac"),
        ("actor=boltzmann", "temperature=learned,fixed,annealed"),
        ("loss=discrete_sac", "temperature=learned,fixed,annealed actor=policy"),
        ("temperature=none", "loss=dqn,double_dqn actor=epsilon_greedy,greedy"),
        ("actor=epsilon_greedy", "everything"),
        ("head=categorical", "everything"),
    ],
)
def test_a_part_is_listed_with_the_parts_it_works_with(
    part: str, limits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slot, _, _ = part.partition("=")
    assert main([slot]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{part}  "))
    assert line.endswith(f"  works with {limits}")


def test_recipes_and_tasks_are_listed_without_works_with(capsys: pytest.CaptureFixture[str]) -> None:
    for group in ("recipe", "task"):
        assert main([group]) == 0
        assert "works with" not in capsys.readouterr().out


def test_a_users_part_is_listed_with_the_parts_it_works_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "components" / "head"
    folder.mkdir(parents=True)
    text = "# Mine.\n# works with env=atari,mine loss=sqn\n_target_: my_parts.Head\n"
    (folder / "mine.yaml").write_text(text)
    assert main(["head", "--config-dir", str(tmp_path)]) == 0
    assert "head=mine  Mine.  works with env=atari,mine loss=sqn" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("slot", "hint"),
    [
        ("hed", "did you mean `head`?"),
        ("dueling", "it is listed by `sqn-list head`"),
        ("sqn", "it is listed by `sqn-list recipe` and `sqn-list loss`"),
    ],
)
def test_an_unknown_slot_is_refused_with_a_hint(
    slot: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([slot]) == 2
    assert capsys.readouterr().err == f"there is no slot `{slot}`\n  {hint}\n"


def test_a_users_tree_is_listed_and_its_broken_file_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "components" / "head"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# Mine.\n_target_: my_parts.Head\nwidth: 3\n")
    (folder / "worse.yaml").write_text("# Worse.\nwidth: [\n")
    assert main(["head", "--config-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "head=mine  Mine.  width=3  works with everything" in lines
    assert any(line.startswith("head=worse  broken: ") for line in lines)


def test_a_config_dir_without_recipes_and_components_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config-dir", str(tmp_path)]) == 2
    assert "no folder with recipes/ or components/ in it" in capsys.readouterr().err


def test_listing_does_not_import_torch(tmp_path: Path) -> None:
    code = "import sys; from sqn_rl.cli.list import main; main([]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


def test_names_are_whole_and_settings_explained_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert {*Catalogue().names("recipe")} < {*re.sub(r"\x1b\[\d*m", "", shown).split()}
    assert main(["loss"]) == 0
    shown = " ".join(re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).split())
    assert "loss=sqn The soft Q-network's loss" in shown
    assert "backup=expected_mean how the next state is valued; one of expected, expected_min" in shown


def test_the_settings_of_a_task_are_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["task"]) == 0
    shown = " ".join(re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).split())
    assert (
        "gamma=0.99 γ, the discount per environment step. lr=0.001 learning rate of α; learning rate" in shown
    )
    assert "v_min=-100.0 the least return, in reward units v_max=100.0 the largest return" in shown


FIELDS = {
    (slot.name, name, field): value
    for slot in SLOTS
    for name in Catalogue().names(slot.name)
    for field, value in Catalogue().read(slot.name, name).content.items()
    if field != TARGET
}


@pytest.mark.parametrize(("slot", "name", "field"), FIELDS, ids=str)
def test_every_field_of_a_part_has_an_explanatory_comment(slot: str, name: str, field: str) -> None:
    assert Catalogue().read(slot, name).comment(field)


WORDS = {key for key, value in FIELDS.items() if isinstance(value, str) and "$" not in value}


@pytest.mark.parametrize(("slot", "name", "field"), sorted(WORDS), ids=str)
def test_the_documented_choices_of_a_field_are_those_that_its_part_accepts(
    slot: str, name: str, field: str
) -> None:
    with_actors = ["collect=inline"] if name == "sharded" else []
    recipe = compose_recipe("sqn", f"{slot}={name}", f"{slot}.{field}=nonsense", *with_actors)
    message = ""
    try:
        recipe.build(last=slot, num_envs=1)
    except RecipeError as error:
        message = str(error)
    taken = re.search(r"expected one of ([\w, ]+)", message)
    assert names_in(recipe.meaning(slot, field)) == (taken[1].split(", ") if taken else [])
