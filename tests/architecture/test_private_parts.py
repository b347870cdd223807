"""Private names of other libraries: each is used in one known file of ``sqn_rl``, and still exists."""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchrl.data.replay_buffers import RandomSampler, ReplayBuffer

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = sorted((REPOSITORY / "sqn_rl").rglob("*.py"))
DOCUMENTED = {"_asdict", "_fields", "_field_defaults", "_replace", "_exit"}
"""Documented names that begin with an underscore: those of named tuples, and ``os._exit``."""


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def check_of_compiled() -> Any:
    """Compile a small function as ``sqn_rl`` does, and check its guards."""
    seen = []

    def keep(guards: Any) -> list[bool]:
        seen.extend((guard.name, guard.guard_type) for guard in guards)
        return [True] * len(guards)

    options: dict[str, Any] = {"guard_filter_fn": keep}
    code: Any = torch.compile(double, fullgraph=True, dynamic=False, options=options)
    made = code.aot_compile(((torch.ones(2),), {}))
    assert ("x", "TENSOR_MATCH") in {(name.strip("L[']"), kind) for name, kind in seen}
    assert made._artifacts.guard_manager.check({"x": torch.ones(2)})
    assert not made._artifacts.guard_manager.check({"x": torch.ones(3)})


def name_of_compiled() -> None:
    """Each graph that is compiled ahead of time has a new name."""
    names = []

    def backend(graph: Any, inputs: Any) -> Any:
        names.append(graph._backend_id)
        return import_module("torch._inductor.compile_fx").compile_fx(graph, inputs)

    for _ in range(2):
        torch.compile(double, fullgraph=True, backend=backend).aot_compile(((torch.ones(2),), {}))  # type: ignore[attr-defined]
    assert len(set(names)) == 2


def buffer() -> ReplayBuffer:
    return ReplayBuffer(sampler=RandomSampler(), generator=torch.Generator())


NAMES: dict[str, tuple[str, Callable[[], Any]]] = {
    "_dynamo": ("training/update/compiling.py", lambda: torch._dynamo.config.trace_autograd_ops),
    "_dynamo_marked_constant": (
        "parts/lazy_dynamo.py",
        lambda: torch.compiler.assume_constant_result(lambda: 0)._dynamo_marked_constant,
    ),
    "_inductor": ("training/update/compiling.py", lambda: torch._inductor.exc.InductorError),
    "_artifacts": ("training/update/compiling.py", check_of_compiled),
    "_backend_id": ("training/update/compiling.py", name_of_compiled),
    "_foreach_copy_": ("parts/foreach.py", lambda: torch._foreach_copy_),
    "_foreach_lerp_": ("parts/foreach.py", lambda: torch._foreach_lerp_),
    "_fused_adam_": ("parts/optimizer/adam.py", lambda: torch._fused_adam_),
    "_global_optimizer_pre_hooks": (
        "parts/optimizer/adam.py",
        lambda: import_module("torch.optim.optimizer")._global_optimizer_pre_hooks,
    ),
    "_global_optimizer_post_hooks": (
        "parts/optimizer/adam.py",
        lambda: import_module("torch.optim.optimizer")._global_optimizer_post_hooks,
    ),
    "_optimizer_step_pre_hooks": (
        "parts/optimizer/adam.py",
        lambda: torch.optim.SGD([torch.zeros(1)])._optimizer_step_pre_hooks,
    ),
    "_optimizer_step_post_hooks": (
        "parts/optimizer/adam.py",
        lambda: torch.optim.SGD([torch.zeros(1)])._optimizer_step_post_hooks,
    ),
    "_parameters": ("parts/noise.py", lambda: nn.Linear(1, 1)._parameters["weight"]),
    "_buffers": ("parts/noise.py", lambda: nn.BatchNorm1d(1)._buffers["running_mean"]),
    "_rng": ("parts/replay/storage.py", lambda: buffer().sampler._rng.get_state()),
}
"""By private name: the only file that may use it, and a function that looks it up."""


def used() -> dict[str, set[str]]:
    """The files that use each underscored name that neither a module nor a class of their folder defines."""
    attributes, names, uses = set[tuple[str, str]](), set[str](), set[tuple[str, str]]()
    for path in CODE:
        module, file = ast.parse(path.read_text()), path.relative_to(REPOSITORY / "sqn_rl").as_posix()
        folder = file.partition("/")[0]
        names |= set(defined(module))
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                attributes |= {(folder, name) for name in defined(node)}
            elif isinstance(node, ast.Import | ast.ImportFrom):
                imported = [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
                uses |= {(file, name) for each in imported for name in each.split(".")}
            elif isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls"):
                    attributes.add((folder, node.attr))
                uses.add((file, node.attr))
    private = defaultdict[str, set[str]](set)
    for file, name in uses:
        own = name in names | DOCUMENTED or (file.partition("/")[0], name) in attributes
        if re.match("_[^_]", name) and not own:
            private[name].add(file)
    return dict(private)


def defined(body: ast.Module | ast.ClassDef) -> Iterator[str]:
    """The methods and attributes of a class, or the variables of a module (without its functions)."""
    for node in body.body:
        if isinstance(node, ast.FunctionDef) and isinstance(body, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from (each.id for each in ast.walk(node) if isinstance(each, ast.Name))


def test_each_private_name_is_used_only_in_its_listed_file() -> None:
    assert used() == {name: {file} for name, (file, _) in NAMES.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_library_still_has_the_private_name(name: str) -> None:
    file, find = NAMES[name]
    try:
        find()
    except (AttributeError, LookupError) as error:
        pytest.fail(f"the library has moved `{name}`: see sqn_rl/{file} ({error})")
