"""Corruption: files of checkpoints flipped, cut, swapped and missing."""

from pathlib import Path

from reliability.score import Line, Section
from reliability.tiny import DAMAGES, Damaged

SEEDS = 40


def measure(folder: Path) -> list[Line]:
    """A line for each kind of damage."""
    damaged = Damaged(folder)
    lines = []
    for how in DAMAGES:
        cases = [(file, seed) for file in damaged.files for seed in range(SEEDS)]
        wrong = [[str(file), seed] for file, seed in cases if not damaged.right(how, file, seed)]
        name = how.__name__.replace("_", " ")
        found = f"{len(cases) - len(wrong)} of {len(cases)}"
        lines.append(Line(name, "found, named, passed over, all", found, not wrong, wrong))
    return lines


SECTION = Section(
    "damage",
    "3. Corruption",
    """One file of a run with two checkpoints is damaged. The newest that is whole must be found, equal
in every number, and what is wrong with a newer one must name the file.""",
    measure,
)
