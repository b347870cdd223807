"""Runs that were not trained, for tests that need only a policy."""

from pathlib import Path

from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.runs.checkpoint import Checkpoints


def untrained(path: Path, *overrides: str, recipe: str = "sqn", catalogue: Catalogue | None = None) -> Path:
    """A run that has saved a checkpoint before its first step."""
    composed = compose_recipe(recipe, *overrides, catalogue=catalogue)
    path.mkdir()
    (path / "recipe.yaml").write_text(composed.to_yaml())
    weights = composed.build(last="loss", num_envs=1)["loss"].state_dict()
    Checkpoints(path / "checkpoints", 1).save(0, weights, {}, {})
    return path
