"""A run written by revision a754974, before the format changed, can be evaluated and resumed."""

import json
import shutil
from pathlib import Path

import pytest

from sqn_rl.cli import evaluate, resume

OLD = Path(__file__).parent / "data" / "run_before_0.2"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the run: ``sqn_rainbow`` on CartPole, killed after its checkpoint at step 300 of 600."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_sqn_eval_evaluates_a_run_of_an_old_format(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(old), "--episodes", "2"]) == 0
    assert "300" in capsys.readouterr().out


def test_sqn_resume_finishes_a_run_of_an_old_format(old: Path) -> None:
    before = [json.loads(line) for line in (OLD / "episodes.jsonl").read_text().splitlines()]
    assert resume.main([str(old)]) == 0
    summary = json.loads((old / "summary.json").read_text())
    assert (summary["status"], summary["env_steps"]) == ("done", 600)
    after = [json.loads(line) for line in (old / "episodes.jsonl").read_text().splitlines()]
    kept = [row for row in before if row["env_steps"] <= 300]
    assert after[: len(kept)] == kept
    steps = [json.loads(line)["env_steps"] for line in (old / "evaluations.jsonl").read_text().splitlines()]
    assert steps == [200, 400, 600]
