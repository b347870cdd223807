"""Contexts for the modes of PyTorch on which numbers, or speed, depend: dtype, denormals and threads."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _DefaultDtype:
    """The default dtype of the process, while contexts in any of its threads need float32."""

    def __init__(self) -> None:
        self._lock, self._contexts, self._before = threading.Lock(), 0, torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if not self._contexts:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._contexts += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._contexts -= 1
            if not self._contexts:
                torch.set_default_dtype(self._before)


_DEFAULT_DTYPE = _DefaultDtype()


@contextmanager
def default_float32() -> Iterator[None]:
    """A context, or decorator, in which float32 is the default dtype, whatever the program has set.

    PyTorch has one default for all threads; it is restored when no thread is in such a context any more.
    """
    with _DEFAULT_DTYPE:
        yield


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """A context with so many threads for PyTorch's operations, which affects how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """A context, or decorator, in which denormals are zero: Adam's moments decay to them, which is slow."""
    was_flushed = sys.float_info.min / 2 == 0  # the mode of this thread, for which torch has no getter
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)
