"""Compose an experiment from names and overrides: the entry point of Python programs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.provenance import override
from sqn_rl.runs.experiment import Experiment


def compose(
    recipe: str = "sqn", *overrides: str, catalogue: Catalogue | None = None, **settings: Any
) -> Experiment:
    """Compose an experiment from a recipe's name and overrides.

    ``compose("sqn", "loss.backup=own", env="acrobot", steps=20_000).train()`` does what
    ``sqn-run recipe=sqn loss.backup=own env=acrobot steps=20000`` does.

    Args:
        recipe: its name, or a YAML file.
        overrides: as on the command line.
        catalogue: where recipes and parts are; by default ours and those of ``SQN_RL_PATH``.
        settings: overrides as keywords; a mapping gives a part's settings: ``loss={"backup": "own"}``.

    Raises:
        RecipeError: something in it is invalid; the message says where, what, and how to fix it.
    """
    return Experiment(compose_recipe(recipe, *overrides, *_overrides(settings), catalogue=catalogue))


def _overrides(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings as overrides; a nested mapping gives dotted keys."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{prefix}{name}.")
        elif isinstance(value, np.generic):
            yield override(f"{prefix}{name}", value.item())
        else:
            yield override(f"{prefix}{name}", str(value) if isinstance(value, Path) else value)
