"""The order of imports in ``sqn_rl``: strictly downward, and only the recipe layer knows Hydra."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sqn_rl"

LAYERS = """
errors functional data scaling machine memory adam statistics atari_scores compiling
distributions noise random_state disk tensors observations stopping
hidden contracts reading
nets actors losses targets replay envs
gradients descent numerics
agent
evaluation checkpoint curve reporting
run_state
training film
progress run_directory
loggers
provenance
config catalogue
speed
resources
build defaults graph
overrides drawing picture
recipe
preflight settled
experiment runs changes
groups grid watch
comparison pool
report comparison_figure
cli
"""
"""From the bottom up. Who stands on one line never imports each other; a folder counts as one."""

HEIGHT = {name: height for height, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}

OUTSIDE = {
    "hydra": {"defaults", "overrides"},
    "omegaconf": {"defaults", "reading"},
    "yaml": {"provenance", "reading"},
    "argparse": {"cli"},
    "gymnasium": {"envs"},
    "ale_py": {"envs"},
    "rich": {"progress", "cli"},
    "matplotlib": {"curve", "film", "comparison_figure"},
    "PIL": {"film"},
    "av": {"film"},
    "safetensors": {"tensors"},
    "tensorboard": {"loggers"},
}
"""The only ones that may import these."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def unit(path: Path) -> str:
    """The module's own name, or its folder's."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Everything that a file imports, inside functions too: ``sqn_rl.parts.encoder.mlp``, ``torch``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" if module == "sqn_rl" else module for alias in node.names)


def test_every_module_has_its_place() -> None:
    assert {unit(path) for path in MODULES} == HEIGHT.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    own = unit(path)
    for name in imports(path):
        top, *below = name.split(".")
        if top == "sqn_rl" and below[0] != own:
            assert HEIGHT[below[0]] < HEIGHT[own], f"{own} imports {name}"
        if top in OUTSIDE:
            assert own in OUTSIDE[top], f"{own} imports {name}"


def test_the_equations_need_torch_only() -> None:
    assert {name.partition(".")[0] for name in imports(PACKAGE / "functional.py")} == {"torch", "collections"}


def test_a_command_never_imports_another() -> None:
    commands = {"run", "resume", "list", "graph", "evaluate", "compare", "ablate", "diff", "watch"}
    for path in (PACKAGE / "cli").glob("*.py"):
        assert not {f"sqn_rl.cli.{name}" for name in commands} & set(imports(path))
