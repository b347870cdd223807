"""Train in an open run directory: from its newest checkpoint, if there is one, to the summary."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqn_rl import disk
from sqn_rl.errors import CheckpointError, EnvError, NumericsError, RecipeError, StorageError, to_type
from sqn_rl.parts.collect.base import Engine
from sqn_rl.parts.encoder.mlp import MLP
from sqn_rl.parts.env.opening import close
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.protocols import Described, Stateful, submodule
from sqn_rl.recipe.auto import bfloat16, compiling, precision_of
from sqn_rl.recipe.build import scheduled_slots
from sqn_rl.recipe.compose import Recipe
from sqn_rl.runs import manifest
from sqn_rl.runs.checkpoint import Checkpoint
from sqn_rl.runs.directory import RunDirectory
from sqn_rl.training.agent import AGENT_PARTS, Agent
from sqn_rl.training.collecting.learner import learn
from sqn_rl.training.evaluation import Evaluation, evaluate_in_new
from sqn_rl.training.events import Reporters
from sqn_rl.training.loop import train
from sqn_rl.training.numerics import bundle
from sqn_rl.types import Counters


class TrainingRun:
    """A run whose parts are built and whose directory is open.

    Args:
        recipe: the recipe.
        parts: its parts, by slot.
        engine: runs the actors; None: the environments of this process are played.
        directory: the run directory.
        should_stop: called once per loop.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: dict[str, Any],
        engine: Engine | None,
        directory: RunDirectory,
        should_stop: Callable[[], bool],
    ) -> None:
        self._recipe, self._run, self._parts = recipe, recipe.run, parts
        self._engine, self._directory, self._should_stop = engine, directory, should_stop
        self._env, self._counters = parts["env"], Counters()
        self._compiling, self._precision = compiling(recipe.run, parts["q_net"]), precision_of(parts["q_net"])
        self._agent = Agent(**{name: parts[name] for name in AGENT_PARTS}, compiled=self._compiling.chosen)
        directory.made_with |= {"compiled": self._compiling.chosen, "precision": self._precision}
        if package := self._env.package:
            directory.made_with[package] = version(package)

    def train(self, reporters: Sequence[Reporter]) -> dict[str, Any]:
        """Restore a checkpoint if there is one, train, and write the summary, also after an error.

        Args:
            reporters: follow training, besides the run directory and the recipe's logger.

        Returns:
            The summary.
        """
        with _explaining_write_errors(self._directory), ExitStack() as stack:
            checkpoint = self._directory.restore()
            loggers = [self._parts["logger"](directory=self._directory.path), *reporters]
            for each in loggers:
                stack.callback(each.close)
            reporter = Reporters([self._directory, *loggers])
            reporter.note(*self._notes(checkpoint))
            try:
                self._learn(checkpoint, reporter)
            except Exception as error:
                if checkpoint and not self._directory.begun:  # it was refused; the run stays as it is
                    raise
                with suppress(OSError, StorageError):  # the disk may be full
                    if isinstance(error, NumericsError) and error.batch is not None:
                        self._directory.save_numerics(bundle(self._agent.loss, error.batch))
                    self._finish("numerics" if isinstance(error, NumericsError) else "error", reporter)
                raise
            is_done = self._directory.evaluated_at == self._counters.env_steps >= self._run.steps
            summary = self._finish("done" if is_done else "stopped", reporter)
            reporter.require_working()
            return summary

    def _learn(self, checkpoint: Checkpoint | None, reporter: Reporter) -> None:
        """Train in the environments of this process, or from actors that the engine runs."""
        options: dict[str, Any] = {
            "evaluate": self._evaluate,
            "reporters": [reporter],
            "should_stop": self._should_stop,
            "counters": self._counters,
            "state": checkpoint.state if checkpoint else None,
        }
        with _naming_checkpoint(checkpoint.path if checkpoint else self._directory.path):
            if self._engine is None:
                train(self._agent, self._env, self._run, **options)
            else:
                close(self._env)  # every actor has its own
                learn(self._agent, self._env, self._run, self._parts["collect"], self._engine, **options)

    def _evaluate(self) -> Evaluation:
        """Evaluate the actor in environments of its own."""
        if not self._run.evaluates_between:
            close(self._env)  # perhaps no more instances can be open at a time
        try:
            return evaluate_in_new(
                self._parts["actor"],
                self._parts["make_env"],
                episodes=self._run.eval_episodes,
                greedy=True,
                seed=self._run.seed,
                max_steps=self._run.eval_max_steps,
                should_stop=self._should_stop,
            )
        except RecipeError as error:
            raise EnvError(self._env.name, f"cannot be opened for the evaluation: {error}") from error

    def _finish(self, status: str, reporter: Reporter) -> dict[str, Any]:
        """Write the summary, and report it."""
        facts = {
            "recipe": self._run.recipe,
            "title": self._recipe.title,
            "env": self._env.name,
            "seed": self._run.seed,
            "out": str(self._directory.shown),
            "precision": self._precision,
            "compiled": self._agent.runs_compiled,
        }
        summary = self._directory.finish(status, self._counters, facts)
        reporter.finished(summary)
        return summary

    # --- notes for the user, when training begins -----------------------------------------------------------

    def _notes(self, checkpoint: Checkpoint | None) -> Iterator[str]:
        yield from self._notes_on_speed()
        if checkpoint:
            yield from self._directory.notes(checkpoint)
        if self._directory.is_extended:
            yield from self._notes_on_extension()
        if not self._env.restorable:
            yield f"{self._env.name} cannot save its state: a resumed run starts new episodes"
        if not isinstance(self._agent.replay, Stateful):
            lacks = f"{type(self._agent.replay).__name__} has no state_dict and load_state_dict"
            yield f"replay: {lacks}, so this run cannot be resumed"

    def _notes_on_speed(self) -> Iterator[str]:
        """What was chosen for speed, and why."""
        q_net, env = self._parts["q_net"], self._env
        if isinstance(q_net, Described):
            image = env.image_note
            yield f"observation   {q_net.reads}{image and f'; outside {image}'}"
            has_image_entry = any(entry.is_image for entry in env.observation_entries)
            if (image or has_image_entry) and isinstance(submodule(q_net, "encoder"), MLP):
                other = "per_key" if has_image_entry else "cnn"
                yield f"encoder       mlp, which flattens images; encoder={other} reads them by convolutions"
        yield f"compile       {'yes' if self._compiling.chosen else 'no'}, {self._compiling.why}"
        hidden = self._recipe.fields("encoder").get("hidden")
        yield f"precision     {self._precision}, {bfloat16(self._run, env.observation_shape, hidden).why}"

    def _notes_on_extension(self) -> Iterator[str]:
        """The new budget, and each part whose schedule spans it."""
        recipe, steps = self._recipe, self._run.steps
        yield f"the run is extended to {steps:,} steps"
        for slot in scheduled_slots(recipe.config, recipe.catalogue):
            yield f"the schedule of {slot} ({recipe.part(slot)}) now spans {steps:,} steps"


@contextmanager
def _naming_checkpoint(path: Path) -> Iterator[None]:
    """Prefix the message of a :class:`CheckpointError` with the path of the checkpoint."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def _explaining_write_errors(directory: RunDirectory) -> Iterator[None]:
    """Turn errors of writing files into a :class:`StorageError` that says how to resume the run."""
    try:
        yield
    except OSError as error:
        directory.require_ours()  # a lost directory is the better explanation
        if error.errno not in disk.REFUSALS:
            raise
        saved = manifest.saved_in(directory.checkpoints.folder)
        state = "the checkpoints there are whole" if saved else "there is no checkpoint yet"
        hint = f"{state}; resume with {to_type('sqn-resume', directory.shown)}"
        path = str(error.filename or directory.path).replace(str(directory.path), str(directory.shown), 1)
        raise StorageError(f"{path}: cannot be written: {error.strerror}; {hint}") from error
