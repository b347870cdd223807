"""An experiment: a composed recipe that can be checked and trained."""

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch

from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import EnvError, NumericsError, RecipeError, SettingError, StorageError, as_path, to_type
from sqn_rl.parts.collect.base import Engine
from sqn_rl.parts.encoder.mlp import MLP
from sqn_rl.parts.env.opening import close, closing_env
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.plots.progress import ProgressReporter
from sqn_rl.protocols import Described, submodule
from sqn_rl.recipe import resources
from sqn_rl.recipe.auto import Choice, bfloat16, compiling, precision_of
from sqn_rl.recipe.build import scheduled_slots
from sqn_rl.recipe.compose import Recipe, load_recipe
from sqn_rl.recipe.graph import Graph
from sqn_rl.recipe.preflight import preflight
from sqn_rl.recipe.provenance import override, read
from sqn_rl.recipe.resolved import flat
from sqn_rl.runs.building import Built, build_agent
from sqn_rl.runs.checkpoint import Checkpoint
from sqn_rl.runs.directory import RunDirectory, summary_of
from sqn_rl.runs.failing import explaining_write_errors, naming_checkpoint
from sqn_rl.runs.manifest import extended, require_resumable
from sqn_rl.runs.workers import running_engine
from sqn_rl.training.agent import AGENT_PARTS, Agent
from sqn_rl.training.collecting.learner import learn
from sqn_rl.training.evaluation import Evaluation, evaluate_in_new
from sqn_rl.training.events import Reporters
from sqn_rl.training.loop import train
from sqn_rl.training.numerics import bundle, flushed_denormals
from sqn_rl.training.stopping import StopRequest, interruptible
from sqn_rl.types import Counters


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
        """Build the agent and its environments, for a loop of your own, and set PyTorch's threads.

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
        shortage = graph.needs and resources.shortage(graph.needs, folder)
        if shortage or self.run.device != "cpu":
            gc.collect()  # frees what preflight built, and what an earlier run left if it ended by an error
            shortage = graph.needs and resources.shortage(graph.needs, folder)
        if shortage:
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
        working_directory = Path.cwd()  # an environment may change it
        automatic = resume is None and self.run.resume == "auto"
        given = self.run.out if automatic else resume
        if path := None if given is None else as_path("resume", given):
            self._require_same_recipe(path, except_for=() if automatic else ("steps",))
        extended_recipe = self._extended(path) if path else None
        if path and not extended_recipe and (summary := summary_of(path)).get("status") == "done":
            hint = f"{to_type('sqn-resume', path, 'steps=N')} extends it"
            Reporters(reporters).note(f"{path} is done already; {hint}")
            return summary | {"out": str(path)}
        Reporters(reporters).note(*self.preflight(path).notes)
        torch.set_num_threads(self.run.threads)
        with interruptible(should_stop) as stop:
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
            path = resume or self._directory(env.name, working_directory)
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
            with closing(directory), explaining_write_errors(directory):
                return self._train(parts, engine, directory, reporters, should_stop)

    def _train(
        self,
        parts: dict[str, Any],
        engine: Engine | None,
        directory: RunDirectory,
        reporters: Sequence[Reporter],
        should_stop: Callable[[], bool],
    ) -> dict[str, Any]:
        """Restore a checkpoint if there is one, train, and write the summary, whatever happens."""
        found = directory.restore()  # before a logger reads the remaining rows
        env, q_net = parts["env"], parts["q_net"]
        compiled, precision = compiling(self.run, q_net), precision_of(q_net)
        agent = Agent(**{name: parts[name] for name in AGENT_PARTS}, compiled=compiled.chosen)
        directory.made_with |= {"compiled": compiled.chosen, "precision": precision}
        directory.made_with |= {env.package: version(env.package)} if env.package else {}
        counters, loggers = Counters(), [parts["logger"](directory=directory.path), *reporters]
        all_reporters = Reporters([directory, *loggers])

        def finish(status: str) -> dict[str, Any]:
            facts = self._facts(env.name, directory) | {
                "precision": precision,
                "compiled": agent.runs_compiled,
            }
            summary = directory.finish(status, counters, facts)
            all_reporters.finished(summary)
            return summary

        with ExitStack() as stack:
            for each in loggers:
                stack.callback(each.close)
            all_reporters.note(*self._notes(parts, compiled, directory, found))
            try:
                with naming_checkpoint(found.path if found else directory.path):
                    self._learn(
                        agent,
                        parts,
                        engine,
                        evaluate=self._evaluation(parts, should_stop),
                        reporters=[all_reporters],
                        should_stop=should_stop,
                        counters=counters,
                        state=found.state if found else None,
                    )
            except Exception as error:
                with suppress(OSError, StorageError):  # the disk may be full
                    if isinstance(error, NumericsError) and error.batch is not None:
                        directory.save_numerics(bundle(agent.loss, error.batch))
                    finish("numerics" if isinstance(error, NumericsError) else "error")
                raise
            is_done = directory.evaluated_at == counters.env_steps >= self.run.steps
            return finish("done" if is_done else "stopped")

    def _learn(self, agent: Agent, parts: dict[str, Any], engine: Engine | None, **options: Any) -> None:
        """Train in the environments of this process, or from actors that an engine runs."""
        env = parts["env"]
        if engine is None:
            train(agent, env, self.run, **options)
        else:
            close(env)  # every actor has its own
            learn(agent, env, self.run, parts["collect"], engine, **options)

    def _facts(self, env_name: str, directory: RunDirectory) -> dict[str, Any]:
        """The entries of a summary that do not depend on how the run ended."""
        return {
            "recipe": self.run.recipe,
            "title": self.recipe.title,
            "env": env_name,
            "seed": self.run.seed,
            "out": str(directory.shown),
        }

    def _evaluation(self, parts: dict[str, Any], should_stop: Callable[[], bool]) -> Callable[[], Evaluation]:
        """A function that evaluates the actor in environments of its own."""

        def evaluated() -> Evaluation:
            if not self.run.evaluates_between:
                close(parts["env"])  # perhaps no more instances can be open at a time
            try:
                return evaluate_in_new(
                    parts["actor"],
                    parts["make_env"],
                    episodes=self.run.eval_episodes,
                    greedy=True,
                    seed=self.run.seed,
                    max_steps=self.run.eval_max_steps,
                    should_stop=should_stop,
                )
            except RecipeError as error:
                name = parts["env"].name
                raise EnvError(name, f"cannot be opened for the evaluation: {error}") from error

        return evaluated

    def _notes(
        self, parts: dict[str, Any], compiled: Choice, directory: RunDirectory, found: Checkpoint | None
    ) -> Iterator[str]:
        """What the user should know when training begins."""
        yield from self._notes_of_speed(parts, compiled)
        if found:
            yield from directory.notes(found)
        if directory.is_extended:
            yield from self._notes_of_extension()
        env = parts["env"]
        if not env.restorable:
            yield f"{env.name} cannot save its state: a resumed run starts new episodes"

    def _notes_of_speed(self, parts: dict[str, Any], compiled: Choice) -> Iterator[str]:
        """Notes on what was chosen for speed, and why."""
        q_net, shape = parts["q_net"], parts["env"].observation_shape
        if isinstance(q_net, Described):
            image = parts["env"].image_note
            yield f"observation   {q_net.reads}{image and f'; outside {image}'}"
            has_image_entry = any(entry.is_image for entry in parts["env"].observation_entries)
            if (image or has_image_entry) and isinstance(submodule(q_net, "encoder"), MLP):
                other = "per_key" if has_image_entry else "cnn"
                yield f"encoder       mlp, which flattens images; encoder={other} reads them by convolutions"
        yield f"compile       {'yes' if compiled.chosen else 'no'}, {compiled.why}"
        why = bfloat16(self.run, shape, self.recipe.fields("encoder").get("hidden")).why
        yield f"precision     {precision_of(q_net)}, {why}"

    def _notes_of_extension(self) -> Iterator[str]:
        """The new budget, and each part whose schedule spans it."""
        yield f"the run is extended to {self.run.steps:,} steps"
        for slot in scheduled_slots(self.recipe.config, self.recipe.catalogue):
            yield f"the schedule of {slot} ({self.recipe.part(slot)}) now spans {self.run.steps:,} steps"

    def _extended(self, path: Path) -> str | None:
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
        others = dict(flat(saved.config))
        for key, value in flat(self.recipe.config):
            if key not in ("out", "resume", *except_for) and (other := others.get(key)) != value:
                message = f"the run in {path} has {other!r} ({saved.origin(key)})"
                extension = [f"steps={value}"] if key == "steps" and value > other else []
                command = to_type("sqn-resume", path, *extension)
                hint = f"resume it with {command}, or write to another directory: out=…"
                raise RecipeError(message, self.recipe.origin(key), hint, f"{key} = {value!r}")

    def _directory(self, env_name: str, working_directory: Path) -> Path:
        """The run directory: as the recipe says, or one with a new name below ``runs``."""
        if self.run.out:
            return Path(self.run.out)
        name = env_name.replace("/", "-")
        title = self.recipe.title.replace(" ", ",")
        run = Path("runs", title, name, f"{time.strftime('%Y%m%d-%H%M%S')}-s{self.run.seed}")
        others = (run.with_name(f"{run.name}-{number}") for number in count(2))
        return next(path for path in chain([run], others) if not (working_directory / path).exists())
