"""How a run is asked to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Protocol, runtime_checkable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Those that ask for a clean stop."""


class Stopped(BaseException):
    """It was asked to stop. No ``Exception``: nothing has gone wrong, and nobody on its way may think so."""


@runtime_checkable
class Interrupting(Protocol):
    """A ``should_stop`` that need not be asked."""

    def interrupting(self) -> AbstractContextManager[None]:
        """In here, :class:`Stopped` is raised as soon as a stop is asked for, wherever the program is."""


class StopRequest:
    """A ``should_stop``: whether somebody, such as a signal, asked for it."""

    def __init__(self) -> None:
        self.by: str | None = None
        """Who asked."""
        self._interrupts = False

    def __call__(self) -> bool:
        """Whether somebody asked."""
        return self.by is not None

    def ask(self, by: str) -> None:
        """Ask for a stop.

        Raises:
            Stopped: at once, where what is being done can be interrupted.
        """
        self.by = by
        if self._interrupts:
            raise Stopped

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """In here, :class:`Stopped` is raised as soon as a stop is asked for, wherever the program is."""
        self._interrupts = True
        try:
            if self.by:
                raise Stopped
            yield
        finally:
            self._interrupts = False


@contextmanager
def signals_to(receive: Callable[[signal.Signals], None], *, once: bool) -> Iterator[None]:
    """Have ``receive`` given :data:`SIGNALS`; if ``once``, the first only: the next does what it did."""

    def handle(number: int, frame: FrameType | None) -> None:
        if once:
            restore()
        receive(signal.Signals(number))

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        restore()
