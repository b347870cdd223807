"""Defaults lists mean what they mean to Hydra: its public ``compose`` is the oracle, on random trees.

Every file leaves a key in the merged config, whose order of keys is then the order of the files.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import RECIPE, TASK, Catalogue, Choice
from sqn_rl.recipe.defaults import choose_files

TREES, SLOTS, PARTS = 25, ["env", "head", "loss", "replay"], ["a", "b", "c"]
INHERITING = ("env", "head")
"""Slots whose parts have defaults lists. We refuse such a part if it is listed twice; Hydra does not."""

Tree = dict[tuple[str, str], list[str]]
"""By group and name, the defaults list."""


def random_tree(rng: random.Random) -> Tree:
    """Recipes that inherit, fill and override; parts that inherit; envs with tasks."""
    tree: Tree = {(TASK, part): [] for part in PARTS}
    for slot in SLOTS:
        for part in PARTS:
            own = [rng.choice(["a", "b"])] if slot in INHERITING and part == "c" else []
            brought = [f"/task@_global_: {rng.choice(PARTS)}"] if slot == "env" and not own else []
            tree[slot, part] = with_self([*own, *brought], rng)
    tree[RECIPE, "r0"] = with_self([f"/{slot}: {rng.choice(PARTS)}" for slot in SLOTS], rng)
    for number in range(1, 5):
        inherited = [rng.choice(["", "/recipe/"]) + f"r{rng.randrange(number)}"]
        inherited += [f"r{rng.randrange(number)}"] * (rng.random() < 0.1)
        listed = [f"/{rng.choice(['loss', 'replay'])}: {rng.choice(PARTS)}"] * (rng.random() < 0.1)
        chosen = rng.sample([*SLOTS, f"{TASK}@_global_", "layers"], rng.choice([0, 1, 1, 2]))
        overrides = [
            f"override /{slot}: {rng.choice(PARTS)}"
            for slot in chosen
            if slot != "layers" or rng.random() < 0.1
        ]
        tree[RECIPE, f"r{number}"] = [*with_self([*inherited, *listed], rng), *overrides]
    tree["layers", "a"] = tree["layers", "b"] = tree["layers", "c"] = []
    return tree


def with_self(entries: list[str], rng: random.Random) -> list[str]:
    """``_self_`` last, elsewhere, or left out."""
    where = rng.choice([len(entries), len(entries), rng.randrange(len(entries) + 1), None])
    return entries if where is None or not entries else [*entries[:where], "_self_", *entries[where:]]


def write(tree: Tree, folder: Path, flat: bool) -> None:
    """Write the tree in Hydra's layout (flat: every group a folder) or in ours. Each file's key is global."""
    for (group, name), entries in tree.items():
        place = group if flat or group == RECIPE else f"components/{group}"
        path = folder / (place if flat or group != RECIPE else "recipes") / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        defaults = {"defaults": [yaml.safe_load(entry) for entry in entries]} if entries else {}
        header = "# @package _global_\n" if flat else "# A.\n"
        path.write_text(header + yaml.dump({**defaults, f"{group}={name}": 0}, sort_keys=False))
    if flat:
        (folder / "run.yaml").write_text("defaults: [{recipe: r0}]\n")


def ours(folder: Path, recipe: str, choices: dict[str, str]) -> list[str] | None:
    """The files in order, by our code; None: refused."""
    catalogue = Catalogue([folder])
    given = {group: Choice(group, name, "") for group, name in choices.items()}
    try:
        layers = choose_files(Choice(RECIPE, recipe, ""), given, catalogue).layers
    except RecipeError:
        return None
    return [f"{layer.group}={Path(layer.document.shown).stem}" for layer in layers]


def hydras(folder: Path, recipe: str, choices: dict[str, str]) -> list[str] | None:
    """The same, by Hydra."""
    keys = {TASK: f"{TASK}@_global_"}
    overrides = [f"{keys.get(group, group)}={name}" for group, name in choices.items()]
    with initialize_config_dir(str(folder), version_base="1.3"):
        try:
            return [*compose("run", [f"recipe={recipe}", *overrides])]
        except HydraException:
            return None


def cases() -> Iterator[tuple[Tree, str, dict[str, str]]]:
    rng = random.Random(0)
    for _ in range(TREES):
        groups = rng.sample([*SLOTS, TASK], rng.choice([0, 1, 2]))
        yield random_tree(rng), f"r{rng.randrange(5)}", {group: rng.choice(PARTS) for group in groups}


def test_random_defaults_lists_merge_or_fail_as_in_hydra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqn_rl.recipe.catalogue._own_tree", lambda: tmp_path / "none")
    composed = 0
    for number, (tree, recipe, choices) in enumerate(cases()):
        there, here = tmp_path / f"hydra{number}", tmp_path / f"ours{number}"
        write(tree, there, flat=True)
        write(tree, here, flat=False)
        files = ours(here, recipe, choices)
        assert files == hydras(there, recipe, choices), (tree, recipe, choices)
        composed += files is not None
    assert composed >= TREES / 2
