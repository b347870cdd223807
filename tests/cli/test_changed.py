"""Notes of the commands about a run whose files were changed after it wrote them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sqn_rl.cli.run import main as train
from sqn_rl.runs.manifest import CHECKED_BYTES, MANIFEST, changes, render

Command = Callable

OLD = Path(__file__).parents[1] / "reliability" / "data" / "run_before_0.2"
READERS = [
    ("evaluate", "{run}", "--episodes", "1"),
    ("evaluate", "{run}", "--video", "a.gif", "--max-steps", "3"),
    ("diff", "{run}", "sqn"),
    ("diff", "sqn", "{run}"),
    ("compare", "{run}"),
]
"""Commands that read the recipe of a run."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    short = ["steps=60", "warmup_steps=40", "eval_every=20", "eval_episodes=1", "hidden=[8]"]
    assert train([*short, f"out={path}"]) == 0
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, which a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("reader", READERS, ids=" ".join)
def test_a_changed_recipe_is_noted_by_every_command_that_reads_a_run(
    reader: tuple[str, ...], run: Path, command: Command
) -> None:
    command_line = [word.replace("{run}", str(run)) for word in reader]
    done = command(*command_line)
    assert done.code == 0
    assert "changed since" not in done.out + done.err
    change(run / "recipe.yaml", "lr: 0.001", "lr: 0.002")
    done = command(*command_line)
    assert done.code == 0
    output = done.out if reader[0] == "compare" else done.err
    assert f"note: {run / 'recipe.yaml'}: changed since the run wrote it\n" in output


def earlier_evaluation(run: Path) -> str:
    change(run / "evaluations.jsonl", '"env_steps": 20', '"env_steps": 21')
    return f"{run / 'evaluations.jsonl'}: changed since the run wrote it"


def last_evaluation(run: Path) -> str:
    """No manifest covers it, as it comes after the last checkpoint, but the summary repeats it."""
    *rows, row = (run / "evaluations.jsonl").read_text().splitlines()
    other = json.dumps(json.loads(row) | {"mean": 500.0})
    (run / "evaluations.jsonl").write_text("\n".join([*rows, other, ""]))
    return f"{run}: its summary.json has another last evaluation than its evaluations.jsonl"


def manifest(run: Path) -> str:
    path = run / "checkpoints" / "0000000060" / "manifest.json"
    change(path, '"env_steps": 60', '"env_steps": 61')
    return (
        f"{path}: damaged: its contents have changed (SHA-256); whether the run's files were changed is not"
        " known"
    )


@pytest.mark.parametrize("damage", [earlier_evaluation, last_evaluation, manifest])
def test_compare_notes_changed_files_in_its_output_and_report(
    damage: Callable[[Path], str], run: Path, command: Command, tmp_path: Path
) -> None:
    note = damage(run)
    done = command("compare", str(run), "--output", str(tmp_path / "report"))
    assert (done.code, done.err) == (0, "")
    assert f"note: {note}\n" in done.out
    assert f"- {note}\n" in (tmp_path / "report" / "comparison.md").read_text()


def test_a_run_whose_checkpoints_were_removed_has_no_notes(run: Path, command: Command) -> None:
    shutil.rmtree(run / "checkpoints")
    change(run / "recipe.yaml", "lr: 0.001", "lr: 0.002")
    for name in ("compare", "diff"):
        done = command(name, str(run), *["sqn"] * (name == "diff"))
        assert (done.code, done.err) == (0, "")
        assert "changed since" not in done.out


def test_a_run_of_an_earlier_version_is_read_without_notes(command: Command) -> None:
    for command_line in (("evaluate", str(OLD), "--episodes", "1"), ("diff", str(OLD), "sqn")):
        done = command(*command_line)
        assert (done.code, done.err) == (0, "")


def test_a_file_of_terabytes_is_noted_as_unchecked(run: Path) -> None:
    path = run / "evaluations.jsonl"
    forged = run / "checkpoints" / "0000000060" / MANIFEST
    content = json.loads(forged.read_text())
    del content["sha256"]
    content["run"][path.name]["bytes"] = 2**42
    forged.write_bytes(render(content))
    os.truncate(path, 2**42)
    assert changes(run, {path.name}) == [f"{path}: more than {CHECKED_BYTES:,} bytes, which are not checked"]
