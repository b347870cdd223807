"""Compiling: a method in one piece, without what PyTorch does around every operation."""

import atexit
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

VARIANTS = 8
"""Of one method; a further kind of argument is computed as without."""

VALUES = {"CONSTANT_MATCH", "EQUALS_MATCH", "SEQUENCE_LENGTH"}
"""What PyTorch calls its checks of numbers, and of how many of something there are."""

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Where PyTorch keeps compiled code, if it is set, for runs to come."""

T = TypeVar("T")


class Compiled(Generic[T]):
    """A method that is compiled when it is first called, and again for arguments of other shapes or dtypes.

    At each call the arguments are compared with those that it was compiled for, and the numbers that it has
    read elsewhere with what they are now. Which tensors and modules there are is not: they stay. What cannot
    be compiled is computed as without, and a warning says why.

    Args:
        method: of an object; computes with tensors, and draws nothing.
        name: what a warning calls it.
        otherwise: called where it cannot be compiled; by default the method itself.
    """

    def __init__(
        self, method: Callable[..., T], name: str, otherwise: Callable[..., T] | None = None
    ) -> None:
        self._method, self._name, self._otherwise = method, name, otherwise or method
        self._owner: Any = method.__self__  # type: ignore[attr-defined]  # a method has one
        self._arguments = tuple(signature(method).parameters)
        self._made: list[tuple[Callable[[dict[str, Any]], bool], Callable[..., T]]] = []
        self._most = VARIANTS
        self.pending = True
        """Whether the next call compiles, which takes seconds."""

    @property
    def compiled(self) -> bool:
        """Whether there is compiled code."""
        return bool(self._made)

    def __call__(self, *arguments: Any) -> T:
        """What the method gives."""
        given = {"self": self._owner, **dict(zip(self._arguments, arguments, strict=True))}
        for fits, code in self._made:
            if fits(given):
                return code(self._owner, *arguments)
        compiled = self._compile(arguments) if len(self._made) < self._most else None
        return compiled(self._owner, *arguments) if compiled else self._otherwise(*arguments)

    def _compile(self, arguments: Sequence[Any]) -> Callable[..., T] | None:
        """Compile for such arguments; None, after a warning, if that is impossible."""
        self.pending = False
        keep_code_privately()
        options: dict[str, Any] = {"guard_filter_fn": self._may_change}
        whole: Any = torch.compile(
            self._method, fullgraph=True, dynamic=False, backend=_inductor, options=options
        )
        torch._dynamo.config.trace_autograd_ops = (
            True  # for gradients inside; torch.compiler has no such option
        )
        try:
            self._made.append(_ahead(whole, arguments))
        except _refusals() as error:
            reason = str(error).strip().splitlines()[0]
            if " " in (folder := os.environ.get(CACHE, "")):  # where PyTorch writes
                reason += f"; its compiler fails in a folder with a space in its name, {folder}"
            warn_not_compiled(self._name, reason)
            self._most = 0
            return None
        return self._made[-1][1]

    def _may_change(self, guards: Sequence[Any]) -> list[bool]:
        return [guard.name.startswith(self._arguments) or guard.guard_type in VALUES for guard in guards]

    def __getstate__(self) -> dict[str, Any]:
        """Without the code, which is of this process."""
        return vars(self) | {"_made": [], "pending": True}


def keep_code_privately() -> None:
    """Have PyTorch keep compiled code where only this user can write: by default in ``~/.cache/sqn_rl``.

    PyTorch's own default is a folder of ``/tmp`` with a known name, from which it loads code and pickles. If
    the folder here is a link, another user's, or open to others, code is kept for this process only.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    own = default_cache_dir()  # which PyTorch sets when TensorDict imports it
    if os.environ.get(CACHE, own) != own:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sqn_rl", "compiled")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    except (OSError, RuntimeError):  # such as without a home
        private = False
    if not private or " " in str(folder):  # with which PyTorch's compiler fails
        folder = Path(tempfile.mkdtemp(prefix="sqn_rl-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[CACHE] = str(folder)


def warn_not_compiled(name: str, reason: str) -> None:
    """Log that a method runs as plain PyTorch although it was to be compiled."""
    logging.getLogger(__name__).warning("compile: %s cannot be compiled (%s)", name, reason)


def _inductor(graph: Any, inputs: Sequence[Any], **options: Any) -> Any:
    """PyTorch's compiler, which finds the code that an earlier process has kept.

    What is compiled ahead has a name that is of this process only, and PyTorch 2.13 keeps the code under it
    too, so that no other process would find it.
    """
    from torch._inductor.compile_fx import compile_fx

    graph._backend_id = None
    return compile_fx(graph, inputs, config_patches={"size_asserts": False})


def _ahead(
    whole: Any, arguments: Sequence[Any]
) -> tuple[Callable[[dict[str, Any]], bool], Callable[..., Any]]:
    """Compile for such arguments: what says whether others are such, and the code.

    Called like this, code is spared what PyTorch does to notice that it is to be called. It also wants to be
    able to write down what it compares; where that fails, it is called as PyTorch would have it.
    """
    try:
        made = whole.aot_compile((tuple(arguments), {}))
    except Exception as error:
        if isinstance(error, _refusals()) and not isinstance(error, torch._dynamo.exc.PackageError):
            raise
        whole(*arguments)  # which fails too, if it was for another reason
        return (lambda given: True), (lambda owner, *given: whole(*given))
    # the public `guard_check` looks up the method's signature at every call, which takes longer
    return made._artifacts.guard_manager.check, made.fn


def _refusals() -> tuple[type[Exception], ...]:
    """What PyTorch raises where it cannot compile, by names that are not public; importing takes seconds."""
    return torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError
