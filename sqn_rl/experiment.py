"""An experiment: a composed recipe that can be checked, trained and evaluated."""

import time
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch

from sqn_rl import speed
from sqn_rl.agent import AGENT_PARTS, Agent
from sqn_rl.catalogue import Catalogue
from sqn_rl.checkpoint import last_weights, load_weights
from sqn_rl.errors import NumericsError, RecipeError, SettingError
from sqn_rl.evaluation import Evaluation, evaluate
from sqn_rl.graph import Graph
from sqn_rl.preflight import preflight
from sqn_rl.recipe import Recipe, compose_recipe
from sqn_rl.run_directory import RunDirectory
from sqn_rl.training import Counters, Plan, Reporter, flushed_denormals, train

EVALUATION_SEED = 1_000_000
"""Added to a run's seed for the games of its evaluations, which are none of its training games."""


class Experiment:
    """A recipe with every value settled.

    Args:
        recipe: as :func:`sqn_rl.recipe.compose_recipe` or :func:`sqn_rl.recipe.load_recipe` gives it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.run = recipe, recipe.run

    def preflight(self) -> Graph:
        """Check the wiring, and return it.

        Raises:
            RecipeError: something does not fit.
        """
        return preflight(self.recipe)

    @flushed_denormals()  # before preflight starts torch's threads, which inherit it
    def train(
        self, *, reporters: Sequence[Reporter] = (), should_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Preflight, train, evaluate, and write the run directory.

        Args:
            reporters: are told what happens, besides the run directory and the recipe's logger.
            should_stop: asked once a loop; a stop writes a checkpoint.

        Returns:
            The summary, as in ``summary.json``, and ``out``, the run directory.

        Raises:
            RecipeError: something in the recipe does not fit; nothing was written.
            NumericsError: a loss became NaN or infinite; the summary says so too.
        """
        self.preflight()
        torch.set_num_threads(self.run.threads)
        parts = self.recipe.build()
        env, compiled = parts["env"], speed.compiling(self.run)
        agent = Agent(**{name: parts[name] for name in AGENT_PARTS}, compiled=compiled.chosen)
        try:
            directory = RunDirectory(self._directory(env.name), self.recipe.to_yaml())
        except SettingError as error:
            raise RecipeError(str(error), self.recipe.origin("out")) from error
        everybody = [directory, parts["logger"](directory=directory.path), *reporters]
        facts = {
            "recipe": self.run.recipe,
            "env": env.name,
            "seed": self.run.seed,
            "out": str(directory.path),
            "compiled": compiled.chosen,
            "precision": parts["q_net"].precision,
        }
        halves = speed.brain_floats(self.run, env.observation_shape)
        for reporter in everybody:
            reporter.note(f"compile       {'yes' if compiled.chosen else 'no'}, {compiled.why}")
            reporter.note(f"precision     {parts['q_net'].precision}, {halves.why}")
        counters, status = Counters(), "error"
        try:
            train(
                agent,
                env,
                Plan(**{name: getattr(self.run, name) for name in Plan.__dataclass_fields__}),
                evaluate=lambda: self._play(parts, self.run.eval_episodes, greedy=True, seed=self.run.seed),
                reporters=everybody,
                should_stop=should_stop,
                counters=counters,
            )
            status = "done" if counters.env_steps >= self.run.steps else "stopped"
        except NumericsError:
            status = "numerics"
            raise
        finally:
            for reporter in everybody:
                reporter.close()
            env.close()
            summary = directory.finish(status, counters, facts)
        return summary

    def evaluate(
        self, checkpoints: Path, *, episodes: int, greedy: bool, seed: int
    ) -> tuple[Evaluation, int]:
        """Play games with the newest weights in ``checkpoints``.

        Returns:
            The evaluation, and the environment steps that the weights had seen.

        Raises:
            CheckpointError: there are no weights, or they are of another agent.
        """
        torch.set_num_threads(self.run.threads)
        parts = self.recipe.build()
        env_steps = load_weights(last_weights(checkpoints), parts["loss"])
        if hasattr(parts["actor"], "anneal"):
            parts["actor"].anneal(env_steps)
        return self._play(parts, episodes, greedy=greedy, seed=seed), env_steps

    def _play(self, parts: dict[str, Any], episodes: int, *, greedy: bool, seed: int) -> Evaluation:
        env = parts["make_env"](num_envs=min(episodes, 10), seed=EVALUATION_SEED + seed, training=False)
        try:
            return evaluate(parts["actor"], env, episodes=episodes, greedy=greedy, seed=seed)
        finally:
            env.close()

    def _directory(self, env_name: str) -> Path:
        if self.run.out:
            return Path(self.run.out)
        name = env_name.replace("/", "-")
        run = Path("runs", self.run.recipe, name, f"{time.strftime('%Y%m%d-%H%M%S')}-s{self.run.seed}")
        others = (run.with_name(f"{run.name}-{number}") for number in count(2))
        return next(path for path in chain([run], others) if not path.exists())


def compose(recipe: str = "sqn", *overrides: str, catalogue: Catalogue | None = None) -> Experiment:
    """Compose an experiment from a recipe's name and overrides.

    ``compose("sqn", "env=acrobot", "steps=20000").train()`` does what
    ``sqn-run recipe=sqn env=acrobot steps=20000`` does.

    Args:
        recipe: its name.
        overrides: as on the command line.
        catalogue: where recipes and parts are; by default ours and those of ``SQN_RL_PATH``.

    Raises:
        RecipeError: something in it cannot be what its author meant; says where, what, and how to mend it.
    """
    return Experiment(compose_recipe(recipe, *overrides, catalogue=catalogue))
