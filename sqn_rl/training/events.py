"""What a run tells whoever wants to know."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Counters:
    """What the loop has done so far."""

    env_steps: int = 0
    """Agent decisions, over all environments."""
    frames: int = 0
    """Environment steps × frame skip."""
    updates: int = 0
    """Optimizer steps."""
    episodes: int = 0
    """Full games ended."""
    wall_s: float = 0.0
    """Seconds in the loop, without evaluations and checkpoints."""

    def row(self) -> dict[str, Any]:
        """For a log."""
        return {**vars(self), "wall_s": round(self.wall_s, 3)}


class Reporter:
    """Is told what happens in a run. Every method does nothing here."""

    def note(self, text: str) -> None:
        """What was chosen or has happened that a person should know, as a line."""

    def metrics(self, row: dict[str, Any]) -> None:
        """Counters, losses, α, entropies, values and recent returns, every ``log_every`` steps."""

    def episode(self, row: dict[str, Any]) -> None:
        """A full game has ended."""

    def evaluation(self, row: dict[str, Any]) -> None:
        """An evaluation has ended."""

    def checkpoint(self, counters: Counters, take_state: Callable[[], dict[str, Any]]) -> None:
        """It is time to write down all that the run has become: what ``take_state()`` gives."""

    def close(self) -> None:
        """The run has ended, well or not."""


def tell(reporters: Sequence[Reporter], event: str, *what: Any) -> None:
    """Tell all of them: the name of a method of :class:`Reporter`, and what it takes."""
    for reporter in reporters:
        getattr(reporter, event)(*what)
