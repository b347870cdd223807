"""The layout of ``sqn_rl``: the module of a part mirrors its YAML file. ``make lint`` checks the imports."""

import importlib
import inspect
from collections import defaultdict
from pathlib import Path

import pytest

import sqn_rl
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.schema import SLOTS

PACKAGE = Path(sqn_rl.__file__).parent
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
CATALOGUE = Catalogue()
TARGETS = {
    (slot.name, name): CATALOGUE.read(slot.name, name).content[TARGET]
    for slot in SLOTS
    for name in CATALOGUE.names(slot.name)
}
OURS = {part: target for part, target in TARGETS.items() if target.startswith("sqn_rl.")}

NAMES = defaultdict(set)
"""By target class, the names of the parts that are built from it."""
for (_, name), target in OURS.items():
    NAMES[target].add(name)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize(("slot", "name"), OURS, ids="/".join)
def test_a_part_is_defined_in_the_folder_and_file_named_like_its_yaml(slot: str, name: str) -> None:
    target = OURS[slot, name]
    folder, _, file = getattr(sqn_rl, target.rpartition(".")[2]).__module__.rpartition(".")
    assert folder == f"sqn_rl.parts.{slot}"
    assert file == name or len(NAMES[target]) > 1


def test_every_slot_has_a_folder_and_every_folder_is_a_slot() -> None:
    folders = {path.parent.name for path in (PACKAGE / "parts").glob("*/__init__.py")}
    assert folders == {slot.name for slot in SLOTS}


def test_the_package_root_has_at_most_nine_folders_and_seven_files() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len([path for path in entries if path.is_dir()]) <= 9
    assert len([path for path in entries if path.is_file()]) <= 7


@pytest.mark.parametrize("folder", FOLDERS, ids=module_of)
def test_a_folder_has_at_most_fifteen_modules_and_a_docstring(folder: Path) -> None:
    assert len([*folder.glob("*.py")]) <= 15
    assert inspect.getdoc(importlib.import_module(module_of(folder)))
