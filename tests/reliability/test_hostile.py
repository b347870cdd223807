"""Malicious checkpoints and recipes are refused, or loaded without side effects."""

import ast
import copy
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from reliability.tiny import loaded, plain, saved, weights
from reliability.trials import TINY, Killed, train

from sqn_rl import RecipeError
from sqn_rl.errors import CheckpointError
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.runs.checkpoint import Checkpoints
from sqn_rl.runs.manifest import FORMAT, MANIFEST
from sqn_rl.runs.saved import read_weights

PACKAGE = Path(__file__).resolve().parents[2] / "sqn_rl"

UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
RUNS = {"eval", "exec", "compile", "__import__", "execfile"}
LOADS = {"load", "loads", "unpickle", "load_memmap", "load_state_dict_from_url"}
"""Functions of modules such as torch and numpy that may unpickle; ``json.loads`` is allowed."""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_unpickles_or_executes_what_it_reads(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not {name.partition(".")[0] for name in names} & UNPICKLES
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in RUNS
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADS:
            owner = ast.unparse(node.func.value)
            assert owner not in {"torch", "np", "numpy", "TensorDict", "yaml"}, ast.unparse(node)


EFFECTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
}
happened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if happened is not None and event in EFFECTS:
        happened.append(event)


sys.addaudithook(_note)  # Python code cannot bypass it


@contextmanager
def watched() -> Iterator[list[str]]:
    """Record every program started, every connection made and every name unpickled."""
    global happened
    happened = []
    try:
        yield happened
    finally:
        happened = None


def test_nothing_is_unpickled_when_a_run_is_resumed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(run, *TINY, die=(run / "checkpoints" / "0000000140").exists)
    with watched() as effects:
        assert train(run) == "done"
        assert {*effects} <= {"subprocess.Popen"}  # git, for the revision in the summary
        pickle.loads(pickle.dumps(Path))
    assert "pickle.find_class" in effects


# --- manifests ---------------------------------------------------------------------------------------------

