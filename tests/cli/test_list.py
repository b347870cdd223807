"""``sqn-list``."""

import subprocess
import sys
from pathlib import Path

import pytest

from sqn_rl.cli.list import main
from sqn_rl.recipe.catalogue import Catalogue


def test_everything_is_listed_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    catalogue = Catalogue()
    parts = [(group, name) for group in catalogue.groups() for name in catalogue.names(group)]
    assert len(lines) == len(parts)
    for group, name in parts:
        start = f"{group}={name}  {catalogue.read(group, name).description}"
        assert any(line.startswith(start) for line in lines)


def test_a_slot_is_listed_with_arguments_and_what_they_come_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["target_update"]) == 0
    periodic, polyak = capsys.readouterr().out.splitlines()
    assert periodic.endswith("  every=500  works with everything")
    assert polyak.endswith("  tau=${tau} (0.05)  works with everything")


@pytest.mark.parametrize(
    ("part", "limits"),
    [
        ("encoder=nature_cnn", "env=atari"),
        ("actor=policy", "loss=discrete_sac"),
        ("actor=boltzmann", "temperature=learned,fixed,annealed"),
        ("loss=discrete_sac", "temperature=learned,fixed,annealed actor=policy"),
        ("temperature=none", "loss=dqn,double_dqn actor=epsilon_greedy,greedy"),
        ("actor=epsilon_greedy", "everything"),
        ("head=categorical", "everything"),
    ],
)
def test_a_part_is_listed_with_what_it_works_with(
    part: str, limits: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slot, _, _ = part.partition("=")
    assert main([slot]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{part}  "))
    assert line.endswith(f"  works with {limits}")


def test_recipes_and_tasks_are_not_asked_what_they_work_with(capsys: pytest.CaptureFixture[str]) -> None:
    for group in ("recipe", "task"):
        assert main([group]) == 0
        assert "works with" not in capsys.readouterr().out


def test_a_users_part_says_what_it_works_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "components" / "head"
    folder.mkdir(parents=True)
    text = "# Mine.\n# works with env=atari,mine loss=sqn\n_target_: my_parts.Head\n"
    (folder / "mine.yaml").write_text(text)
    assert main(["head", "--config-dir", str(tmp_path)]) == 0
    assert "head=mine  Mine.  works with env=atari,mine loss=sqn" in capsys.readouterr().out.splitlines()


def test_an_unknown_slot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hed"]) == 2
    assert capsys.readouterr().err == "there is no slot `hed`\n  did you mean `head`?\n"


def test_a_users_tree_is_listed_and_its_broken_file_said_to_be(
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


def test_a_tree_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config-dir", str(tmp_path)]) == 2
    assert "no folder with recipes/ or components/ in it" in capsys.readouterr().err


def test_no_torch_is_imported(tmp_path: Path) -> None:
    code = "import sys; from sqn_rl.cli.list import main; main([]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
