"""Data executes nothing: the hostile inputs, and a static check of the sources."""

from pathlib import Path

from reliability.score import Line, Section, tests_line

FILE = "tests/reliability/test_hostile.py"
OTHERS = {
    "classes and functions below sqn_rl, torchrl, tensordict.nn, torch.nn, torch.optim: built if a part": (
        "tests/reliability/test_trust.py",
        10_000,
        "",
    ),
    "YAML and JSON that is deep, large or odd, pipes and devices: refused within a minute": (
        "tests/recipes/test_reading.py",
        90,
        "hangs",
    ),
    "commands that print what acts on a terminal: escaped": ("tests/cli/test_terminal.py", 25, "effects"),
}


def measure(folder: Path) -> list[Line]:
    """A line for the sources, one for each kind of data."""
    parts = {
        "sources that import or call what unpickles or runs what it reads: none": (
            "no_module",
            100,
            "",
        ),
        "resuming a run unpickles nothing": ("unpickled", 1, "effects"),
        "hostile checkpoints: refused, or read without an effect": (
            "manifest or links or pipe or another_format",
            280,
            "effects",
        ),
        "hostile recipes: refused without an effect": ("saved_recipe", 170, "effects"),
    }
    lines = [
        tests_line(folder, what, least, FILE, "-k", name, fault=fault)
        for what, (name, least, fault) in parts.items()
    ]
    others = OTHERS.items()
    return lines + [
        tests_line(folder, what, least, file, fault=fault) for what, (file, least, fault) in others
    ]


SECTION = Section(
    "hostile",
    "4. Nothing runs from data",
    """Manifests forged with valid hashes, paths that lead out, links, pipes, bombs, tags and
interpolations of YAML, and `_target_`s of functions that do harm, in every kind of slot. An audit hook
looks on: no program is started, nothing is unpickled, no connection is made; and no file beside appears
or changes. What may be imported, how much is read, and what reaches the terminal.""",
    measure,
)
