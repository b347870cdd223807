"""The layout of ``sqn_rl``: a part lies where its YAML lies. What may import what, ``make lint`` checks."""

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
"""By target, the names of the parts that it serves."""
for (_, name), target in OURS.items():
    NAMES[target].add(name)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize(("slot", "name"), OURS, ids="/".join)
def test_a_part_lies_where_its_yaml_lies(slot: str, name: str) -> None:
    target = OURS[slot, name]
    folder, _, file = getattr(sqn_rl, target.rpartition(".")[2]).__module__.rpartition(".")
    assert folder == f"sqn_rl.parts.{slot}"
    assert file == name or len(NAMES[target]) > 1


def test_every_slot_has_a_folder_and_every_folder_is_a_slot() -> None:
    folders = {path.parent.name for path in (PACKAGE / "parts").glob("*/__init__.py")}
    assert folders == {slot.name for slot in SLOTS}


def test_nothing_but_folders_and_a_few_files_lies_at_the_top() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len([path for path in entries if path.is_dir()]) <= 9
    assert len([path for path in entries if path.is_file()]) <= 7


@pytest.mark.parametrize("folder", FOLDERS, ids=module_of)
def test_a_folder_is_seen_at_a_glance_and_says_what_it_holds(folder: Path) -> None:
    assert len([*folder.glob("*.py")]) <= 15
    assert inspect.getdoc(importlib.import_module(module_of(folder)))
