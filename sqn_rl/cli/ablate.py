"""``sqn-ablate``: what each part of a recipe contributes."""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines
from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import require
from sqn_rl.parts import machine
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.reading import is_there
from sqn_rl.training.plan import convert

if TYPE_CHECKING:
    from sqn_rl.analysis.grid import Job

DESCRIPTION = """Runs a recipe, and each alternative in the lists of values alone, with several seeds;
then compares them. The same command resumes one that was stopped, and runs nothing twice.

  sqn-ablate recipe=sqn head=linear,dueling replay=uniform,prioritized seeds=5 steps=20000
  sqn-ablate recipe=sqn_rainbow returns.n=1,3,5 env=acrobot seeds=10 out=runs/acrobot_n

Runs go to <out>/<variant>/s<seed>, the report to <out>/comparison.md, .csv and .png. All else is as for
sqn-run; if eval_every is not set, each run is evaluated ten times."""

SEEDS = 5
WHOLE = "a whole number, at least 1"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code; of runs that failed, that of the first.
    """
    parser = options("sqn-ablate", DESCRIPTION)
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="as for sqn-run, and seeds=N (5)")
    parser.add_argument("--jobs", type=int, help="runs at a time; one a processor, if not given")
    arguments = parser.parse_intermixed_args(argv)
    catalogue = catalogue_of(arguments)

    overrides, seeds, out = _own(arguments.overrides)
    here = os.getcwd()
    require(arguments.jobs is None or arguments.jobs >= 1, "jobs", arguments.jobs, WHOLE)

    from sqn_rl.analysis.grid import jobs_of, variants_of
    from sqn_rl.analysis.pool import run_jobs
    from sqn_rl.cli.terminal.screen import make
    from sqn_rl.recipe.preflight import preflight

    variants = variants_of(overrides, catalogue)
    folder = make(out or _folder(variants[0].recipe), "out")
    jobs = jobs_of(variants, seeds, folder, catalogue)
    missing = [job for job in jobs if not job.is_done()]
    at_a_time = arguments.jobs or max(1, machine.processors() // variants[0].recipe.run.threads)
    there = len(jobs) - len(missing)
    print_lines(f"{folder}: {len(variants)} variants x {seeds} seeds, {at_a_time} at a time")
    print_lines(f"{there} of {len(jobs)} runs are done already")
    for variant in variants:
        if any(job.variant is variant for job in missing):
            preflight(variant.recipe)
    os.chdir(here)  # an environment may have changed it
    progress = _Progress(len(jobs), there)
    stopped = run_jobs(missing, at_a_time, _passed_on(arguments), progress.ended, progress.waits)
    if stopped:
        print_lines(f"stopped by {stopped}; the same command resumes")
        return Exit.STOPPED
    _report(jobs, folder)
    return progress.code


def _own(overrides: Sequence[str]) -> tuple[list[str], int, Path | None]:
    """The overrides for ``sqn-run``, and the values of ``seeds=`` and ``out=``."""
    from sqn_rl.recipe.overrides import parse

    own: dict[str, Any] = {"seeds": SEEDS, "out": None}
    expected = {"seeds": WHOLE, "out": "a folder"}
    others = [text for text in overrides if text.partition("=")[0] not in own]
    for given in parse([text for text in overrides if text not in others]):
        name, _, text = given.text.partition("=")
        require(not given.sweeps, name, text, expected[name])
        own[name] = given.value
    seeds, out = convert(own["seeds"], int), own["out"]
    require(isinstance(seeds, int) and 1 <= seeds < 10**6, "seeds", own["seeds"], expected["seeds"])
    require(out is None or (isinstance(out, str) and bool(out)), "out", out, expected["out"])
    return others, seeds, Path(out) if out else None


def _folder(recipe: Recipe) -> Path:
    env = recipe.fields("env")
    name = str(env.get("game") or env.get("id") or recipe.part("env"))
    return Path("runs", "ablations", recipe.run.recipe, name.replace("/", "-"))


def _passed_on(arguments: Namespace) -> list[str]:
    trees = (word for folder in arguments.config_dir for word in ("--config-dir", folder))
    modules = (word for module in arguments.trust for word in ("--trust", module))
    return [*trees, *modules]


class _Progress:
    """Prints how each run ended, and keeps the exit code of the first that failed.

    Args:
        jobs: how many runs there are to be.
        done: how many there are already.
    """

    def __init__(self, jobs: int, done: int) -> None:
        self.jobs, self.done, self.code = jobs, done, int(Exit.DONE)

    def ended(self, job: "Job", code: int) -> None:
        from sqn_rl.runs.directory import summary_of

        self.done += 1
        summary = summary_of(job.out)
        if code == Exit.DONE and summary.get("status") == "done":
            what = f"final {summary['evaluation']['mean']:.1f}"
        elif code == Exit.DONE:
            self.code = self.code or Exit.FAILED
            what = f"exit code 0, but no summary.json says done: its process was ended ({job.log})"
        else:
            self.code = self.code or (code if code > 0 else Exit.FAILED)
            log = job.log.read_text(encoding="utf-8", errors="replace")
            what = f"exit code {code}: {''.join(log.splitlines()[-1:])} ({job.log})"
        print_lines(f"{self.done}/{self.jobs}  {job.variant.name}  {job.out.name}  {what}")

    def waits(self, job: "Job") -> None:
        """Print that another process is writing to this run."""
        print(f"{job.out}: waiting for another process that is writing to this run", flush=True)


def _report(jobs: Sequence["Job"], folder: Path) -> None:
    from sqn_rl.analysis.comparison import compare
    from sqn_rl.analysis.finished import read_runs
    from sqn_rl.analysis.grid import BASE
    from sqn_rl.cli.terminal.screen import show, write

    runs, left_out = read_runs(job.out for job in jobs if is_there(job.out / RECIPE_FILE))
    base = {str(job.out) for job in jobs if job.variant.name == BASE}
    comparison = compare(runs, left_out, next((run for run in runs if run.resolved.name in base), None))
    show(comparison)
    write(comparison, folder)


if __name__ == "__main__":
    raise SystemExit(main())