WRONG = [None, True, -1, 10**30, 1.5, "", "../../outside", "/etc/passwd", "x" * 9999, [], {}, [[]]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a tree."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*path, name))


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with another value at a path."""
    changed = copy.deepcopy(tree)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


def forge(run: Path, content: Any) -> None:
    """Write ``content`` as the newest manifest, with a valid hash."""
    text = json.dumps(content, indent=1).encode()
    signed = json.dumps({**content, "sha256": sha256(text).hexdigest()}, indent=1)
    (newest(run) / MANIFEST).write_text(signed)


def newest(run: Path) -> Path:
    return max(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())


def refusal(run: Path) -> str | None:
    """The error of the newest checkpoint; None if its weights are loaded as they were saved."""
    try:
        found = Checkpoints(run / "checkpoints", 2).load()
    except CheckpointError as error:
        return str(error)
    assert found
    assert plain(found.weights) == plain(weights(5))
    return None


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise an error if the body takes longer."""

    def fail(number: int, frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run with a checkpoint, and files around it that must stay as they are."""
    (tmp_path / "outside").write_text("precious")
    saved(tmp_path / "runs" / "run", 5)
    with within(60), watched() as effects:
        yield tmp_path / "runs" / "run"
    assert effects == []
    assert (tmp_path / "outside").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "runs"}


def test_a_manifest_with_a_forged_value_is_refused_or_harmless(
    run: Path, record_property: Callable[[str, int], None]
) -> None:
    content = json.loads((newest(run) / MANIFEST).read_text())
    del content["sha256"]
    cases = [(path, wrong) for path in places(content) if path[0] != "state" for wrong in WRONG]
    harmless = []
    for path, wrong in cases:
        forge(run, with_value(content, path, wrong))
        message = refusal(run)
        if message is None:
            harmless.append((path, wrong))
        else:
            assert str(run) in message
    assert len(cases) > 250
    record_property("cases", len(cases))
    assert harmless == [
        (("replay",), []),
        (("run",), {}),
        (("made_with",), {}),
        (("best",), None),
    ]  # these are valid: something is left out, but nothing is wrong


PATHS = ["../outside", "/etc/passwd", "a/../../outside", ".", "..", "\0", "~", "x.yaml\n", "metrics.jsonl/.."]


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("section", ["run", "files"])
def test_a_manifest_cannot_name_paths_outside_the_run(section: str, name: str, run: Path) -> None:
    content = json.loads((newest(run) / MANIFEST).read_text())
    del content["sha256"]
    mark = {"bytes": 8, "sha256": sha256(b"precious").hexdigest()}
    forge(run, with_value(content, (section, name), mark))
    if section == "run":
        with pytest.raises(CheckpointError, match="is no file of a run"):
            Checkpoints(run / "checkpoints", 2).load()
    else:  # a checkpoint does not look for other files
        assert loaded(run) == (5, [])


FOLDERS = ["checkpoints", "checkpoints/replay", "checkpoints/0000000005"]
FILES = ["metrics.jsonl", "checkpoints/replay/000000000000-000000000004.safetensors"]
FILES += [f"{FOLDERS[2]}/{name}" for name in ("manifest.json", "state.safetensors", "weights.safetensors")]


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_links_in_a_run_directory_are_refused(name: str, run: Path) -> None:
    elsewhere = run.parent / "elsewhere"
    shutil.move(run / name, elsewhere)
    (run / name).symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match=f"{run / name}: not a f.* but a link"):
        Checkpoints(run / "checkpoints", 2).load()
    if "checkpoints" in name and "replay" not in name and "state" not in name:
        with pytest.raises(CheckpointError, match="but a link"):
            read_weights(run / "checkpoints")


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(name: str, run: Path) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(CheckpointError, match="not a file"):
        Checkpoints(run / "checkpoints", 2).load()


def test_a_pipe_with_the_name_of_a_partial_file_is_removed(run: Path) -> None:
    os.mkfifo(run / "checkpoints" / "x.partial")
    saved(run, 6)
    assert not (run / "checkpoints" / "x.partial").exists()


def test_a_manifest_of_a_terabyte_is_not_read(run: Path) -> None:
    os.truncate(newest(run) / MANIFEST, 2**40)
    with pytest.raises(CheckpointError, match="larger than"):
        Checkpoints(run / "checkpoints", 2).load()


NO_MANIFESTS = ["[" * 100_000, '{"a":' * 100_000, "{}", "null", "1e999", "9" * 5000, "\xff", '{"format": 1}']


@pytest.mark.parametrize("text", NO_MANIFESTS)
def test_an_invalid_manifest_is_refused(text: str, run: Path) -> None:
    (newest(run) / MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        Checkpoints(run / "checkpoints", 2).load()


@pytest.mark.parametrize("version", [0, FORMAT - 1, FORMAT + 1, str(FORMAT), True, None, [FORMAT]])
def test_another_format_of_a_manifest_is_refused(version: Any, run: Path) -> None:
    content = json.loads((newest(run) / MANIFEST).read_text())
    del content["sha256"]
    forge(run, content | {"format": version})
    with pytest.raises(CheckpointError, match=f"this version of sqn_rl reads {FORMAT}"):
        Checkpoints(run / "checkpoints", 2).load()


# --- recipes -----------------------------------------------------------------------------------------------

NAMES = "abcdefghi"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(NAMES)
)
HARM = [
    "steps: ${oc.env:HOME}",
    "steps: ${oc.decode:${oc.env:STEPS}}",
    "out: '${oc.env:HOME}/x'",
    'out: "\\x24{oc.env:HOME}"',
    "? ${oc.env:HOME}\n: 1",
    "steps: !!python/object/apply:os.system ['touch harm']",
    "steps: !!python/object/new:subprocess.Popen [['touch', 'harm']]",
    "steps: !!python/name:os.system",
    "steps: &a [*a]",
    "steps: " + "[" * 1500,
    "steps: " + "{a: " * 1500,
    BOMB,
    "x: &x {a: 1}\ny: {<<: *x}",
]
TARGETS = [
    "os.system",
    "subprocess.Popen",
    "shutil.rmtree",
    "site.addsitedir",
    "runpy.run_path",
    "importlib.import_module",
    "pickle.loads",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "numpy.load",
    "torch.load",
    "torch.hub.load",
    "torch.serialization.load",
    "torch.utils.cpp_extension.load",
    "torch.nn.Module.load_state_dict",
    "torch.nn.modules.os",
    "torch.nn.",
    "torchrl",
    "..",
    "sqn_rl.cli.run.main",
    "sqn_rl.runs.checkpoint.Checkpoints",
    "sqn_rl.disk.discard",
]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A saved recipe in an empty folder, in which no other file may appear."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(compose_recipe("sqn").to_yaml())
    load_recipe(path)
    with within(60), watched() as effects:
        yield path
    assert effects == []
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("harm", HARM)
def test_a_saved_recipe_with_a_harmful_value_is_refused(harm: str, recipe: Path) -> None:
    key = harm.partition(":")[0]
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith(f"{key}:")]
    recipe.write_text("\n".join([*lines, harm, ""]))
    with pytest.raises(RecipeError):
        load_recipe(recipe)


@pytest.mark.parametrize("slot", ["env", "head", "loss", "optimizer", "replay", "logger", "temperature"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_saved_recipe_with_a_target_that_is_not_a_part_is_refused(
    target: str, slot: str, recipe: Path
) -> None:
    text, there = recipe.read_text(), compose_recipe("sqn").config[slot]["_target_"]
    recipe.write_text(text.replace(f"_target_: {there}", f"_target_: '{target}'", 1))
    with pytest.raises(RecipeError, match="_target_"):
        load_recipe(recipe).build()
