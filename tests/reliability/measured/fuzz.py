"""Fuzzing: whole commands on files, folders and arguments that are not what they should be."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from reliability.fuzz import World, cases, faults
from reliability.score import Line, Section

CASES, SEED = 3300, 0
WANTED = "exit code 0 to 4, a message that names it; no traceback, hang, effect or process left"


def measure(folder: Path) -> list[Line]:
    """A line for each command, one for each kind of change, and the total."""
    world, seen = World(folder), []
    for number, case in enumerate(cases(world, CASES, SEED), 1):
        outcome = world.run(case)
        seen.append((case, outcome.code, faults(case, outcome)))
        if seen[-1][2] or number % 100 == 0:
            print(number, *(seen[-1] if seen[-1][2] else ()), flush=True)
    world.clear()
    commands, kinds = (
        dict.fromkeys(getattr(case, name) for case, *_ in seen) for name in ("command", "kind")
    )
    lines = [_line(f"`{name}`", [each for each in seen if each[0].command == name]) for name in commands]
    lines += [_line(f"changes: {name}", [each for each in seen if each[0].kind == name]) for name in kinds]
    total = _line("all", seen)
    return [*lines, replace(total, wanted=f"at least 3,000; {WANTED}", met=total.met and len(seen) >= 3000)]


def _line(what: str, seen: list[tuple[Any, ...]]) -> Line:
    wrong = [{**case._asdict(), "code": code, "faults": found} for case, code, found in seen if found]
    codes = Counter(str(code) for _, code, _ in seen)
    shown = ", ".join(f"{count:,} × {code}" for code, count in sorted(codes.items()))
    found = f"{len(seen) - len(wrong):,} of {len(seen):,}; exit codes {shown}"
    return Line(what, WANTED, found, not wrong, wrong)


SECTION = Section(
    "fuzz",
    "11. Fuzzing",
    """A file or folder that a command reads or writes is changed: its bytes, with and without a valid
signature in the manifest; its values and tensors, signed; what kind of file it is; its permissions. Or an
argument is. Each case is a whole command, in a process without special rights, on a fresh copy.""",
    measure,
)
