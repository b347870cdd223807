"""Without ``--trust``, no module named in data is imported, and no file in a data folder is executed."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sqn_rl
from sqn_rl import Batch
from sqn_rl.analysis.pool import SQN_RUN
from sqn_rl.cli import compare, diagnose, diff, evaluate, resume
from sqn_rl.errors import SqnError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.watch.run import WatchedRun

CLOSURE = """
import importlib, inspect, json, pkgutil, sys, warnings
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.schema import SLOTS
from sqn_rl.errors import RecipeError

warnings.simplefilter("ignore")
ONCE_ALLOWED = ["sqn_rl", "torchrl", "tensordict.nn", "torch.nn", "torch.optim"]
targets = set()
while ONCE_ALLOWED:
    name = ONCE_ALLOWED.pop()
    try:
        module = importlib.import_module(name)
    except ImportError:
        continue  # needs what is not installed
    ONCE_ALLOWED += [f"{name}.{each.name}" for each in pkgutil.iter_modules(getattr(module, "__path__", []))]
    for each in sorted({*dir(module), *getattr(module, "__all__", [])}):
        if callable(getattr(module, each, None)):
            targets.add(f"{name}.{each}")

effects = []
watching = False
EFFECTS = ("import", "shutil.", "subprocess.", "socket.", "os.", "pickle.", "exec", "compile", "ctypes.")

def note(event, arguments):
    if watching and (event.startswith(EFFECTS) or (event == "open" and arguments[1] not in ("r", "rb"))):
        effects.append([event, repr(arguments)])

catalogue, allowed = Catalogue(), []
for slot in SLOTS:
    for part in catalogue.names(slot.name):
        catalogue.resolve(slot.name, catalogue.read(slot.name, part).values["_target_"])  # imports our own
sys.addaudithook(note)
watching = True
for slot in SLOTS:
    for target in targets:
        try:
            catalogue.resolve(slot.name, target)
            allowed.append([slot.name, target])
        except RecipeError:
            pass
watching = False
print(json.dumps({"targets": len(targets), "allowed": sorted(allowed), "effects": effects}))
"""


def test_only_parts_are_accepted_as_targets_and_only_for_their_slot(
    record_property: Callable[[str, int], None],
) -> None:
    from torch import optim

    done = subprocess.run([sys.executable, "-c", CLOSURE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["targets"] > 5000
    record_property("cases", found["targets"])
    catalogue = Catalogue()
    own = {
        (slot, catalogue.read(slot, part).values["_target_"])
        for slot in catalogue.groups()
        if slot not in ("recipe", "task")
        for part in catalogue.names(slot)
    }
    torchs = {("optimizer", f"torch.optim.{name}") for name in (*optim.__all__, "LBFGS") if name[0].isupper()}
    assert {(slot, target) for slot, target in found["allowed"]} == own | torchs - {
        ("optimizer", "torch.optim.Optimizer")
    }
    assert found["effects"] == []


# --- modules in folders ------------------------------------------------------------------------------------

TRAPS = ["uarray", "cython", "mujoco", "yaml", "sitecustomize", "torch", "cloudpickle"]
"""Names of modules that our imports try to import, installed or not."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of YAML that also has modules which leave a file ``trapped`` when they are imported."""
    tree = tmp_path / "tree"
    (tree / "recipes").mkdir(parents=True)
    (tree / "recipes" / "mine.yaml").write_text("# Mine.\ndefaults: [sqn, _self_]\n")
    for name in TRAPS:
        (tree / f"{name}.py").write_text("open('trapped', 'w').close()\n")
    (tree / "trusted_lab.py").write_text("import trusted_helper\nclass Head(trusted_helper.Base): ...\n")
    (tree / "trusted_helper.py").write_text("class Base: ...\n")
    return tree


RUN = "steps=70", "warmup_steps=60", "batch_size=8", "eval_episodes=1", "recipe=mine", "threads=1"


def test_a_config_folder_is_not_on_the_import_path(tree: Path) -> None:
    script = "import sys; from sqn_rl.cli.run import main; main(); print(*sys.path, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, *RUN],
        env=os.environ | {"SQN_RL_PATH": str(tree)},
        cwd=tree.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "steps/s" in done.stdout
    assert str(tree) not in done.stdout
    assert not (tree.parent / "trapped").exists()


def test_a_config_folder_is_on_the_path_only_while_trusted_modules_are_imported(tree: Path) -> None:
    before = [*sys.path]
    head = Catalogue([tree], ["trusted_lab"]).resolve("head", "trusted_lab.Head")
    assert [each.__name__ for each in inspect.getmro(head)][:2] == ["Head", "Base"]
    assert sys.path == before
    with pytest.raises(SqnError, match=r"no_such: ModuleNotFoundError"):
        Catalogue([tree], ["no_such"]).import_trusted()
    assert sys.path == before


def test_a_job_of_a_sweep_imports_nothing_from_the_working_directory(tree: Path) -> None:
    done = subprocess.run([*SQN_RUN, "--help"], cwd=tree, capture_output=True, check=True)
    assert b"sqn-run" in done.stdout
    assert not (tree / "trapped").exists()


def test_every_python_subprocess_is_started_with_a_safe_path() -> None:
    package = Path(sqn_rl.__file__).parent
    started = [
        (path.name, line)
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if "sys.executable" in line
    ]
    assert {name for name, _ in started} == {"pool.py", "ram_workers.py"}
    assert all('[sys.executable, "-P", ' in line for _, line in started)
    assert not any("multiprocessing" in line for path in package.rglob("*.py") for line in _imports(path))


def _imports(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.lstrip().startswith(("import ", "from "))]


# --- a run of another person -------------------------------------------------------------------------------

COMMANDS = {
    "eval": lambda run: evaluate.main([run]),
    "resume": lambda run: resume.main([run]),
    "diagnose": lambda run: diagnose.main([run]),
    "diff": lambda run: diff.main([run, "sqn"]),
    "compare": lambda run: compare.main([run]),
}
READ_ONLY = {"diff": 0, "compare": 2}
"""The exit codes of the commands that build no parts, for a run without a summary."""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose temperature is a function of torchrl that imports a file beside it."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.py").write_text("open('trapped', 'w').close()\nx = 1\n")
    lines = compose_recipe("sqn").to_yaml().splitlines()
    first = lines.index(next(line for line in lines if line.startswith("temperature:")))
    end = first + 1 + [line.startswith(" ") for line in lines[first + 1 :]].index(False)
    part = "{_target_: torchrl.render.import_utils.import_from_string, spec: 'run/notes.py:x'}"
    lines[first:end] = [f"temperature: {part}"]
    (run / "recipe.yaml").write_text("\n".join(lines))
    save_file({f"batch.{name}": torch.zeros(1) for name in Batch._fields}, run / "numerics.safetensors")
    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_execute_nothing_from_a_run_directory(
    name: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert COMMANDS[name]("run") == READ_ONLY.get(name, 2)
    assert not Path("trapped").exists()
    if name not in READ_ONLY:
        assert "not a part of sqn_rl for the slot `temperature`" in capsys.readouterr().err


def test_the_curves_of_a_run_are_shown_without_importing_its_parts(stranger: Path) -> None:
    watched = WatchedRun(stranger, Catalogue())
    assert watched.state()["title"] == "sqn on CartPole-v1, seed 0"
    with pytest.raises(SqnError, match="if you trust `torchrl"):
        watched.graph()
    assert not Path("trapped").exists()
