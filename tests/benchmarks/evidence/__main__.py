"""The evidence: ``python -m tests.benchmarks.evidence PHASE``, from the root of a checkout.

    python -m tests.benchmarks.evidence tune          # every agent at every point of the grid
    python -m tests.benchmarks.evidence additions     # every addition to sqn_tb
    python -m tests.benchmarks.evidence weak          # what was weak in trials, and what may explain it
    python -m tests.benchmarks.evidence report        # every agent, frozen, with the report seeds
    python -m tests.benchmarks.evidence page          # writes docs/results/evidence.md

Each finished run adds a row to ``docs/results/raw/evidence_<phase>.jsonl`` and is not run again; SIGTERM
stops with checkpoints, and the same command resumes. Two runs at a time, one thread each, at low priority.
"""

import argparse
from pathlib import Path

from .page import write
from .plan import FAMILIES, PHASES
from .runs import run


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=[*PHASES, "page"])
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this one")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="where runs are meanwhile")
    arguments = parser.parse_args()
    if arguments.phase == "page":
        write()
        return
    jobs = PHASES[arguments.phase](arguments.family or [*FAMILIES])
    if not run(jobs, arguments.runs.resolve(), arguments.jobs):
        raise SystemExit(3)


if __name__ == "__main__":
    main()
