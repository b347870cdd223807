"""Messages of errors and signals name the line of the user's code, or else the dependency that runs."""

import random
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqn_rl import errors

ENVS = Path(errors.__file__).parent / "parts" / "env"


def test_an_error_inside_the_standard_library_names_the_users_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import random\nrandom.choice([])\n")
    with pytest.raises(IndexError) as caught:
        runpy.run_path(str(tmp_path / "mine.py"))
    assert errors.explain(caught.value).endswith(f" ({tmp_path / 'mine.py'}:2)")


def test_is_own_holds_for_user_files_anywhere_but_not_for_the_standard_library() -> None:
    assert not errors.is_own(random.__file__)
    assert errors.is_own(str(Path(sys.prefix, "mine.py")))
    assert errors.is_own(f"{Path(random.__file__).parent}_mine/mine.py")


def define_function(source: str, file: Path) -> Callable[..., Any]:
    """The function in ``source``, as if ``file`` had it."""
    names: dict[str, Any] = {}
    exec(compile(source, str(file), "exec"), names)
    return names["function"]


@pytest.mark.parametrize("folder", ["", "pool", "ale"])
def test_running_function_names_the_dependency_that_an_environment_waits_for(folder: str) -> None:
    ours = define_function("def function(call, *given): return call(*given)", ENVS / folder / "any.py")
    other = Path("/site-packages/envpool.py")
    recv = define_function("def function(running, frame): return running(frame())", other)
    found = ours(recv, errors.running_function, sys._getframe)
    assert found == f"function ({other}:1)"
