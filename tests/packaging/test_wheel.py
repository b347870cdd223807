"""The wheel works when it is installed without the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, REPOSITORY]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel only; its dependencies come from this environment."""
    site = tmp_path_factory.mktemp("site")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "--target", site, wheel], check=True)
    return site


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a command with the installed wheel in an empty folder, and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQN_RL")}
    environment |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_the_wheel_has_the_code_the_components_and_the_recipes_only(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    code = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "sqn_rl").rglob("*")
        if path.suffix in {".py", ".pyi", ".typed", ".html", ".js", ".css", ".txt"}
    }
    trees = {
        f"sqn_rl/_catalogue/{path.relative_to(REPOSITORY).as_posix()}"
        for tree in ("components", "recipes")
        for path in (REPOSITORY / tree).rglob("*.yaml")
    }
    assert len(trees) > 30
    assert held == code | trees


def test_python_finds_the_wheel_and_not_the_checkout(run: Callable[..., str], installed: Path) -> None:
    code = (
        "import sqn_rl, sqn_rl.recipe.catalogue as c; print(sqn_rl.__file__, *c.Catalogue().trees, sep='\\n')"
    )
    assert run(sys.executable, "-c", code).splitlines() == [
        str(installed / "sqn_rl" / "__init__.py"),
        str(installed / "sqn_rl" / "_catalogue"),
    ]


def test_sqn_list_of_the_wheel_lists_recipes_and_parts(run: Callable[..., str], installed: Path) -> None:
    shown = run(installed / "bin" / "sqn-list")
    assert "recipe=sqn  " in shown
    assert "env=atari_ram  " in shown


def test_sqn_run_of_the_wheel_trains_and_sqn_eval_evaluates_the_run(
    run: Callable[..., str], installed: Path, tmp_path: Path
) -> None:
    shown = run(installed / "bin" / "sqn-run", "recipe=sqn", "steps=2000", "eval_episodes=2")
    directory = tmp_path / shown.split()[-1]
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["status"], summary["env_steps"]) == ("done", 2000)
    assert summary["git_revision"] is None  # a wheel is not a checkout
    assert "weights after 2,000" in run(installed / "bin" / "sqn-eval", directory, "--episodes=1")
