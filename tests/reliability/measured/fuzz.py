"""Fuzzing: whole commands on files, folders and arguments that are not what they should be."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from reliability.fuzz import World, cases, faults
from reliability.score import Line, Section

CASES, SEED = 3300, 0


def measure(folder: Path) -> list[Line]:
    """A line for each kind of change, and for each command."""
    world, seen = World(folder), []
    for number, case in enumerate(cases(world, CASES, SEED), 1):
        outcome = world.run(case)
        seen.append((case, outcome.code, faults(case, outcome)))
        if seen[-1][2] or number % 100 == 0:
            print(number, *(seen[-1] if seen[-1][2] else ()), flush=True)
    world.clear()
    names = (dict.fromkeys(getattr(case, name) for case, *_ in seen) for name in ("command", "kind"))
    commands, kinds = names
    lines = [_line(f"changes: {name}", [each for each in seen if each[0].kind == name]) for name in kinds]
    for name in commands:
        line = _line(f"`{name}`", own := [each for each in seen if each[0].command == name])
        counts = {
            fault: sum(any(text in each for each in found) for *_, found in own)
            for fault, text in (
                ("effects", "an effect on"),
                ("tracebacks", "a traceback"),
                ("hangs", "a hang"),
            )
        }
        lines.append(replace(line, cases=len(own), faults=counts))
    return lines


def _line(what: str, seen: list[tuple[Any, ...]]) -> Line:
    wrong = [{**case._asdict(), "code": code, "faults": found} for case, code, found in seen if found]
    codes = Counter(str(code) for _, code, _ in seen)
    shown = ", ".join(f"{code} {count:,} times" for code, count in sorted(codes.items()))
    found = f"{len(seen) - len(wrong):,} of {len(seen):,}; exit code {shown}"
    return Line(what, "as above, all", found, not wrong, wrong)


SECTION = Section(
    "fuzz",
    "11. Fuzzing",
    """A file or folder that a command reads or writes is changed: its bytes, with and without a valid
signature in the manifest; its values and tensors, signed; what kind of file it is; its permissions. Or an
argument is. Each case is a whole command, in a process without special rights, on a fresh copy. Wanted are
exit code 0, 1, 2 or 4, and if it is not 0 one message that names what is wrong; no traceback, no hang, no
change but of what the command writes, no process left. First by what was changed, then by command.""",
    measure,
)
