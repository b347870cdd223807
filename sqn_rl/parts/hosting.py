"""Objects that may live in other processes: calls to one, and their answers, in the order of the calls."""

from collections.abc import Callable
from typing import Any, Protocol

Make = Callable[[int], Any]
"""Makes an object, by its number. A host may send it to another process."""


class Host(Protocol):
    """Holds numbered objects; each handles its calls in order."""

    def call(self, number: int, method: str, *arguments: Any) -> Any:
        """Call a method of an object; return a ticket for its answer, perhaps at once."""

    def answer(self, ticket: Any) -> Any:
        """Wait for the answer to a call.

        Raises:
            ReplayError: the object is lost.
        """


class LocalHost:
    """Holds objects in this process.

    Args:
        make: makes an object.
        number: the number of objects.
    """

    def __init__(self, make: Make, number: int) -> None:
        self._objects = [make(each) for each in range(number)]

    def call(self, number: int, method: str, *arguments: Any) -> Any:
        """The answer itself."""
        return getattr(self._objects[number], method)(*arguments)

    def answer(self, ticket: Any) -> Any:
        """The answer."""
        return ticket
