"""Malformed, oversized or special files as recipes, summaries and logs: refused, and quickly."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sqn_rl.analysis.finished import find_runs, read_runs
from sqn_rl.cli import diff
from sqn_rl.errors import RecipeError, SqnError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.recipe.provenance import Layers, read
from sqn_rl.recipe.reading import DEPTH, NODES, YAML_BYTES
from sqn_rl.recipe.resolved import of_run
from sqn_rl.runs.status import status_of, summary_of
from sqn_rl.watch.run import Log, WatchedRun

NAMES = "abcdefghi"


def bomb(reference: str, anchor: str) -> str:
    """Nine lines that stand for 9⁹ values."""
    lines = [f"a: {anchor.format('a')} [x, x, x, x, x, x, x, x, x]"]
    for before, name in pairwise(NAMES):
        items = ", ".join([reference.format(before)] * 9)
        lines.append(f"{name}: {anchor.format(name)} [{items}]")
    return "\n".join(lines)


YAML = {
    "aliases": (bomb("*{}", "&{}"), ":2: an alias"),
    "recursion": ("a: &a [*a]", ":1: an alias"),
    "merging": ("a: &a {b: 1}\nc: {<<: *a}", ":2: an alias"),
    "depth": ("a: " + "[" * 100_000, f":1: .*one within more than {DEPTH} others"),
    "depth_of_mappings": ("{a: " * 1500, f":1: .*one within more than {DEPTH} others"),
    "many": ("a: [" + "1," * NODES + "]", f":1: more than {NODES:,} values"),
    "long": ("a: " + "x" * 5_000_000, f": cannot be read: larger than {YAML_BYTES:,} bytes"),
    "int": ("\na: !!int abc", ":2: 'abc' is no int"),
    "float": ("a: !!float x", ":1: 'x' is no float"),
    "no_float": ("a: !!float ''", ":1: '' is no float"),
    "bool": ("a: !!bool maybe", ":1: 'maybe' is no bool"),
    "hexadecimal": ("a: 0x_", ":1: '0x_' is no int"),
    "binary": ("a: [1, 0b_]", ":1: '0b_' is no int"),
    "digits": ("a: " + "9" * 5000, ":1: '999.* is no int"),
    "hexadecimal_digits": ("a: 0x" + "f" * 5000, ":1: a whole number of more than 64 bits"),
    "sexagesimal": ("a: " + ":".join(["9"] * 5000), ":1: a whole number of more than 64 bits"),
    "bytes": ("a: !!binary aGFybQ==", ":1: a value of the kind `binary`"),
    "set": ("a: !!set {b}", ":1: a value of the kind `set`"),
    "date": ("a: !!timestamp 2020-01-01", ":1: a value of the kind `timestamp`"),
    "path": ("a: !!python/object/apply:pathlib.Path [b]", ":1: a value of the kind `.*Path`"),
    "python": ("a: !!python/object/apply:os.system [b]", ":1: a value of the kind `.*system`"),
    "key": ("? [a]\n: 1", ":1: not YAML: found unhashable key"),
    "encoding": ("a: \udcff", ": cannot be read: 'utf-8' codec"),
    "control": ("a: \x07", ": not YAML: .*special characters are not allowed"),
    "list": ("[a]", ": not a mapping"),
    "number": ("1: 2", ": not a mapping"),
}


@contextmanager
def soon(seconds: float = 60) -> Iterator[None]:
    """Fail if the body takes longer than this; on an idle machine it takes some milliseconds."""

    def fail(number: int, frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", YAML)
def test_invalid_yaml_is_refused_quickly_with_its_line(name: str, tmp_path: Path) -> None:
    text, message = YAML[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(text, errors="surrogateescape")
    with soon(), pytest.raises(RecipeError, match=f"^x.yaml{message}"):
        read(path, "x.yaml")


INTERPOLATIONS = {
    "names": (bomb("'${{{}}}'", ""), "more than"),
    "texts": ("a: xxxx\n" + "\n".join(f"{b}: {f'${{{a}}}' * 9}" for a, b in pairwise(NAMES)), "more than"),
    "chain": ("\n".join(f"x{i}: ${{x{i + 1}}}" for i in range(500)), "more than"),
    "circle": ("a: ${b}\nb: ${a}", "stands for itself"),
    "environment": ("a: ${oc.env:HOME}", "takes the name of a value, and nothing else"),
    "decoding": ("a: ${oc.decode:'[1]'}", "takes the name of a value, and nothing else"),
    "pieces": ("b: $\na: ${b}{steps}", "takes the name of a value, and nothing else"),
    "nothing": ("a: ${}", "takes the name of a value, and nothing else"),
    "inside": ("a: ${steps.b}", "there is no `steps.b`"),
}


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_an_invalid_interpolation_is_refused_with_its_origin(name: str, tmp_path: Path) -> None:
    text, message = INTERPOLATIONS[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    layers, document = Layers(), read(path, "x.yaml")
    layers.put("", {"steps": 1} | document.values, document.origin)
    with soon(), pytest.raises(RecipeError, match=message) as refused:
        layers.resolved()
    assert refused.value.origin.startswith("x.yaml:")


def test_an_interpolation_resolves_to_a_copy_of_the_named_value() -> None:
    layers = Layers()
    values = {"a": [1, {"b": None}], "c": "${a}", "d": ["${c}", "x${e.f}y${e.f}"], "e": {"f": 1.5}}
    layers.put("", values, lambda key: key)
    found = layers.resolved()
    assert found == {"a": values["a"], "c": values["a"], "d": [values["a"], "x1.5y1.5"], "e": {"f": 1.5}}
    assert found["c"] is not found["a"]  # otherwise YAML would write an alias


def test_exponential_inheritance_is_refused_quickly(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for a, b in pairwise(["sqn", *(f"r{i}" for i in range(20))]):
        for name in (b, f"{b}_"):
            other = a if a == "sqn" else f"{a}_"
            (tmp_path / "recipes" / f"{name}.yaml").write_text(f"defaults: [{a}, {other}, _self_]\n")
    with soon(), pytest.raises(RecipeError, match="inherits from itself, or more than 300 files"):
        compose_recipe("r19", catalogue=Catalogue([tmp_path]))


# --- special files -----------------------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


ODD: list[Callable[[Path], None]] = [pipe, device, sparse, folder, loop]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a finished run that readers need."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(compose_recipe("sqn").to_yaml())
    (run / "summary.json").write_text(
        '{"status": "done", "env": "CartPole-v1", "seed": 0, "git_revision": null,'
        ' "versions": {"sqn_rl": "0.1.0"}, "env_steps": 1, "frames": 1, "updates": 1, "episodes": 1,'
        ' "wall_s": 1, "steps_per_s": 1}'
    )
    (run / "evaluations.jsonl").write_text('{"env_steps": 1, "mean": 2.0, "lengths": [9], "greedy": true}\n')
    return run


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["recipe.yaml", "summary.json", "evaluations.jsonl"])
def test_a_special_file_in_a_run_is_refused_without_waiting(
    name: str, odd: Callable[[Path], None], run: Path
) -> None:
    ((finished,), _) = read_runs([run])
    assert finished.scores.tolist() == [2.0]
    (run / name).unlink()
    odd(run / name)
    with soon():
        assert name in read_runs([run])[1][str(run)]
        if name == "recipe.yaml":
            readers = of_run, lambda run: load_recipe(run / name), lambda run: WatchedRun(run, Catalogue())
            for reader in readers:
                with pytest.raises(SqnError, match=name):
                    reader(run)
        if name == "summary.json":
            assert summary_of(run) == {}
            assert status_of(run) == "killed"
        if name == "evaluations.jsonl":
            assert Log(run / name).read() == []


def test_a_lock_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe(tmp_path / ".lock")
    with soon():
        assert status_of(tmp_path) == "killed"


@pytest.mark.parametrize("odd", [pipe, device, sparse, folder])
def test_a_special_file_as_a_recipe_is_refused_without_waiting(
    odd: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "recipes").mkdir()
    odd(tmp_path / "recipes" / "odd.yaml")
    with (
        soon(),
        pytest.raises(RecipeError, match=r"odd\.yaml: cannot be read|recipe=odd: there is no such recipe"),
    ):
        compose_recipe("odd", catalogue=Catalogue([tmp_path]))


SUMMARIES = {
    "deep": "[" * 100_000,
    "list": "[]",
    "text": "done",
    "digits": '{"status": "done", "seed": ' + "9" * 5000 + "}",
    "nothing": '{"status": "done"}',
    "status": '{"status": ["done"]}',
    "steps": '{"status": "stopped", "env_steps": "many"}',
    "seed": '{"status": "done", "env": "a", "seed": [], "git_revision": "", "versions": {"sqn_rl": "0"}}',
    "revision": '{"status": "done", "env": "a", "seed": 0, "git_revision": 7, "versions": {"sqn_rl": "0"}}',
    "versions": '{"status": "done", "env": "a", "seed": 0, "git_revision": "", "versions": 3}',
}
ROWS = {
    "empty": "",
    "text": "x\n",
    "number": "3\n",
    "without": "{}\n",
    "infinite": '{"env_steps": 1, "mean": 1e999, "greedy": true}\n',
    "huge": '{"env_steps": 1, "mean": ' + "9" * 400 + ', "greedy": true}\n',
    "list": '{"env_steps": [1], "mean": 2, "greedy": true}\n',
    "word": '{"env_steps": 1, "mean": "x", "greedy": true}\n',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (name, text)
        for name, texts in (("summary.json", SUMMARIES), ("evaluations.jsonl", ROWS))
        for text in texts.values()
    ],
    ids=[*SUMMARIES, *(f"rows_{name}" for name in ROWS)],
)
def test_a_run_with_an_invalid_summary_or_log_is_left_out(name: str, text: str, run: Path) -> None:
    (run / name).write_text(text)
    with soon():
        runs, left_out = read_runs([run])
    assert not runs
    assert left_out.keys() == {str(run)}


RECIPES = {
    "recipe": lambda text: text.replace("recipe:", "recipe_:"),
    "recipe_of_numbers": lambda text: text.replace("recipe: sqn", "recipe: [1]"),
    "target": lambda text: text.replace("_target_: sqn_rl.MLP", "_target_: [a]"),
    "no_target": lambda text: text.replace("_target_: sqn_rl.MLP", "x: 1"),
    "slot": lambda text: text.replace("\nhead:", "\nhed:"),
    "empty": lambda text: "",
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_with_an_incomplete_recipe_is_refused_by_every_reader(name: str, run: Path) -> None:
    path = run / "recipe.yaml"
    changed = RECIPES[name](path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    readers: list[Any] = [lambda name: of_run(Path(name)), lambda name: find_runs([name])]
    for reader in (*readers, lambda name: Catalogue([name])):
        with pytest.raises(SqnError, match=r"no run|no such|no folder|not a run"):
            reader(name)
    assert diff.main(["sqn", name]) == 2


SECRET = """
import os
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.errors import RecipeError
if os.getuid() == 0:
    os.setuid(65534)
try:
    Catalogue(["."])
except RecipeError as error:
    print(error, end="")
"""


def test_a_tree_without_read_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "components").mkdir(mode=0)
    run = [sys.executable, "-c", SECRET]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "components: not a folder that this user may read"


KEYS = ["_target_", "_args_", "_partial_", "_recursive_", "_convert_"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["{{{}: x}}", "[1, {{{}: x}}]", "{{a: [[{{b: {{{}: x}}}}]]}}"])
def test_an_instantiation_key_within_a_value_is_refused(value: str, key: str) -> None:
    with pytest.raises(RecipeError, match=f"`{key}` means nothing here"):
        compose_recipe("sqn", f"encoder.hidden={value.format(key)}")
    if key != "_target_":
        with pytest.raises(RecipeError, match=f"encoder.{key}=1: `{key}` means nothing here"):
            compose_recipe("sqn", f"encoder.{key}=1")
