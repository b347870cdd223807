"""Crash consistency: faults of the disk at every operation of a save, and what a checkpoint costs."""

from pathlib import Path

from reliability.faults import FAULTS, Fault, after_fault
from reliability.score import Line, Section


def measure(folder: Path) -> list[Line]:
    """A line for each fault."""
    return [_line(folder / fault.__name__, fault) for fault in FAULTS]


def _line(folder: Path, fault: Fault) -> Line:
    outcomes: list[int | str] = []
    while (outcome := after_fault(fault, len(outcomes), folder / str(len(outcomes)))) is not None:
        outcomes.append(outcome)
    whole = sum(outcome in (9, 12) for outcome in outcomes)
    name = fault.__name__.replace("_", " ")
    return Line(
        f"{name}, at each operation of a save",
        "the checkpoint before or the new one, all",
        f"{whole} of {len(outcomes)}",
        whole == len(outcomes) > 40,
        outcomes,
    )


SECTION = Section(
    "disk",
    "2. Crash consistency",
    """A fault at every open, write, fsync, rename, mkdir and unlink of a save, in turn; after each the
run goes on and saves again.""",
    measure,
)
