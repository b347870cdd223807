"""The runs of an ablation: a recipe, and the recipe with one change at a time, with several seeds."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqn_rl.analysis.finished import is_protocol, is_variant_key, variant_of
from sqn_rl.disk import EVALUATIONS_FILE, LONGEST_NAME, RECIPE_FILE, hashed_name
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import OURS, Recipe, compose_recipe
from sqn_rl.recipe.overrides import expand, origin, parse
from sqn_rl.recipe.provenance import override
from sqn_rl.recipe.reading import DataError, is_there, read_rows
from sqn_rl.recipe.resolved import differences, of_recipe, of_run
from sqn_rl.runs.status import read_summary

BASE = "base"
EVALUATIONS = 10
"""Evaluations per run, if ``eval_every`` is not set: the area under a curve needs several."""


@dataclass(frozen=True)
class Variant:
    """The recipe, or the recipe with one change."""

    name: str
    overrides: Sequence[str]
    recipe: Recipe


@dataclass(frozen=True)
class Job:
    """One run of the grid."""

    variant: Variant
    overrides: Sequence[str]
    """The overrides for ``sqn-run``."""
    out: Path
    recipe: Recipe

    @property
    def log(self) -> Path:
        """The file for its output."""
        return self.out.with_suffix(".log")

    @property
    def summary(self) -> dict[str, Any]:
        """The run's ``summary.json``; empty if it has not ended."""
        return read_summary(self.out)

    def evaluations(self) -> Iterator[dict[str, Any]]:
        """The rows of its evaluations; if it is not done, without one that a crash left incomplete.

        Raises:
            DataError: the run is done, and the file is damaged.
        """
        try:
            yield from read_rows(self.out / EVALUATIONS_FILE)
        except DataError:
            if self.summary.get("status") == "done":
                raise

    def is_done(self) -> bool:
        """Whether the run is done.

        Raises:
            RecipeError: a run of another recipe is there.
        """
        if not is_there(self.out / RECIPE_FILE):
            return False
        saved, planned = (
            {key: each for key, each in resolved.everything.items() if identifies_run(key)}
            for resolved in (of_run(self.out), of_recipe("", self.recipe))
        )
        if different := differences(saved, planned):
            message = f"{self.out}: contains another run: {different[0]}"
            raise RecipeError(message, "", "choose another folder: out=…")
        return self.summary.get("status") == "done"


def variants_of(overrides: Sequence[str], catalogue: Catalogue) -> list[Variant]:
    """The recipe, and for each value in the lists of ``overrides`` the recipe with only that change.

    Args:
        overrides: as on the command line; those with lists of values are varied.
        catalogue: where the parts are.

    Returns:
        The recipe itself first. A value equal to the recipe's own, or to an earlier one, gives no variant.

    Raises:
        RecipeError: an override is invalid, nothing is varied, or a report could not tell two variants apart.
    """
    values = {text: [value for (value,) in expand([text], catalogue)] for text in overrides}
    lists = [text for text in overrides if parse([text])[0].sweeps]
    common = [text for text in overrides if text not in lists]
    seeds = [text for text in common if text.startswith("seed=")]
    require_variant_keys([*lists, *seeds], "an ablation cannot vary this")
    base = compose_recipe("sqn", *common, catalogue=catalogue)
    if every := evaluations_of(base):
        common.append(every)
        base = compose_recipe("sqn", *common, catalogue=catalogue)
    variants = [Variant(BASE, common, base)]
    for value in (value for text in lists for value in values[text]):
        recipe = compose_recipe("sqn", *common, value, catalogue=catalogue)
        if all(recipe.config != variant.recipe.config for variant in variants):
            name = re.sub(r"[^][\w.=,+-]+", "_", value)
            if len(name.encode()) > LONGEST_NAME or name in (variant.name for variant in variants):
                name = hashed_name(name, value)
            variants.append(Variant(name, [*common, value], recipe))
    if len(variants) == 1:
        raise RecipeError(
            "nothing is varied",
            origin(" ".join(overrides)) if overrides else "",
            "name alternatives: head=linear,dueling",
        )
    _require_labels(variants)
    return variants


def _require_labels(variants: Iterable[Variant]) -> None:
    """Refuse variants that would have the same name in a report."""
    labels: dict[tuple[str, ...], Variant] = {}
    for variant in variants:
        label = variant_of(of_recipe("", variant.recipe))
        if (other := labels.setdefault(label, variant)) is not variant:
            message = f"in the report this is `{' '.join(label)}`, and so is the variant {other.name}"
            hint = "leave out one of the two, or give each an ablation of its own"
            raise RecipeError(message, origin(variant.overrides[-1]), hint)


def require_variant_keys(texts: Iterable[str], message: str) -> None:
    """Refuse overrides that do not distinguish variants: those of the environment, the budget or the seed.

    Raises:
        RecipeError: there is such an override; the error has this message.
    """
    for text in texts:
        if not is_variant_key(key := text.partition("=")[0].lstrip("+")):
            hint = "vary parts and their settings; seeds=N is their number; sqn-run -m sweeps over anything"
            raise RecipeError(message, origin(text), hint, key)


def evaluations_of(recipe: Recipe) -> str:
    """The override with which a recipe is evaluated while it trains; empty if ``eval_every`` was set."""
    is_set = recipe.run.eval_every or recipe.origin("eval_every") != OURS
    return "" if is_set else f"eval_every={max(1, recipe.run.steps // EVALUATIONS)}"


def jobs_of(
    variants: Sequence[Variant], seeds: int, folder: Path, catalogue: Catalogue, first: int = 0
) -> list[Job]:
    """A job for each seed and variant, which runs in ``folder/<variant>/s<seed>``."""
    jobs = []
    for seed in range(first, first + seeds):
        for variant in variants:
            out = folder / variant.name / f"s{seed}"
            overrides = [*variant.overrides, f"seed={seed}", override("out", str(out)), "resume=auto"]
            jobs.append(Job(variant, overrides, out, compose_recipe("sqn", *overrides, catalogue=catalogue)))
    return jobs


def identifies_run(key: str) -> bool:
    """Whether runs with different values at this key are different runs."""
    return is_variant_key(key) or is_protocol(key) or key == "seed"
