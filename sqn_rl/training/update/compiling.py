"""Compile a method into one piece of code, without PyTorch's overhead for each operation."""

import atexit
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from sqn_rl.errors import first_line

VARIANTS = 8
"""The most variants of one method that are compiled; further kinds of arguments run uncompiled."""

NUMBER_GUARDS = {"CONSTANT_MATCH", "EQUALS_MATCH", "SEQUENCE_LENGTH"}
"""PyTorch's names for its checks of numbers and of lengths."""

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""The variable that names the folder in which PyTorch stores compiled code for later runs."""

T = TypeVar("T")


class Variant(NamedTuple, Generic[T]):
    """Code that was compiled for some kind of arguments."""

    fits: Callable[[dict[str, Any]], bool]
    """Whether it may be called with these arguments, given by name."""
    code: Callable[..., T]


class Compiled(Generic[T]):
    """A method that is compiled when it is first called, and again for arguments of other shapes or dtypes.

    Each call checks that the arguments, and numbers that the method reads elsewhere, are like those it was
    compiled for. Tensors and modules that it reads elsewhere are not checked: they may not be replaced. A
    method that cannot be compiled runs uncompiled, after a warning that says why.

    Args:
        method: a bound method that computes with tensors, and draws no random numbers.
        name: its name in a warning.
        otherwise: called where it cannot be compiled; by default the method itself.
    """

    def __init__(
        self, method: Callable[..., T], name: str, otherwise: Callable[..., T] | None = None
    ) -> None:
        self._method, self._name, self._otherwise = method, name, otherwise or method
        self._owner: Any = method.__self__  # type: ignore[attr-defined]  # a method has one
        self._arguments = tuple(signature(method).parameters)
        self._variants: list[Variant[T]] = []
        self._max_variants = VARIANTS
        self.pending = True
        """Whether it was never called, so that the next call compiles, which takes seconds."""

    @property
    def compiled(self) -> bool:
        """Whether there is compiled code."""
        return bool(self._variants)

    def __call__(self, *arguments: Any) -> T:
        """The result of the method."""
        given = {"self": self._owner, **dict(zip(self._arguments, arguments, strict=True))}
        for fits, code in self._variants:
            if fits(given):
                return code(self._owner, *arguments)
        if len(self._variants) < self._max_variants:
            return self._compile_and_call(arguments)
        return self._otherwise(*arguments)

    def _compile_and_call(self, arguments: Sequence[Any]) -> T:
        """Compile for such arguments, and return their result; if that is impossible, after a warning."""
        self.pending = False
        keep_code_privately()
        options: dict[str, Any] = {"guard_filter_fn": self._may_change}
        whole: Any = torch.compile(
            self._method, fullgraph=True, dynamic=False, backend=_inductor, options=options
        )
        # for gradients inside; torch.compiler has no such option
        torch._dynamo.config.trace_autograd_ops = True
        try:
            if (ahead := _compile_ahead(whole, arguments)) is None:
                result: T = whole(*arguments)  # compiles just in time
                self._variants.append(Variant(lambda given: True, self._just_in_time(whole)))
                return result
        except _refusals() as error:
            reason = first_line(error)
            if " " in (folder := os.environ.get(CACHE, "")):  # where PyTorch writes code
                reason += f"; its compiler fails in a folder with a space in its name, {folder}"
            warn_not_compiled(self._name, reason)
            self._max_variants = 0
            return self._otherwise(*arguments)
        self._variants.append(ahead)
        return ahead.code(self._owner, *arguments)

    def _just_in_time(self, whole: Callable[..., T]) -> Callable[..., T]:
        """Code for a :class:`Variant`, which runs uncompiled what PyTorch compiles no more variants for."""

        def code(owner: object, *arguments: Any) -> T:
            try:
                return whole(*arguments)
            except torch._dynamo.exc.FailOnRecompileLimitHit:  # before anything ran
                return self._otherwise(*arguments)

        return code

    def _may_change(self, guards: Sequence[Any]) -> list[bool]:
        """Which of PyTorch's guards are checked at each call: those of arguments and of numbers."""
        return [
            guard.name.startswith(self._arguments) or guard.guard_type in NUMBER_GUARDS for guard in guards
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the code, which exists only in this process."""
        return vars(self) | {"_variants": [], "pending": True}


def keep_code_privately() -> None:
    """Make PyTorch store compiled code where only this user can write: by default in ``~/.cache/sqn_rl``.

    PyTorch's own default is a folder of ``/tmp`` with a known name, from which it loads code and pickles. If
    our folder is a link, or others own it or may access it, code is stored for this process only.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    default = default_cache_dir()  # PyTorch sets the variable to it when TensorDict imports it
    if os.environ.get(CACHE, default) != default:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sqn_rl", "compiled")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    except (OSError, RuntimeError):  # for example without a home directory
        is_private = False
    if not is_private or " " in str(folder):  # PyTorch's compiler fails in a folder with a space in its name
        folder = Path(tempfile.mkdtemp(prefix="sqn_rl-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[CACHE] = str(folder)


def warn_not_compiled(name: str, reason: str) -> None:
    """Log that a method runs as plain PyTorch although it was to be compiled."""
    logging.getLogger(__name__).warning("compile: %s cannot be compiled (%s)", name, reason)


def _inductor(graph: Any, inputs: Sequence[Any], **options: Any) -> Any:
    """PyTorch's compiler, made to find the code that an earlier process stored.

    Code that is compiled ahead of time has a name that is unique to this process. PyTorch 2.13 makes it part
    of the cache key, so no other process would find the code; therefore the name is removed.
    """
    from torch._inductor.compile_fx import compile_fx

    graph._backend_id = None
    return compile_fx(graph, inputs, config_patches={"size_asserts": False})


def _compile_ahead(whole: Any, arguments: Sequence[Any]) -> Variant[Any] | None:
    """Compile ahead of time, for such arguments; None if that fails, perhaps only ahead of time.

    Calls are then spared the lookup that PyTorch makes for functions compiled just in time. But PyTorch must
    be able to serialize what it checks.
    """
    try:
        compiled = whole.aot_compile((tuple(arguments), {}))
    except Exception as error:
        if isinstance(error, _refusals()) and not isinstance(error, torch._dynamo.exc.PackageError):
            raise
        return None
    # the public `guard_check` looks up the method's signature at every call, which takes longer
    return Variant(compiled._artifacts.guard_manager.check, compiled.fn)


def _refusals() -> tuple[type[Exception], ...]:
    """The errors that PyTorch raises where it cannot compile; not public, and slow to import."""
    return torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError
