"""Compose an experiment from names and overrides: the entry point of Python programs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.provenance import override
from sqn_rl.runs.experiment import Experiment


def compose(
    recipe: str | Path = "sqn",
    *overrides: str,
    trust: Sequence[str | Path] = (),
    config_dirs: Sequence[str | Path] = (),
    **settings: Any,
) -> Experiment:
    """Compose an experiment from a recipe's name and overrides.

    ``compose("sqn", "loss.backup=own", env="acrobot", steps=20_000).train()`` does what
    ``sqn-run recipe=sqn loss.backup=own env=acrobot steps=20000`` does.

    Args:
        recipe: its name, or a YAML file.
        overrides: as on the command line.
        trust: modules whose classes YAML may name, as for ``--trust``, besides those of ``SQN_RL_TRUST``.
        config_dirs: folders of your recipes and parts, as for ``--config-dir``, besides ``SQN_RL_PATH``.
        settings: overrides as keywords; a mapping gives a part's settings: ``loss={"backup": "own"}``.

    Raises:
        RecipeError: something in it is invalid; the message says where, what, and how to fix it.
    """
    recipe = str(recipe) if isinstance(recipe, Path) else recipe
    for text in (recipe, *overrides):
        if not isinstance(text, str):
            hint = "give several one by one, a list of them as *overrides"
            raise RecipeError(f'expected a text, such as "head=dueling", got {text!r}', "compose()", hint)
    catalogue = Catalogue(config_dirs, trust)
    return Experiment(compose_recipe(recipe, *overrides, *_overrides(settings), catalogue=catalogue))


def _overrides(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings as overrides; a nested mapping gives dotted keys."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{prefix}{name}.")
        else:
            yield override(f"{prefix}{name}", _plain(f"{prefix}{name}", value))


def _plain(name: str, value: Any) -> Any:
    """A value as YAML has it; tuples and arrays become lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(name, each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(name, each) for key, each in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    hint = "a class or function of your own replaces a part in `.build(…)`, or is named by a YAML file"
    raise RecipeError(
        f"expected a number, a text, a list or a dict, got {value!r}", f"compose(): {name}", hint
    )
