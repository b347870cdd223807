"""Code style rules that a program can check."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqn_rl
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.schema import SLOTS

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = sorted((REPOSITORY / "sqn_rl").rglob("*.py"))
TEXT = [
    path
    for folder in ("sqn_rl", "components", "recipes", "tests", "docs")
    for path in (REPOSITORY / folder).rglob("*")
    if path.suffix in {".py", ".pyi", ".yaml", ".md"} and path != Path(__file__).resolve()
]
LONGEST = 350

CATALOGUE = Catalogue()
PARTS = [(slot.name, name) for slot in SLOTS for name in CATALOGUE.names(slot.name)]


def shown(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("name", sqn_rl.__all__)
def test_a_public_name_can_be_imported_and_has_a_docstring(name: str) -> None:
    found = getattr(sqn_rl, name)
    assert found.__name__ == name
    assert inspect.getdoc(found)
    assert found.__module__.startswith("sqn_rl.")


def test_the_public_names_are_sorted() -> None:
    lines = (REPOSITORY / "sqn_rl" / "__init__.pyi").read_text().splitlines()
    assert lines == sorted(lines)


@pytest.mark.parametrize(("slot", "name"), PARTS)
def test_the_target_of_a_part_is_exported_by_its_module(slot: str, name: str) -> None:
    target = CATALOGUE.read(slot, name).content[TARGET]
    module, _, attribute = target.rpartition(".")
    assert attribute in importlib.import_module(module).__all__


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for name, node in _public(tree):
        assert ast.get_docstring(node), f"{shown(path)}: {name}"


Definition = ast.FunctionDef | ast.ClassDef


def _public(parent: ast.Module | Definition, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """The classes and functions of a module that have public names, and the methods of those classes."""
    for node in parent.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_no_file_is_longer_than_the_limit(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def test_no_file_has_a_todo_or_an_absolute_path_of_a_machine() -> None:
    for path in TEXT:
        found = re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b|/(?:tmp|home|root|work)/", path.read_text())
        assert not found, f"{shown(path)}: {found}"


@pytest.mark.parametrize("path", CODE, ids=shown)
def test_every_text_file_is_read_and_written_with_an_explicit_encoding(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        name = ast.unparse(call.func).rpartition(".")[2]
        modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
        is_text = name == "write_text" or (name == "read_text" and not call.args)  # not a package's metadata
        is_text |= name == "open" and bool({*modes} & {"a", "r", "w"})
        if is_text and ast.unparse(call.func) != "av.open":
            assert "encoding" in {keyword.arg for keyword in call.keywords}, f"{shown(path)}:{call.lineno}"


def test_the_paper_is_cited_by_the_version_that_is_implemented() -> None:
    """The newest version under this arXiv number is a different paper."""
    names = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml")
    found = [
        f"{shown(path)}: {citation}"
        for path in [*TEXT, *(REPOSITORY / name for name in names)]
        for citation in re.findall(r"1912\.10891\S*", path.read_text())
    ]
    assert len(found) >= 5
    assert [each for each in found if "1912.10891v1" not in each] == []
