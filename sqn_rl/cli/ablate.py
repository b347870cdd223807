"""``sqn-ablate``: what each part of a recipe contributes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines
from sqn_rl.cli.terminal import many
from sqn_rl.disk import RECIPE_FILE
from sqn_rl.recipe.reading import is_there

if TYPE_CHECKING:
    from sqn_rl.analysis.grid import Job

DESCRIPTION = """Runs a recipe, and each alternative in the lists of values alone, with several seeds;
then compares them. The same command resumes one that was stopped, and runs nothing twice.

  sqn-ablate recipe=sqn head=linear,dueling replay=uniform,prioritized seeds=5 steps=20000
  sqn-ablate recipe=sqn_rainbow returns.n=1,3,5 env=acrobot seeds=10 out=runs/acrobot_n

With --launcher submitit each run is a job of Slurm, which resumes when it is requeued.

Runs go to <out>/<variant>/s<seed>, the report to <out>/comparison.md, .csv and .png. All else is as for
sqn-run; if eval_every is not set, each run is evaluated ten times."""

SEEDS = 5


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
    many.add_jobs(parser)
    many.add_launcher(parser)
    arguments = parser.parse_intermixed_args(argv)
    catalogue = catalogue_of(arguments)

    overrides, own, out = many.own_settings(arguments.overrides, {"seeds": SEEDS})
    many.require_jobs(arguments)

    from sqn_rl.analysis.grid import jobs_of, variants_of
    from sqn_rl.analysis.pool import run_jobs, start_process
    from sqn_rl.cli.terminal.screen import make_folder

    variants, seeds = variants_of(overrides, catalogue), own["seeds"]
    folder = make_folder(out or many.folder_of("ablations", variants[0].recipe), "out")
    jobs = jobs_of(variants, seeds, folder, catalogue)
    missing = [job for job in jobs if not job.is_done()]
    launcher, done = many.launcher_of(arguments, folder / "submitit"), len(jobs) - len(missing)
    at_a_time = many.at_a_time(arguments, variants[0].recipe)
    if launcher and not launcher.is_local:
        at_a_time = arguments.jobs or len(jobs)
    print_lines(f"{folder}: variants: {len(variants)}, seeds of each: {seeds}, at a time: {at_a_time}")
    print_lines(f"{done} of {len(jobs)} runs are done already")
    many.preflight_all([each.recipe for each in variants if any(job.variant is each for job in missing)])
    progress, queue = _Progress(len(jobs), done), iter(missing)
    stopped = run_jobs(
        lambda: next(queue, None),
        at_a_time,
        many.options_of(arguments),
        progress.ended,
        waits=many.say_waiting,
        start=launcher or start_process,
    )
    if stopped:
        print_lines(f"stopped by {stopped}; the same command resumes")
        return Exit.STOPPED
    _report(jobs, folder)
    return progress.code


class _Progress:
    """Prints how each run ended, and keeps the exit code of the first that failed.

    Args:
        jobs: the number of runs.
        done: the number of runs that are done already.
    """

    def __init__(self, jobs: int, done: int) -> None:
        self.jobs, self.done, self.code = jobs, done, int(Exit.DONE)

    def ended(self, job: "Job", code: int) -> None:
        self.done += 1
        failure, code = many.failure_of(job, code)
        self.code = self.code or code
        result = failure or f"final {job.summary['evaluation']['mean']:.1f}"
        print_lines(f"{self.done}/{self.jobs}  {job.variant.name}  {job.out.name}  {result}")


def _report(jobs: Sequence["Job"], folder: Path) -> None:
    """Compare the variants with the base, print the comparison, and write it."""
    from sqn_rl.analysis.comparison import compare
    from sqn_rl.analysis.finished import read_runs
    from sqn_rl.analysis.grid import BASE
    from sqn_rl.cli.terminal.screen import show_comparison, write_comparison

    runs, left_out = read_runs(job.out for job in jobs if is_there(job.out / RECIPE_FILE))
    base = {str(job.out) for job in jobs if job.variant.name == BASE}
    comparison = compare(runs, left_out, next((run for run in runs if run.resolved.name in base), None))
    show_comparison(comparison)
    write_comparison(comparison, folder)


if __name__ == "__main__":
    raise SystemExit(main())
