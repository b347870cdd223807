"""What a recipe or a run changes against the recipe ``sqn``."""

from collections import defaultdict

from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.provenance import flow, override
from sqn_rl.recipe.resolved import Resolved, differences, of_recipe
from sqn_rl.recipe.schema import SLOT_NAMES

BASE = "sqn"
OWN = ("recipe", "seed", "out")
"""The settings by which any two runs differ."""


def changes_of(own: Resolved, catalogue: Catalogue) -> dict[str, list[str]]:
    """What differs from the recipe ``sqn`` in the same environment, in a few words each.

    Returns:
        By slot: ``dueling instead of linear``, or of a part that is the same ``lr 0.01, not 0.001``. Of the
        run-level settings by ``settings``.

    Raises:
        RecipeError: the environment is no part of the catalogue's.
    """
    env = [f"env={own.parts['env'].value}"]
    env += [override(key, each.value) for key, each in own.values.items() if key.startswith("env.")]
    base = of_recipe(BASE, compose_recipe(BASE, *env, catalogue=catalogue))
    changes: dict[str, list[str]] = defaultdict(list)
    for slot, this, that in differences(own.parts, base.parts):
        if this and that:
            changes[slot].append(f"{this.value} instead of {that.value}")
    replaced = {"env", *changes}
    for key, this, that in differences(own.values, base.values):
        slot, _, field = key.partition(".") if key.partition(".")[0] in SLOT_NAMES else ("settings", "", key)
        if this and slot not in replaced and field not in OWN:
            changes[slot].append(f"{field} {flow(this.value)}, not {flow(that.value if that else None)}")
    return dict(changes)
