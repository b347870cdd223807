"""How a run is asked to stop."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Protocol, runtime_checkable

from sqn_rl.errors import whereabouts

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Those that ask for a clean stop."""

ONE = 2.0
"""Seconds in which a signal that comes again is the same: sent to a group, it is passed on besides."""


class Stopped(BaseException):
    """It was asked to stop. No ``Exception``: nothing has gone wrong, and nobody on its way may think so."""


@runtime_checkable
class Interrupting(Protocol):
    """A ``should_stop`` that need not be asked."""

    def interrupting(self) -> AbstractContextManager[None]:
        """In here, :class:`Stopped` is raised as soon as a stop is asked for, wherever the program is."""

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """In here, :class:`Stopped` is raised as soon as a stop is asked for a second time."""


class StopRequest:
    """A ``should_stop``: whether somebody, such as a signal, asked for it.

    Args:
        also: another ``should_stop``, which is asked, too.
    """

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self.by: str | None = None
        """Who asked."""
        self._also, self._interrupts, self._waits_for, self._signalled = also, False, "", False

    def __call__(self) -> bool:
        """Whether somebody asked."""
        return self.by is not None or self._also()

    def ask(self, by: str) -> None:
        """Ask for a stop.

        Raises:
            Stopped: at once, where what is being done can be interrupted, or where it is waited for and this
                is the second time.
        """
        again, self.by = self.by is not None, by
        if self._interrupts or (again and self._waits_for):
            raise Stopped

    def receive(self, number: signal.Signals, frame: FrameType | None) -> bool:
        """Have a signal ask, and the first say on stderr what is waited for; see :func:`signals_to`.

        Returns:
            False for a second signal where nothing is waited for, which is to do what it did before.

        Raises:
            Stopped: see :meth:`ask`.
        """
        if self._signalled and not self._waits_for:
            return False
        if not (self._signalled or self._interrupts):
            waits_for = " in ".join(filter(None, [self._waits_for, whereabouts(frame)]))
            waits = f"; now it waits for {waits_for}" if waits_for else ""
            text = (
                f"{number.name}: stops after this step, with a checkpoint{waits}. A second one stops at once."
            )
            with suppress(OSError, RuntimeError):  # stderr is gone, or was just being written to
                print(text, file=sys.stderr, flush=True)
        self._signalled = True
        self.ask(number.name)
        return True

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
    def waiting(self, what: str) -> Iterator[None]:
        """In here, :class:`Stopped` is raised as soon as a stop is asked for a second time."""
        self._waits_for = what
        try:
            yield
        finally:
            self._waits_for = ""


@contextmanager
def signals_to(
    receive: Callable[[signal.Signals, FrameType | None], bool], signals: Sequence[signal.Signals] = SIGNALS
) -> Iterator[None]:
    """Have ``receive`` given signals; from one on of which it returns False, they do what they did before.

    A SIGHUP that is ignored stays so, for ``nohup``. One that comes again within :data:`ONE` is the same.
    """
    received: dict[int, float] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - received.get(number, -math.inf) < ONE:
            return
        received[number] = now
        if number == signal.SIGHUP:
            _leave_terminal()
        if not receive(signal.Signals(number), frame):
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    taken = [number for number in signals if not (ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield
    finally:
        restore()


@contextmanager
def interruptible(should_stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """In here, Ctrl-C asks for a stop, too, where else it would raise KeyboardInterrupt, in Python itself.

    Gives what to ask instead of ``should_stop``: a :class:`StopRequest` of its own, or, where somebody else
    takes care of Ctrl-C, the same.
    """
    python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    main = threading.current_thread() is threading.main_thread()
    if isinstance(should_stop, Interrupting) or not (python and main):
        yield should_stop
        return
    stop = StopRequest(should_stop)
    with signals_to(stop.receive, [signal.SIGINT]):
        yield stop


def _leave_terminal() -> None:
    """Write to nowhere where the terminal has gone, as it mostly has: to write there is an error."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
