"""The scorecard: measured lines, kept as JSON, and the page made from them."""

import json
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import torch

ROOT = Path(__file__).resolve().parents[2]
RAW = ROOT / "docs" / "results" / "raw"

HEAD = """# Reliability

This page measures two promises. A killed run resumes exactly from its last checkpoint, on the
[conditions](../walkthroughs/stop_and_resume.md#what-exact-resume-needs) of exact resume: an environment that
repeats itself, the same versions, processor and threads, an untouched run directory. Loading a run or a
recipe executes only parts of sqn_rl, optimizers of `torch.optim`, modules that you trust, and environments.
Each table has the requirement, the result, and the command that measures it again. `python
tests/reliability/scorecard.py all` measures everything and writes this page; the raw numbers are
`reliability_*.json` in `docs/results/raw`.

**{met} of {all} lines are met.** In all:

| what | wanted | found | met |
|---|---|---|---|
{totals}
"""

COUNTED = {
    "kills": (("kills", "compiled"), 1_000),
    "kills of compiled runs": (("compiled",), 300),
    "hostile inputs": (("hostile",), 300),
    "fuzz cases": (("fuzz",), 3_000),
}
"""Totals: the sections whose cases they sum, and how many there must be."""

FAULTS = ("effects", "tracebacks", "hangs")
"""The outcomes that no case may have."""

TABLE = """## {title}

{how}

    {command}

| what | wanted | found | met |
|---|---|---|---|
{rows}

{when}, revision `{revision}`, {seconds:,} s, of a processor {processor}: {machine}.
"""

ROW = "| {what} | {wanted} | {found} | {yes} |"


@dataclass(frozen=True)
class Line:
    """One measured result."""

    what: str
    wanted: str
    found: str
    met: bool
    raw: Any = None
    """The numbers behind ``found``."""
    cases: int = 0
    """The number of cases, for the page's totals; 0 unless they are kills, hostile inputs or fuzz cases."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """How many of the cases ended in each of :data:`FAULTS`."""


@dataclass(frozen=True)
class Section:
    """One property, and how it is measured."""

    name: str
    """The name on the command line, and of its raw file."""
    title: str
    how: str
    """Sentences for the page."""
    measure: Callable[[Path], list[Line]]
    """Gets an empty folder to work in."""


def measure(section: Section) -> None:
    """Measure a section, and save the result with revision and machine."""
    began, processor_began = time.time(), _processor_seconds()
    with TemporaryDirectory() as folder:
        lines = section.measure(Path(folder))
    found = {
        "command": f"python tests/reliability/scorecard.py {section.name}",
        "when": time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(began)),
        "seconds": round(time.time() - began),
        "processor_seconds": round(_processor_seconds() - processor_began),
        "revision": _git("rev-parse", "--short", "HEAD")
        + ("+changes" if _git("diff", "HEAD", "--stat", "sqn_rl") else ""),
        "machine": f"{_processor()}, Python {platform.python_version()}, torch {torch.__version__}",
        "lines": [asdict(line) for line in lines],
    }
    _raw(section).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def page(sections: Sequence[Section]) -> str:
    """The page, from all measured sections."""
    measured = {
        section: json.loads(_raw(section).read_text()) for section in sections if _raw(section).exists()
    }
    totals = [asdict(line) for line in sums({each.name: found["lines"] for each, found in measured.items()})]
    lines = totals + [line for found in measured.values() for line in found["lines"]]
    met = sum(line["met"] for line in lines)
    tables = [_table(section, found) for section, found in measured.items()]
    return "\n".join([HEAD.format(met=met, all=len(lines), totals=_rows(totals)), *tables])


def sums(sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Line]:
    """The number of cases of each kind, and of each fault."""
    totals = []
    for what, (names, least) in COUNTED.items():
        cases = sum(line.get("cases", 0) for name in names for line in sections.get(name, ()))
        totals.append(Line(what, f"at least {least:,}", f"{cases:,}", cases >= least))
    for fault in FAULTS:
        count = sum(line.get("faults", {}).get(fault, 0) for lines in sections.values() for line in lines)
        totals.append(Line(fault, "0", f"{count:,}", not count))
    return totals


def _rows(lines: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(ROW.format(**line, yes="yes" if line["met"] else "**no**") for line in lines)


def _table(section: Section, found: dict[str, Any]) -> str:
    used = found["processor_seconds"]
    processor = "not kept" if used is None else f"{used:,} s"
    return TABLE.format(
        processor=processor, title=section.title, how=section.how, rows=_rows(found["lines"]), **found
    )


def passed(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run some of the tests.

    Args:
        folder: where to write.
        arguments: pytest's.

    Returns:
        The number of cases that passed, as the tests report it (``record_property("cases", …)``) or else one
        per test; and the names of the tests that did not pass.
    """
    report = folder / "report.xml"
    report.unlink(missing_ok=True)  # that of other tests, which would be read if these cannot start
    options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1", f"--junitxml={report}"]
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    count, failed = 0, []
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(case.attrib["name"])
        elif case.find("skipped") is None:
            cases = case.find("properties/property[@name='cases']")
            count += 1 if cases is None else int(cases.attrib["value"])
    return count, failed


def tests_line(
    folder: Path,
    what: str,
    least: int,
    *arguments: str,
    fault: str = "",  # noqa: PT028  # which is no test
) -> Line:
    """A line with the number of passed cases of some tests.

    Args:
        folder: where to write.
        what: the name of the line.
        least: the required number of cases.
        arguments: pytest's.
        fault: the one of :data:`FAULTS` that a failed test counts as, if its cases belong to a total.
    """
    count, failed = passed(folder, *arguments)
    met = not failed and count >= least
    found = f"{count:,} cases, {len(failed)} failed"
    counted = (count + len(failed), {fault: len(failed)}) if fault else (0, {})
    return Line(what, f"at least {least:,} cases, none failed", found, met, failed, *counted)


def _raw(section: Section) -> Path:
    return RAW / f"reliability_{section.name}.json"


def _processor_seconds() -> float:
    """Processor time of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
