"""Compiled code returns what plain code does: for other shapes and numbers, and where compiling fails."""

import logging
import os
import stat
import subprocess
import sys
import threading
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from sqn_rl import compose
from sqn_rl.errors import first_line
from sqn_rl.parts.actor.base import NetworkActor
from sqn_rl.training.update.compiling import CACHE, Compiled, keep_code_privately

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)

X = torch.linspace(-1, 1, 6)


class Scaling:
    """Methods to be compiled."""

    def __init__(self) -> None:
        self.factor = 2.0
        self.bias = torch.ones(1)

    def scale(self, x: Tensor) -> Tensor:
        return x * self.factor + self.bias

    def step(self, x: Tensor) -> Tensor:
        self.bias.add_(1)
        return x * self.factor + self.bias

    def print(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x * self.factor


def without_python(code: Compiled[Tensor], x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The answer of the compiled code alone: a call of the plain method would raise."""
    with monkeypatch.context() as patch:
        patch.setattr(code, "_otherwise", None)
        return code(x)


def test_code_is_compiled_once_for_inputs_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = Scaling()
    code = Compiled(scaling.scale, "this")
    assert code.pending
    torch.testing.assert_close(code(X), 2 * X + 1)
    assert not code.pending
    torch.testing.assert_close(without_python(code, X + 1, monkeypatch), 2 * X + 3)
    scaling.bias = torch.full((1,), 5.0)
    torch.testing.assert_close(without_python(code, X, monkeypatch), 2 * X + 5)


def test_another_shape_or_another_number_compiles_another_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = Scaling()
    code = Compiled(scaling.scale, "this")
    code(X)
    torch.testing.assert_close(code(X.reshape(2, 3)), 2 * X.reshape(2, 3) + 1)
    scaling.factor = 3.0
    torch.testing.assert_close(code(X), 3 * X + 1)
    torch.testing.assert_close(without_python(code, X, monkeypatch), 3 * X + 1)
    scaling.factor = 2.0
    torch.testing.assert_close(without_python(code, X.reshape(2, 3), monkeypatch), 2 * X.reshape(2, 3) + 1)


def test_a_method_of_an_object_that_cannot_be_pickled_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = Scaling()
    scaling.lock = threading.Lock()  # type: ignore[attr-defined]
    code = Compiled(scaling.scale, "this")
    for factor in (2.0, 3.0):
        scaling.factor = factor
        torch.testing.assert_close(code(X), factor * X + 1)
        torch.testing.assert_close(without_python(code, X, monkeypatch), factor * X + 1)
    assert deepcopy(Compiled(Scaling().scale, "this")).pending


def test_code_that_cannot_be_stored_runs_once_per_call_as_numbers_change() -> None:
    scaling = Scaling()
    scaling.lock = threading.Lock()  # type: ignore[attr-defined]
    code = Compiled(scaling.step, "this")
    for number in range(1, torch._dynamo.config.recompile_limit + 4):
        scaling.factor = float(number)
        torch.testing.assert_close(code(X), number * X + 1 + number)
        assert scaling.bias.item() == 1 + number


def test_an_object_that_holds_its_compiled_code_recompiles_and_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scaling = Scaling()
    code = scaling.code = Compiled(scaling.scale, "this")  # type: ignore[attr-defined]
    for x in (X, X[:3]):
        code(x)
        torch.testing.assert_close(without_python(code, x, monkeypatch), 2 * x + 1)
    other = deepcopy(scaling)
    other.factor = 5.0
    torch.testing.assert_close(other.code(X), 5 * X + 1)  # type: ignore[attr-defined]


def test_shapes_beyond_the_variant_limit_run_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqn_rl.training.update.compiling.VARIANTS", 1)
    code = Compiled(Scaling().scale, "this")
    for x in (X, X[:3], X[:2]):
        torch.testing.assert_close(code(x), 2 * x + 1)
    with pytest.raises(TypeError, match="NoneType"):
        without_python(code, X[:3], monkeypatch)


def test_code_that_cannot_be_compiled_runs_uncompiled_and_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = Compiled(Scaling().print, "this")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(code(X), 2 * X)
    assert not code.pending
    assert [each.message[:46] for each in caplog.records] == [
        "compile: this cannot be compiled (Unsupported:"
    ]


def test_a_cache_folder_with_a_space_in_its_name_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "a folder"))
    scaling = Scaling()
    scaling.factor = 7.25  # no other test compiles this number
    assert torch.equal(Compiled(scaling.scale, "this")(X), 7.25 * X + 1)
    assert "a folder with a space in its name" in caplog.text


@pytest.mark.parametrize("recipe", ["sqn_noisy", "dqn", "discrete_sac"])
def test_compiled_acting_draws_the_same_actions(recipe: str, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> NetworkActor:
        return compose(recipe, "env=cartpole", "hidden=[16]", "replay_capacity=100").recipe.build()["actor"]

    plain, compiled = make(), make()
    choose = Compiled(compiled.choose, "acting")
    compiled.use_compiled(choose)
    compiled.act(torch.zeros(3, 4), greedy=True)
    compiled.act(torch.zeros(3, 4), generator=torch.Generator())
    assert choose.pending  # neither of these calls uses compiled code
    for step in range(4):
        states = 3 if step < 2 else 2
        observation = torch.randn(states, 4, generator=torch.Generator().manual_seed(step))
        torch.testing.assert_close(
            compiled._choose(observation, False, compiled.generator),
            plain._choose(observation, False, plain.generator),
        )
    assert len(choose._variants) == 2
    assert "cannot be compiled" not in caplog.text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled code is kept by default."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(CACHE, "")  # so that it is put back
    monkeypatch.delenv(CACHE)
    return tmp_path / "sqn_rl" / "compiled"


def test_the_compile_cache_is_a_folder_private_to_the_user(cache: Path) -> None:
    for _ in range(2):
        keep_code_privately()
        assert os.environ.pop(CACHE) == str(cache)
        assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_cached_compiled_code_is_reused_by_a_later_compilation(cache: Path) -> None:
    hits = counters["aot_autograd"]
    hits.clear()
    for found in (0, 1, 2):  # each object is as new to the cache as another process
        torch.testing.assert_close(Compiled(Scaling().scale, "this")(X), 2 * X + 1)
        assert hits["autograd_cache_hit"] == found
    other = Scaling()
    other.factor = 3.0
    torch.testing.assert_close(Compiled(other.scale, "this")(X), 3 * X + 1)
    assert hits["autograd_cache_hit"] == 2


def test_the_cache_folder_set_by_pytorch_is_replaced_by_the_private_one(cache: Path) -> None:
    """Importing TensorDict sets it, before anything is compiled."""
    script = "import os, tensordict; from sqn_rl.training.update import compiling as it"
    script += "; print(os.environ[it.CACHE]); it.keep_code_privately(); print(os.environ[it.CACHE])"
    theirs, kept = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert theirs == default_cache_dir()
    assert kept == str(cache)


def test_a_cache_folder_set_by_the_user_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, "/elsewhere")
    keep_code_privately()
    assert os.environ[CACHE] == "/elsewhere"
    assert not cache.exists()


@pytest.mark.parametrize("odd", ["open to others", "a link", "a file", "a parent that is a file"])
def test_an_unsafe_cache_folder_is_replaced_by_another_private_one(
    odd: str, cache: Path, tmp_path: Path
) -> None:
    cache.parent.mkdir()
    match odd:
        case "open to others":
            cache.mkdir()
            cache.chmod(0o770)
        case "a link":
            (tmp_path / "other").mkdir(mode=0o700)
            cache.symlink_to(tmp_path / "other")
        case "a file":
            cache.touch()
        case _:
            cache.parent.rmdir()
            cache.parent.touch()
    keep_code_privately()
    folder = Path(os.environ[CACHE])
    assert not folder.is_relative_to(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()


@pytest.mark.parametrize(("message", "line"), [("", "ValueError"), ("\n a \nb", "ValueError: a")])
def test_first_line_shortens_an_error_with_or_without_a_message(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line
