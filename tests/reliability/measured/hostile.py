"""Nothing runs from data: the hostile corpus, and what the sources may say."""

from pathlib import Path

from reliability.score import Line, Section, tests_line

FILE = "tests/reliability/test_hostile.py"


def measure(folder: Path) -> list[Line]:
    """A line for the sources, one for each kind of data."""
    parts = {
        "sources that import or call what unpickles or runs what it reads: none": ("nothing_of_ours", 100),
        "resuming a run unpickles nothing": ("unpickled", 1),
        "hostile checkpoints: refused, or read without an effect": (
            "manifest or links or pipe or another_format",
            280,
        ),
        "hostile recipes: refused without an effect": ("saved_recipe", 170),
    }
    return [tests_line(folder, what, least, FILE, "-k", name) for what, (name, least) in parts.items()]


SECTION = Section(
    "hostile",
    "4. Nothing runs from data",
    """Manifests forged with valid hashes, paths that lead out, links, pipes, bombs, tags and
interpolations of YAML, and `_target_`s of functions that do harm, in every kind of slot. An audit hook
looks on: no program is started, nothing is unpickled, no connection is made; and no file beside appears
or changes.""",
    measure,
)
