"""What a recipe or a run changes compared with the recipe ``sqn``."""

from collections import defaultdict

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.provenance import flow, override
from sqn_rl.recipe.resolved import Resolved, differences, of_recipe
from sqn_rl.recipe.schema import SLOT_NAMES

BASE = "sqn"
OWN = ("recipe", "seed", "out")
"""The settings by which any two runs differ."""


def changes_of(own: Resolved, catalogue: Catalogue) -> dict[str, list[str]]:
    """The differences from the recipe ``sqn`` in the same environment, in a few words each.

    Returns:
        By slot: ``dueling instead of linear``, or for the same part ``lr 0.01, not 0.001``. Those of the
        run-level settings are under ``settings``. Nothing, if that recipe cannot have the environment.
    """
    env = [f"env={own.parts['env'].value}"]
    env += [override(key, each.value) for key, each in own.values.items() if key.startswith("env.")]
    try:
        base = of_recipe(BASE, compose_recipe(BASE, *env, catalogue=catalogue))
    except RecipeError:  # a class of the user's, or a name that no override can have
        return {}
    changes: dict[str, list[str]] = defaultdict(list)
    for slot, this, that in differences(own.parts, base.parts):
        if this and that:
            slot = slot.partition(".")[0]
            changes[slot].append(f"{this.value} instead of {that.value}")
    replaced = {"env", *changes}
    for key, this, that in differences(own.values, base.values):
        slot, _, field = key.partition(".")
        if slot not in SLOT_NAMES:
            slot, field = "settings", key
        if this and slot not in replaced and field not in OWN:
            changes[slot].append(f"{field} {flow(this.value)}, not {flow(that.value if that else None)}")
    return dict(changes)
