"""Make the workers of actors from a recipe's text, in any process, and start an engine that runs them."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import SettingError
from sqn_rl.parts.collect.base import Actors, Engine, Sharded, ladder_positions
from sqn_rl.parts.env.opening import close
from sqn_rl.recipe.build import stream_seed
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import Recipe, load_recipe
from sqn_rl.training.collecting.worker import Ladder, Worker
from sqn_rl.training.torch_modes import default_float32


@dataclass(frozen=True)
class WorkerMaker:
    """Makes workers; can be sent to other processes.

    Args:
        recipe: the resolved recipe, as YAML text.
        config_dirs: further trees of recipes and parts.
        trust: modules that the user trusts.
    """

    recipe: str
    config_dirs: Sequence[str] = ()
    trust: Sequence[str] = ()

    @default_float32()
    def __call__(self, actor: int) -> Worker:
        """The worker of an actor."""
        recipe = self._read()
        seed = stream_seed(recipe.run.seed, f"collect {actor}") % 2**31
        recipe = replace(recipe, run=replace(recipe.run, seed=seed))
        torch.set_num_threads(recipe.run.threads)
        parts = recipe.build(last="returns", device="cpu")
        collect, env = parts["collect"], parts["env"]
        ladder = None
        if collect.ladder is not None:
            ladder = Ladder(ladder_positions(actor, collect.actors, env.num_envs), collect.ladder)
        return Worker(
            env=env,
            actor=parts["actor"],
            loss=parts["loss"],
            returns=parts["returns"],
            rows=collect.rows,
            ladder=ladder,
            seed=seed,
        )

    def _read(self) -> Recipe:
        with TemporaryDirectory() as folder:
            path = Path(folder, RECIPE_FILE)
            path.write_text(self.recipe, encoding="utf-8")
            return load_recipe(path, catalogue=Catalogue(self.config_dirs, self.trust))

    @default_float32()
    def shard(self, number: int) -> Any:
        """A shard of the replay."""
        recipe = self._read()
        torch.set_num_threads(recipe.run.threads)
        parts = recipe.build(last="replay", device="cpu")
        close(parts["env"])
        return parts["replay"].make_shard(number)


@contextmanager
def running_engine(collect: object, replay: object, recipe: Recipe) -> Iterator[Engine | None]:
    """A context with the engine that runs the actors of a recipe; None if there are no actors.

    The engine also runs the shards of the replay, if there are any.

    Raises:
        RecipeError: the engine cannot be started.
    """
    if not isinstance(collect, Actors):
        yield None
        return
    with closing(collect.engine()) as engine:
        make_worker = WorkerMaker(recipe.to_yaml(), **recipe.catalogue.arguments)
        try:
            engine.start(make_worker, collect.actors)
            if isinstance(replay, Sharded):
                replay.use_host(engine.host(make_worker.shard, replay.shards))
        except SettingError as error:
            raise error.located(f"collect.{error.field}", recipe.origin) from error
        yield engine
