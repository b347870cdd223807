"""Requests to stop a run: signals, Ctrl-C, and a caller's function."""

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

from sqn_rl.errors import running_function

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that request a clean stop."""

REPEAT_SECONDS = 2.0
"""Seconds in which a repeated signal counts once: one sent to a process group may arrive twice."""


class Stopped(BaseException):
    """A stop was requested. Not an ``Exception``, so that handlers of failures do not catch it."""


@runtime_checkable
class Interrupting(Protocol):
    """A ``should_stop`` that can also interrupt."""

    def interrupting(self) -> AbstractContextManager[None]:
        """A context in which a request to stop raises :class:`Stopped` at once."""

    def waiting(self, what: str) -> AbstractContextManager[None]:
        """A context in which a second request to stop raises :class:`Stopped` at once."""


class StopRequest:
    """A ``should_stop`` that remembers a request, such as a signal.

    Args:
        also: another ``should_stop``, which is called too.
    """

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self.by: str | None = None
        """What requested the stop; None if nothing did."""
        self._also, self._interrupts, self._waits_for, self._signalled = also, False, "", False

    def __call__(self) -> bool:
        """Whether a stop was requested."""
        return self.by is not None or self._also()

    def request(self, by: str) -> None:
        """Request a stop.

        Args:
            by: what requests it, for messages.

        Raises:
            Stopped: inside :meth:`interrupting`; inside :meth:`waiting` at the second request.
        """
        is_repeated, self.by = self.by is not None, by
        if self._interrupts or (is_repeated and self._waits_for):
            raise Stopped

    def receive(self, number: signal.Signals, frame: FrameType | None) -> bool:
        """Request a stop by a signal; the first one prints what the run is waiting for.

        Returns:
            False for a second signal outside of :meth:`waiting`: its previous handler takes over.

        Raises:
            Stopped: see :meth:`request`.
        """
        if self._signalled and not self._waits_for:
            return False
        if not (self._signalled or self._interrupts):
            waits_for = " in ".join(filter(None, [self._waits_for, running_function(frame)]))
            waits = f"; now it waits for {waits_for}" if waits_for else ""
            what = f"stops after this step, with a checkpoint{waits}"
            text = f"{number.name}: {what}. A second one stops at once."
            with suppress(OSError, RuntimeError):  # stderr is gone, or was just being written to
                print(text, file=sys.stderr, flush=True)
        self._signalled = True
        self.request(number.name)
        return True

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A context in which a request to stop raises :class:`Stopped` at once."""
        self._interrupts = True
        try:
            if self.by:
                raise Stopped
            yield
        finally:
            self._interrupts = False

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A context in which a second request to stop raises :class:`Stopped` at once."""
        self._waits_for = what
        try:
            yield
        finally:
            self._waits_for = ""


@contextmanager
def signals_to(
    receive: Callable[[signal.Signals, FrameType | None], bool], signals: Sequence[signal.Signals] = SIGNALS
) -> Iterator[None]:
    """A context in which ``receive`` handles signals, until it returns False: then earlier handlers are back.

    An ignored SIGHUP stays ignored, as ``nohup`` wants. A signal repeated within :data:`REPEAT_SECONDS`
    counts once.
    """
    received: dict[int, float] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - received.get(number, -math.inf) < REPEAT_SECONDS:
            return
        received[number] = now
        if number == signal.SIGHUP:
            _leave_terminal()
        if not receive(signal.Signals(number), frame):
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:  # one that was not installed from Python cannot be restored
                signal.signal(number, handler)

    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [number for number in signals if not (is_ignored and number == signal.SIGHUP)]
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        restore()


@contextmanager
def interruptible(should_stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """A context in which Ctrl-C requests a clean stop instead of raising KeyboardInterrupt.

    Yields the ``should_stop`` to use: a :class:`StopRequest`, or ``should_stop`` itself if it handles Ctrl-C
    already, if this is not the main thread, or if the program has a handler of its own.
    """
    has_default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    is_main_thread = threading.current_thread() is threading.main_thread()
    if isinstance(should_stop, Interrupting) or not (has_default_handler and is_main_thread):
        yield should_stop
        return
    stop = StopRequest(should_stop)
    with signals_to(stop.receive, [signal.SIGINT]):
        yield stop


def _leave_terminal() -> None:
    """Redirect the streams of a closed terminal to ``/dev/null``, as writing to them is an error."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
