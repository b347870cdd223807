"""Preflight: find every mistake that can be found before the first environment step.

The parts are built once for this purpose and thrown away, so that the parts trained afterwards are untouched.
"""

from pathlib import Path

from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import RecipeError, SettingError
from sqn_rl.parts import machine
from sqn_rl.parts.env.opening import closing_env
from sqn_rl.recipe.auto import compiling
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.graph import Graph
from sqn_rl.recipe.preflight.walk import Walk
from sqn_rl.recipe.reading import DataError, parse_yaml
from sqn_rl.recipe.resources import forget_peak, require_room
from sqn_rl.training.random_state import RandomState
from sqn_rl.training.torch_modes import default_float32


@default_float32()
def preflight(recipe: Recipe) -> Graph:
    """Build every part, and send one fake batch through actor, replay, loss, backward and the updates.

    Args:
        recipe: a composed recipe.

    Returns:
        The wiring, with the shapes and dtypes that were seen.

    Raises:
        RecipeError: something does not fit; says where, what was expected, and how to fix it.
    """
    run = recipe.run
    forget_peak()
    if not machine.has_device(run.device):
        message, subject = "torch cannot use it here", f"device = {run.device!r}"
        raise RecipeError(message, recipe.origin("device"), "set device=cpu", subject)
    _require_readable(recipe)
    _require_compiler(recipe)
    require_room(recipe)
    with RandomState(run.seed, run.device):
        walk = Walk(recipe)
        with closing_env(walk.parts["env"]):
            _require_compiler(recipe, walk.parts["q_net"])
            return walk.graph()


def _require_readable(recipe: Recipe) -> None:
    """Refuse a recipe that could not be read from the run's ``recipe.yaml``, as its values are too large."""
    text, path = recipe.to_yaml(), Path(RECIPE_FILE)
    try:
        parse_yaml(text, path)
    except DataError as error:
        line = text.splitlines()[error.line - 1] if error.line else ""
        where = line.rpartition("  # ")[2]
        raise RecipeError(f"the run's {path} could not be read: {error.message}", where) from error


def _require_compiler(recipe: Recipe, q_net: object = None) -> None:
    try:
        compiling(recipe.run, q_net)
    except SettingError as error:
        raise error.located("compile", recipe.origin) from error
