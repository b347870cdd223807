"""An experiment: a composed recipe that can be checked and trained."""

import gc
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import chain, count
from pathlib import Path
from typing import Any

from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import RecipeError, SettingError, as_path, require, to_type
from sqn_rl.parts.env.opening import closing_env
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.plots.progress import ProgressReporter
from sqn_rl.recipe import resources
from sqn_rl.recipe.compose import Recipe, load_recipe
from sqn_rl.recipe.graph import Graph
from sqn_rl.recipe.preflight import preflight
from sqn_rl.recipe.provenance import override, read
from sqn_rl.recipe.resolved import flat
from sqn_rl.runs.building import Built, build_agent
from sqn_rl.runs.directory import RunDirectory
from sqn_rl.runs.manifest import extended, require_resumable
from sqn_rl.runs.status import summary_of
from sqn_rl.runs.training_run import TrainingRun
from sqn_rl.runs.workers import running_engine
from sqn_rl.training.events import Reporters
from sqn_rl.training.stopping import StopRequest, interruptible
from sqn_rl.training.torch_modes import flushed_denormals, torch_threads


class Experiment:
    """A recipe with every value resolved.

    Args:
        recipe: from :func:`~sqn_rl.recipe.compose.compose_recipe` or
            :func:`~sqn_rl.recipe.compose.load_recipe`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.run = recipe, recipe.run

    def __repr__(self) -> str:
        """The recipe, its swapped parts, and its budget."""
        env = " ".join(override(name, value) for name, value in self.recipe.fields("env").items())
        return f"<Experiment {self.recipe.title}: {env}, steps={self.run.steps}, seed={self.run.seed}>"

    def build(self, **parts: Callable[..., Any]) -> Built:
        """Build the agent and its environments for your own training loop, and set PyTorch's threads.

        ``agent, env, make_env = compose("sqn").build(head=MyHead)``

        Args:
            parts: by slot, what makes a part instead of the recipe's: a class, a function, or a ``partial``.
                It is given by name what it asks for: sizes, γ, seeds, and the parts before it.

        Raises:
            RecipeError: a part cannot be built.
        """
        return build_agent(self.recipe, parts)

    def preflight(self, folder: Path | None = None) -> Graph:
        """Check the wiring, and return it, with what a run needs.

        Args:
            folder: the run directory; by default as the recipe says.

        Raises:
            RecipeError: parts do not fit together, or the run does not fit into the memory or onto the disk.
        """
        folder = (folder or Path(self.run.out or "runs")).absolute()  # environments may change the cwd
        graph = preflight(self.recipe)
        gc.collect()  # frees what preflight built, and what an earlier run left if it ended by an error
        if shortage := graph.needs and resources.shortage(graph.needs, folder):
            raise RecipeError(shortage.message, self.recipe.origin(shortage.setting), shortage.hint)
        return graph

    @flushed_denormals()  # before preflight starts torch's threads, which inherit it
    def train(
        self,
        *,
        progress: bool = False,
        reporters: Sequence[Reporter] = (),
        should_stop: Callable[[], bool] = lambda: False,
        resume: str | Path | None = None,
    ) -> dict[str, Any]:
        """Preflight, train, evaluate, and write the run directory.

        Args:
            progress: show progress: a bar in a terminal, lines elsewhere.
            reporters: follow training, besides the run directory and the recipe's logger.
            should_stop: called once per loop; a stop writes a checkpoint.
            resume: a run directory to resume, or to create if it is empty; also used where the recipe
                says ``resume=auto`` and ``out``.

        Returns:
            The summary, as in ``summary.json``, and ``out``, the run directory. A run that is
            done already returns its summary.

        Raises:
            RecipeError: something in the recipe does not fit; nothing was written.
            CheckpointError: no checkpoint of the run is intact, or one that may be intact cannot be read.
            StorageError: the run could not be saved, or its directory was moved or replaced.
            NumericsError: a loss or a weight became NaN or infinite; the summary says so too.
            KeyboardInterrupt: Ctrl-C, after a clean stop with a checkpoint; the message says how to resume.
        """
        if progress:
            with ProgressReporter(self.run.steps) as bar:
                return self.train(reporters=[bar, *reporters], should_stop=should_stop, resume=resume)
        require(callable(should_stop), "should_stop", should_stop, "a function without arguments")
        working_directory = Path.cwd()  # an environment may change it
        is_automatic = resume is None and self.run.resume == "auto"
        given = self.run.out if is_automatic else resume
        path = None if given is None else as_path("resume", given)
        extended_recipe = None
        if path:
            self._require_same_recipe(path, except_for=() if is_automatic else ("steps",))
            extended_recipe = self._extended_recipe(path)
        if path and not extended_recipe and (summary := summary_of(path)).get("status") == "done":
            hint = f"{to_type('sqn-resume', path, 'steps=N')} extends it"
            Reporters(reporters).note(f"{path} is done already; {hint}")
            return summary | {"out": str(path)}
        Reporters(reporters).note(*self.preflight(path).notes)
        with torch_threads(self.run.threads), interruptible(should_stop) as stop:
            summary = self._run(reporters, stop, path, working_directory, extended_recipe)
        gc.collect()  # parts are in reference cycles: else the replay would outlive the run
        if stop is not should_stop and isinstance(stop, StopRequest) and stop.by:
            stopped = summary["status"] == "stopped"
            hint = f"; resume with {to_type('sqn-resume', summary['out'])}" if stopped else ""
            raise KeyboardInterrupt(f"{summary['status']} after {summary['env_steps']:,} steps{hint}")
        return summary

    def _run(
        self,
        reporters: Sequence[Reporter],
        should_stop: Callable[[], bool],
        resume: Path | None,
        working_directory: Path,
        extended_recipe: str | None,
    ) -> dict[str, Any]:
        """Build the parts, open the run directory, and train."""
        parts = self.recipe.build()
        with (
            closing_env(parts["env"]) as env,
            running_engine(parts["collect"], parts["replay"], self.recipe) as engine,
        ):
            path = resume or self._new_directory(env.name, working_directory)
            try:
                directory = RunDirectory(
                    working_directory / path,
                    extended_recipe or self.recipe.to_yaml(),
                    keep=self.run.checkpoint_keep,
                    resume=resume is not None,
                    replace=extended_recipe is not None,
                    shown=path,
                )
            except SettingError as error:
                raise error.located("out", self.recipe.origin) from error
            with closing(directory):
                return TrainingRun(self.recipe, parts, engine, directory, should_stop).train(reporters)

    def _extended_recipe(self, path: Path) -> str | None:
        """The ``recipe.yaml`` of the run in ``path`` with this budget, if that is larger; else None.

        Raises:
            RecipeError: the run has a larger budget.
        """
        if not os.path.lexists(path / RECIPE_FILE):
            return None
        document = read(path / RECIPE_FILE, str(path / RECIPE_FILE))
        before, steps = document.values.get("steps"), self.run.steps
        if before == steps or not isinstance(before, int):
            return None
        if before > steps:
            message = f"expected at least {before}, the budget that the run has"
            raise RecipeError(message, self.recipe.origin("steps"), "", f"steps = {steps}")
        return extended("".join(f"{line}\n" for line in document.text), steps)

    def _require_same_recipe(self, path: Path, except_for: Sequence[str]) -> None:
        """Raise :class:`RecipeError` if the run in ``path`` has another recipe, or refuse a model."""
        if not os.path.lexists(path / RECIPE_FILE):
            return
        require_resumable(path)
        saved = load_recipe(path / RECIPE_FILE, catalogue=self.recipe.catalogue)
        ours, theirs = dict(flat(self.recipe.config)), dict(flat(saved.config))
        for key in {**ours, **theirs}:
            value, other = ours.get(key), theirs.get(key)
            if value != other and key not in ("out", "resume", *except_for):
                has = f"{other!r} ({saved.origin(key)})" if key in theirs else "no such value"
                message = f"the run in {path} has {has}"
                extension = [f"steps={value}"] if key == "steps" and self.run.steps > saved.run.steps else []
                command = to_type("sqn-resume", path, *extension)
                hint = f"resume it with {command}, or write to another directory: out=…"
                ours_shown = f"{key} = {value!r}" if key in ours else f"{key} is not set"
                raise RecipeError(message, self.recipe.origin(key), hint, ours_shown)

    def _new_directory(self, env_name: str, working_directory: Path) -> Path:
        """The directory of a new run: as the recipe says, or one with a new name below ``runs``."""
        if self.run.out:
            return Path(self.run.out)
        name = env_name.replace("/", "-")
        title = self.recipe.title.replace(" ", ",")
        run = Path("runs", title, name, f"{time.strftime('%Y%m%d-%H%M%S')}-s{self.run.seed}")
        others = (run.with_name(f"{run.name}-{number}") for number in count(2))
        return next(path for path in chain([run], others) if not (working_directory / path).exists())
