"""Tuning: trials of settings, with several seeds each. Optuna proposes the next trial and stops the worst.

The objective is the mean return of all evaluations of a trial's runs. The whole state is in files: a trial is
``trials/<number>/trial.json`` and the runs beside it, so that a kill loses no more than it does in a run.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqn_rl.analysis.grid import Job, Variant, identifies_run, jobs_of
from sqn_rl.analysis.space import Tuned, shortest, with_evaluations
from sqn_rl.disk import EVALUATIONS_FILE, Folder
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.overrides import origin
from sqn_rl.recipe.reading import DataError, is_there, read_json
from sqn_rl.recipe.resolved import Sourced, differences, of_recipe

if TYPE_CHECKING:
    import optuna

STUDY_FILE, TRIAL_FILE, TRIALS = "study.json", "trial.json", "trials"

DONE, PRUNED, NUMERICS, FAILED = "done", "pruned", "numerics", "failed"
"""The ways in which a trial ends."""

KEPT = ("", DONE, PRUNED, NUMERICS)
"""The statuses in files: a trial that failed is saved as one that has not ended, and is tried again."""

FIRST_SEED = 1000
"""The first seed of the runs of a trial; other than the seeds of reports, which begin at 0."""

ATTEMPTS, UNPRUNED = 2000, 5
"""The most proposals for one trial; the number of trials that must be done before one is pruned."""


@dataclass
class Trial:
    """Settings that are tried, and their runs."""

    number: int
    values: Mapping[str, Any]
    """The tuned values, by key."""
    overrides: Sequence[str]
    status: str = ""
    """How it ended; empty if it has not."""
    means: dict[int, float] = field(default_factory=dict)
    """The mean return of the evaluations so far, by environment steps over all seeds."""
    why: str = ""
    """Why it failed."""
    jobs: Sequence[Job] = ()
    is_running: bool = False
    """Whether one of its runs is running."""
    is_unwanted: bool = False
    """Whether it is behind the others."""
    live: "optuna.Trial | None" = None
    """The trial in Optuna's study, until it ends."""
    reported: set[int] = field(default_factory=set)
    """The steps of those ``means`` that Optuna knows."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.number:04d}"

    @property
    def mean(self) -> float:
        """The mean return of all its evaluations; NaN if there is none."""
        return next(reversed(self.means.values()), math.nan)


class Tuning:
    """All trials: those that have been started, and those still to be run.

    Args:
        fixed: the overrides that all trials share.
        space: what is tuned.
        trials: the number of trials.
        seeds: the number of runs of a trial.
        folder: the folder of the study.
        catalogue: where the parts are.
        ended: called with each trial that ends.

    Raises:
        RecipeError: the recipe is invalid, or the folder has trials of another study.
        DataError: a file in it is damaged.
    """

    def __init__(
        self,
        fixed: Sequence[str],
        space: Sequence[Tuned],
        trials: int,
        seeds: int,
        folder: Path,
        catalogue: Catalogue,
        ended: Callable[[Trial], None],
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.count = int(min(trials, math.prod(each.size for each in space)))
        """The number of trials: no more than there are different settings."""
        self.space, self.seeds, self.folder = space, seeds, folder
        self._catalogue, self._ended, self._sizes = catalogue, ended, dict[Path, int]()
        self._fixed, self.base = with_evaluations(fixed, space, catalogue)
        steps = self.base.run.steps
        pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=steps // 3)
        self.study = optuna.create_study(direction="maximize", pruner=pruner)
        self._distributions = {each.key: each.distribution() for each in space}
        self.trials = {trial.number: trial for trial in self._read()}
        for trial in self.trials.values():
            self._enter(trial)

    @property
    def done(self) -> list[Trial]:
        """The trials that are done, the best first."""
        done = [trial for trial in self.trials.values() if trial.status == DONE]
        return sorted(done, key=lambda trial: -trial.mean)

    def begin(self) -> None:
        """Write the file of the study, unless it exists."""
        if not is_there(self.folder / STUDY_FILE):
            text = json.dumps({key: each.value for key, each in self._identity().items()}, indent=1)
            with Folder(self.folder) as folder:
                folder.write_atomic(STUDY_FILE, [text.encode(), b"\n"])

    # --- the trials as files -------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Sourced]:
        """The parts and values that identify a study."""
        base = of_recipe("", self.base).everything
        fixed = {key: each for key, each in base.items() if identifies_run(key)}
        tuned = {each.key: Sourced(str(each), origin(each.text)) for each in self.space}
        given = fixed | tuned | {"seeds": Sourced(self.seeds, origin(f"seeds={self.seeds}"))}
        return {key: Sourced(json.loads(json.dumps(each.value)), each.origin) for key, each in given.items()}

    def _read(self) -> Iterator[Trial]:
        """The trials in the folder."""
        path, folder = self.folder / STUDY_FILE, self.folder / TRIALS
        found = sorted(folder.iterdir()) if is_there(folder) else []
        if not is_there(path):
            if found:
                raise DataError(path, "there is none, but there are trials; choose another folder: out=…")
            return
        saved = {
            key: Sourced(shortest(value) if isinstance(value, str) else value, STUDY_FILE)
            for key, value in read_json(path).items()
        }
        if different := differences(saved, self._identity()):
            message = f"{self.folder}: contains another study: {different[0]}"
            raise RecipeError(message, "", "choose another folder: out=…")
        for each in found:
            if re.fullmatch(r"\d{4,9}", each.name) and is_there(each / TRIAL_FILE):
                yield self._trial(int(each.name), each / TRIAL_FILE)

    def _trial(self, number: int, path: Path) -> Trial:
        """Read the file of a trial."""
        content = read_json(path)
        values: Any = content.get("settings")
        means: Any = content.get("means")
        status = content.get("status")
        keys = [each.key for each in self.space]
        is_ours = isinstance(values, dict) and [*values] == keys and isinstance(means, dict)
        if not is_ours or not all(each.has(values[each.key]) for each in self.space) or status not in KEPT:
            raise DataError(path, "not a trial of this study; remove its folder to run another")
        try:
            numbers = {int(steps): float(mean) for steps, mean in means.items()}
        except (TypeError, ValueError) as error:
            raise DataError(path, f"`means` is damaged: {error}") from error
        if not all(map(math.isfinite, numbers.values())) or (status == DONE and not numbers):
            raise DataError(path, "`means` is damaged: a mean is missing, or is no number")
        return Trial(number, values, self._overrides(values), status, numbers)

    def _write(self, trial: Trial) -> None:
        content = {"settings": trial.values, "status": trial.status, "means": trial.means}
        with (
            Folder(self.folder) as folder,
            folder.folder(TRIALS) as trials,
            trials.folder(trial.name) as own,
        ):
            own.write_atomic(TRIAL_FILE, [json.dumps(content, indent=1).encode(), b"\n"])

    def _overrides(self, values: Mapping[str, Any]) -> list[str]:
        return [each.override(values[each.key]) for each in self.space]

    # --- the trials in Optuna's study ---------------------------------------------------------------------

    def _enter(self, trial: Trial) -> None:
        """Enter a trial that was read; one that has not ended continues."""
        from optuna.trial import TrialState, create_trial

        states = {DONE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, NUMERICS: TrialState.FAIL}
        if trial.status:
            entered = create_trial(
                state=states[trial.status],
                params=dict(trial.values),
                distributions=self._distributions,
                value=trial.mean if trial.status == DONE else None,
                intermediate_values=trial.means,
            )
            self.study.add_trial(entered)
        elif trial.number < self.count:
            self.study.enqueue_trial(dict(trial.values))
            self._open(trial, self.study.ask(self._distributions))

    def _ask(self, number: int) -> Trial | None:
        """Begin a new trial; None if there are no other settings."""
        if (proposed := self._propose(number)) is None:
            return None
        live, values = proposed
        trial = self.trials[number] = Trial(number, values, self._overrides(values))
        self._write(trial)
        self._open(trial, live)
        return trial

    def _propose(self, number: int) -> tuple["optuna.Trial", dict[str, Any]] | None:
        """Propose settings that no other trial has, as their runs would be the same; None: there are none."""
        from optuna.samplers import RandomSampler, TPESampler
        from optuna.trial import TrialState

        known = [trial.values for trial in self.trials.values()]
        self.study.sampler = TPESampler(seed=number)  # a resumed search must not repeat a sequence
        for _ in range(ATTEMPTS):
            live = self.study.ask(self._distributions)
            values = {each.key: live.params[each.key] for each in self.space}
            if values not in known:
                return live, values
            self.study.tell(live, state=TrialState.FAIL)
            self.study.sampler = RandomSampler(seed=len(self.study.trials))
        return None

    def _open(self, trial: Trial, live: "optuna.Trial") -> None:
        """Compose the runs of a trial; it fails if that is impossible."""
        trial.live = live
        overrides = [*self._fixed, *trial.overrides]
        try:
            variant = Variant(
                trial.name, overrides, compose_recipe("sqn", *overrides, catalogue=self._catalogue)
            )
            trial.jobs = jobs_of([variant], self.seeds, self.folder / TRIALS, self._catalogue, FIRST_SEED)
        except RecipeError as error:  # a combination of values that was not checked before
            trial.why = str(error).partition("\n")[0]
            self._end(trial, FAILED)

    def _end(self, trial: Trial, status: str) -> None:
        """End a trial: tell Optuna, write the file, and report it."""
        from optuna.trial import TrialState

        trial.status = status
        if trial.live:
            states = {DONE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}
            value = trial.mean if status == DONE else None
            self.study.tell(trial.live, value, states.get(status, TrialState.FAIL))
        if status != FAILED:
            self._write(trial)
        self._ended(trial)

    # --- the runs of the trials ----------------------------------------------------------------------------

    def next_job(self) -> Job | None:
        """The next run of a trial that has not ended, or the first of a new one; None if there is none."""
        for trial in [*self.trials.values()]:
            if trial.live and not (trial.is_running or trial.status) and (job := self._next_of(trial)):
                return job
        for number in range(self.count):
            if number in self.trials:
                continue
            if (new := self._ask(number)) is None:
                self.count = number
                return None
            if job := self._next_of(new):
                return job
        return None

    def _next_of(self, trial: Trial) -> Job | None:
        """The next run of a trial; if there is none, the trial ends."""
        if trial.status:
            return None
        job = next((job for job in trial.jobs if not job.is_done()), None)
        self._read_evaluations(trial)
        if job and not trial.is_unwanted:
            trial.is_running = True
            return job
        self._end(trial, PRUNED if job else DONE)
        return None

    def is_unwanted(self, job: Job) -> bool:
        """Whether a run's trial is behind the others, after new evaluations were read."""
        path, trial = job.out / EVALUATIONS_FILE, self._trial_of(job)
        try:
            size = path.stat().st_size
            if size != self._sizes.get(path):
                self._sizes[path] = size
                self._read_evaluations(trial)
        except (OSError, DataError):  # the file does not exist, or is being written
            pass
        return trial.is_unwanted

    def job_ended(self, job: Job, was_stopped: bool, failure: str) -> None:
        """Update a trial of which a run has ended.

        Args:
            job: the run.
            was_stopped: whether it was stopped before its end.
            failure: what went wrong; empty if nothing did.
        """
        trial = self._trial_of(job)
        trial.is_running = False
        if trial.is_unwanted and not job.is_done():
            self._end(trial, PRUNED)
        elif failure and not was_stopped:
            trial.why = failure
            self._end(trial, NUMERICS if job.summary.get("status") == NUMERICS else FAILED)
        elif not was_stopped and job is trial.jobs[-1]:
            self._next_of(trial)

    def _trial_of(self, job: Job) -> Trial:
        return self.trials[int(job.variant.name)]

    def _read_evaluations(self, trial: Trial) -> None:
        """Read a trial's evaluations, and report new ones to Optuna, which decides whether it is unwanted.

        Raises:
            DataError: a file of evaluations is damaged.
        """
        means, returns = dict[int, float](), list[float]()
        for number, job in enumerate(trial.jobs):
            for row in job.evaluations():
                try:
                    returns.append(float(row["mean"]))
                    steps = number * job.recipe.run.steps + int(row["env_steps"])
                except (KeyError, TypeError, ValueError) as error:
                    path = job.out / EVALUATIONS_FILE
                    raise DataError(path, f"is damaged ({type(error).__name__}: {error})") from error
                means[steps] = sum(returns) / len(returns)
        trial.means = means
        for steps, mean in means.items():
            if trial.live and steps not in trial.reported:
                trial.reported.add(steps)
                trial.live.report(mean, steps)
                trial.is_unwanted = trial.live.should_prune() or trial.is_unwanted
