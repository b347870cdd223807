"""Import TensorDict and TorchRL without ``torch._dynamo``, which takes longer to import than both.

They import it only to mark some of their functions for ``torch.compile``. A stand-in takes these marks, and
the module receives them if it is imported later, when something is compiled or trained. A policy that only
acts never needs it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"


@contextmanager
def without_dynamo() -> Iterator[None]:
    """A context for imports, in which a stand-in takes the marks; it does nothing if the module is there."""
    if DYNAMO in sys.modules:
        yield
        return
    stand_in = sys.modules[DYNAMO] = _StandIn()
    try:
        yield
    finally:
        stand_in.remove()


class _StandIn(ModuleType):
    """Takes marks in place of ``torch._dynamo``; any other attribute is that of the module, imported then."""

    def __init__(self) -> None:
        super().__init__(DYNAMO)
        self._allowed: list[Callable[..., Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.remove()
        return getattr(import_module(DYNAMO), name)

    def remove(self) -> None:
        """Leave the place to the module; when it is imported it receives the marks."""
        if sys.modules.get(DYNAMO) is self:
            del sys.modules[DYNAMO]
            if self._allowed:
                sys.meta_path.insert(0, _Marking(self._allowed))

    def assume_constant_result(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Mark a function, as the function of this name does."""
        function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch._dynamo reads it
        return function

    def allow_in_graph(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Mark a function once the module is imported."""
        self._allowed.append(function)
        return function

    def disable(
        self, function: Callable[..., Any] | None = None, *arguments: Any, **options: Any
    ) -> Callable[..., Any]:
        """The function; once the module is imported, so that something may be compiled, that one disabled."""
        if function is None:
            return lambda function: self.disable(function, *arguments, **options)

        @wraps(function)
        def disabled(*args: Any, **kwargs: Any) -> Any:
            if DYNAMO not in sys.modules:
                return function(*args, **kwargs)
            return import_module(DYNAMO).disable(function, *arguments, **options)(*args, **kwargs)

        return disabled


class _Marking(MetaPathFinder):
    """Finds ``torch._dynamo`` once, and marks functions as soon as it is imported."""

    def __init__(self, allowed: Sequence[Callable[..., Any]]) -> None:
        self._allowed = allowed

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module, if it is the one."""
        if name != DYNAMO:
            return None
        sys.meta_path.remove(self)
        if spec := find_spec(name):
            assert spec.loader
            execute = partial(self._execute, spec.loader.exec_module)
            spec.loader.exec_module = execute  # type: ignore[method-assign]  # of this import's own loader
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        for function in self._allowed:
            module.allow_in_graph(function)
