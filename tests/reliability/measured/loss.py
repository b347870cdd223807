"""Files that must not change: targets of links, unreadable files, directories of other runs."""

from pathlib import Path

from reliability.score import Line, Section, tests_line

LINES = {
    "links at names that commands write: what they lead to stays as it is": (
        24,
        "tests/reliability/test_links.py",
        "not hard_links",
    ),
    "`cp -al` copies stay as they are when the original goes on": (
        1,
        "tests/reliability/test_links.py",
        "hard_links",
    ),
    "unreadable, of a newer version, gone or not mounted: `sqn-resume` stops, every byte as before": (
        4,
        "tests/cli/test_resume.py",
        "unreadable_or_missing",
    ),
    "directory removed, replaced, or its lock taken under `sqn-resume`: it stops, every byte as before": (
        4,
        "tests/cli/test_resume.py",
        "loses_its_directory",
    ),
    "games whose episodes depend on how many came before: noticed when they are played again": (
        15,
        "tests/parts/test_env_restoring.py",
        "came_before",
    ),
    "`sqn-ablate` killed, its runs signalled twice, or ended with 0: checkpoints, or a named failure": (
        4,
        "tests/cli/test_ablate.py",
        "signal_stops or runs_end or waited_for or exits_with",
    ),
}


def measure(folder: Path) -> list[Line]:
    """A line for each kind of loss, through whole commands."""
    return [
        tests_line(folder, what, least, file, "-k", names) for what, (least, file, names) in LINES.items()
    ]


SECTION = Section(
    "loss",
    "10. What is left alone",
    """Whatever is not surely damaged or surely a run's own stays as it is, and what cannot go on exactly
says so.""",
    measure,
)
