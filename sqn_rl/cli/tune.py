"""``sqn-tune``: the settings with which a recipe learns best."""

import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines
from sqn_rl.cli.terminal import many
from sqn_rl.errors import EnvError, RecipeError, to_install

if TYPE_CHECKING:
    from sqn_rl.analysis.grid import Job
    from sqn_rl.analysis.tuning import Trial, Tuning

DESCRIPTION = """Searches for the settings with which a recipe learns best, with Optuna (the extra `tune`).
The same command resumes a search that was stopped or killed, and runs nothing twice; with more trials, it
continues.

  sqn-tune recipe=sqn env=acrobot 'optimizer.lr=loguniform(1e-4,1e-2)' 'target_update.tau=choice(.005,.05)'
  sqn-tune 'head=choice(linear,dueling)' 'batch_size=logint(32,256)' trials=50 seeds=3 out=runs/search

Distributions: uniform(a,b) and loguniform(a,b) of numbers, int(a,b) and logint(a,b) of whole numbers, with a
and b included, and choice(a,b,…) of values or parts.

Objective: the mean return of all evaluations during training, over all seeds of a trial; if eval_every is not
set, each run is evaluated ten times. A trial is stopped early if it is behind the median of the others.

Trials go to <out>/trials/<number>, the page to <out>/tuning.html, the best recipe to <out>/best.yaml. Seeds
of trials begin at 1000: report the best recipe with others. All else is as for sqn-run."""

OWN = {"trials": 30, "seeds": 2}
PAGE, BEST = "tuning.html", "best.yaml"


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code; of trials that failed, that of the first.
    """
    parser = options("sqn-tune", DESCRIPTION)
    text = "as for sqn-run, with distributions; trials=N (30) and seeds=N (2)"
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=text)
    many.add_jobs(parser)
    arguments = parser.parse_intermixed_args(argv)
    catalogue = catalogue_of(arguments)
    if not find_spec("optuna"):
        raise RecipeError("sqn-tune needs Optuna", "", f"the extra `tune`: {to_install('tune')}")
    overrides, own, out = many.own_settings(arguments.overrides, OWN)
    many.require_jobs(arguments)

    from sqn_rl.analysis.space import corners, refuse_fractions, space_of, with_evaluations
    from sqn_rl.analysis.tuning import Tuning
    from sqn_rl.cli.terminal.screen import make_folder
    from sqn_rl.recipe.compose import compose_recipe
    from sqn_rl.recipe.eject.recipe_file import require_writable
    from sqn_rl.runs.status import locked

    fixed, space = space_of(overrides, catalogue)
    first, *others = [[*fixed, *corner] for corner in corners(space, catalogue)]
    checked = compose_recipe("sqn", *first, catalogue=catalogue)
    refuse_fractions(space, checked.config)
    rest = [compose_recipe("sqn", *corner, catalogue=catalogue) for corner in others]
    many.preflight_all([checked, *rest])
    recipe = with_evaluations(fixed, space, catalogue)[1]
    require_writable(recipe)
    folder = make_folder(out or many.folder_of("tuning", recipe), "out")
    with locked(folder):
        progress = _Progress(own["trials"])
        tuning = Tuning(fixed, space, own["trials"], own["seeds"], folder, catalogue, progress.ended)
        at_a_time = many.at_a_time(arguments, recipe)
        stopped = _run_trials(tuning, progress, at_a_time, many.options_of(arguments))
        if tuning.done:
            _report(tuning, fixed, folder)
    if stopped:
        print_lines(f"stopped by {stopped}; the same command resumes")
        return Exit.STOPPED
    if not tuning.done:
        raise EnvError("sqn-tune", "no trial is done")
    return progress.code


def _run_trials(
    tuning: "Tuning", progress: "_Progress", at_a_time: int, options: Sequence[str]
) -> str | None:
    """Run the remaining trials; return the name of the signal that stopped them, if one did."""
    from sqn_rl.analysis.pool import run_jobs, start_process

    tuning.begin()
    progress.begin(tuning, at_a_time)
    return run_jobs(
        tuning.next_job,
        at_a_time,
        options,
        progress.job_ended,
        waits=many.say_waiting,
        is_unwanted=tuning.is_unwanted,
        start=start_process,
    )


class _Progress:
    """Prints how each trial ended, and keeps the exit code of the first that failed.

    Args:
        trials: the number of trials.
    """

    def __init__(self, trials: int) -> None:
        self.trials, self.count, self.code = trials, 0, int(Exit.DONE)

    def begin(self, tuning: "Tuning", at_a_time: int) -> None:
        """Print how many trials there are, and how many have ended."""
        from sqn_rl.analysis.tuning import FAILED

        self.tuning, asked, self.trials = tuning, self.trials, tuning.count
        kept = [trial for trial in tuning.trials.values() if trial.status not in ("", FAILED)]
        self.count += len(kept)
        print_lines(
            f"{tuning.folder}: trials: {self.trials}, seeds of each: {tuning.seeds}, at a time: {at_a_time}"
        )
        if self.trials < asked:
            print_lines(f"note: there are no more than {self.trials} different settings")
        print_lines(f"{len(kept)} of {self.trials} trials have ended already")

    def ended(self, trial: "Trial") -> None:
        """Print how a trial ended."""
        from sqn_rl.analysis.tuning import FAILED
        from sqn_rl.analysis.tuning_page import ending

        self.count += 1
        if trial.status == FAILED:
            self.code = self.code or Exit.FAILED
        mean = f"  mean {trial.mean:.1f}" if trial.means else ""
        print_lines(
            f"{self.count}/{self.trials}  {trial.name}  {' '.join(trial.overrides)}{mean}  {ending(trial)}"
        )

    def job_ended(self, job: "Job", code: int) -> None:
        """Tell the search how a run ended."""
        failure, code = many.failure_of(job, code)
        if code not in (Exit.STOPPED, Exit.NUMERICS):
            self.code = self.code or code
        self.tuning.job_ended(job, code == Exit.STOPPED, failure)


def _report(tuning: "Tuning", fixed: Sequence[str], folder: Path) -> None:
    """Write the page and the best recipe, and print where they are."""
    from sqn_rl.analysis.tuning_page import to_html
    from sqn_rl.cli.terminal.screen import write_files
    from sqn_rl.recipe.compose import compose_recipe
    from sqn_rl.recipe.eject.recipe_file import to_template
    from sqn_rl.recipe.provenance import override

    best, file = tuning.done[0], (folder / BEST).as_posix()
    recipe = compose_recipe("sqn", *fixed, *best.overrides, catalogue=tuning.base.catalogue)
    run_command = f"sqn-run {shlex.quote(override('recipe', file))}"
    page = to_html(tuning, run_command)
    write_files({PAGE: page.encode(), BEST: to_template(recipe, file).encode()}, folder)
    print_lines(f"best: trial {best.name}, mean {best.mean:.1f}: {' '.join(best.overrides)}")
    print_lines(f"page    {folder / PAGE}", f"recipe  {file}: run it with `{run_command}`")


if __name__ == "__main__":
    raise SystemExit(main())
