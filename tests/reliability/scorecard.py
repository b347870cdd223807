"""The scorecard of reliability: measures, and writes ``docs/results/reliability.md``.

    python tests/reliability/scorecard.py               write the page, from earlier measurements
    python tests/reliability/scorecard.py kills disk    measure these again, and write the page
    python tests/reliability/scorecard.py all           measure everything, and write the page

A section is a function that takes an empty folder and returns lines; it is listed in ``SECTIONS``.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.test_mistakes import MISTAKES, refusal
from reliability.measured import actors, cost, damage, disk, fuzz, hostile, kills, loss, sharing, signals
from reliability.score import RAW, Line, Section, measure, page, tests_line

PAGE = RAW.parent / "reliability.md"


def numerics(folder: Path) -> list[Line]:
    """NaN and infinity stop a run."""
    return [
        tests_line(
            folder,
            "NaN and infinity where they arise, named and kept",
            10,
            "tests/cli/test_diagnose.py",
            "tests/oracles/test_agent.py",
            "-k",
            "not_finite or cause or cannot_read",
        )
    ]


def resources(folder: Path) -> list[Line]:
    """Predicted and used memory and disk."""
    script = Path(__file__).with_name("resources.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, env=environment, check=True)
    return foreseen([json.loads(line) for line in done.stdout.splitlines()])


def foreseen(runs: list[dict[str, Any]]) -> list[Line]:
    """The largest error of the predictions, by kind of run and by quantity."""
    lines = []
    for kind in dict.fromkeys(run["case"].partition(":")[2] for run in runs):
        alike = [run for run in runs if run["case"].partition(":")[2] == kind]
        for what in ("memory", "checkpoint"):
            off = {
                run["case"]: run[f"{what}_forecast"] / run[what] - 1 if what in run else 1 for run in alike
            }
            worst = max(off, key=lambda case: abs(off[case]))
            raw = [{name: run.get(name) for name in ("case", what, f"{what}_forecast")} for run in alike]
            met = abs(off[worst]) <= 0.15
            found = f"{off[worst]:+.1%} ({worst.partition(':')[0]})"
            of = f"{len(alike)} {'recipe' if len(alike) == 1 else 'recipes'} on {kind}"
            lines.append(Line(f"{what}, {of}: farthest off", "within 15 %", found, met, raw))
    return lines


def mistakes(folder: Path) -> list[Line]:
    """Mistakes in recipes and on the command line are reported before the first step."""
    refusal(MISTAKES[0])  # imports what it needs
    refused = [refusal(mistake) for mistake in MISTAKES]
    unnoticed = [str(each.mistake) for each in refused if not each.says_where]
    slowest = max(each.seconds for each in refused)
    typed = [each for each in refused if each.mistake.meant]
    missed = [str(each.mistake) for each in typed if not each.suggests]
    share = 1 - len(missed) / len(typed)
    count = len(refused)
    files = "mistakes in recipe files, found with their line"
    return [
        Line(
            "mistakes on the command line, found with where they are",
            "at least 200, all",
            f"{count - len(unnoticed)} of {count}",
            not unnoticed and count >= 200,
            unnoticed,
        ),
        Line("the slowest of them, beyond imports", "below 2 s", f"{slowest:.2f} s", slowest < 2),
        Line(
            "typing errors after which what was meant is suggested",
            "at least 95 %",
            f"{len(typed) - len(missed)} of {len(typed)}, {share:.1%}",
            share >= 0.95,
            missed,
        ),
        tests_line(folder, files, 10, "tests/recipes/test_mistakes.py", "-k", "in_a_file"),
    ]


SECTIONS = [
    kills.SECTION,
    kills.COMPILED_SECTION,
    actors.SECTION,
    disk.SECTION,
    cost.SECTION,
    damage.SECTION,
    hostile.SECTION,
    signals.SECTION,
    Section(
        "numerics",
        "6. Numerics",
        "NaN and infinity stop a run before the optimizer's step; the values are saved.",
        numerics,
    ),
    Section(
        "resources",
        "7. Resources",
        "Short runs of every recipe of that revision, with a replay that is full at the end: peak memory of\n"
        "the run and its environment processes, and bytes of the last checkpoint, compared with the\n"
        "predictions.",
        resources,
    ),
    Section(
        "mistakes",
        "8. Errors",
        "Typing errors in every name, and wrong values, made from one seed.",
        mistakes,
    ),
    sharing.SECTION,
    loss.SECTION,
    fuzz.SECTION,
]


def main() -> None:
    """Measure the sections given, and write the page."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="section", help=f"all, or of {', '.join(names)}")
    chosen = parser.parse_args().sections
    if unknown := {*chosen} - {*names, "all"}:
        parser.error(f"no section: {', '.join(unknown)}")
    for section in SECTIONS:
        if section.name in chosen or "all" in chosen:
            print(f"{section.title} …", flush=True)
            measure(section)
    PAGE.write_text(page(SECTIONS))


if __name__ == "__main__":
    main()
