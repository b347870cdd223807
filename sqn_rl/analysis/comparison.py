"""Compare variants: scores with intervals, which of two is better, and where too few runs decide nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from math import comb
from typing import NamedTuple

import numpy as np

from sqn_rl.analysis.finished import ComparisonError, FinishedRun
from sqn_rl.analysis.groups import Groups, Labels, caveats, group
from sqn_rl.analysis.scores import RANDOM_AND_HUMAN, human_normalised
from sqn_rl.analysis.statistics import (
    Estimate,
    Scores,
    area_under_curve,
    chance_of_separation,
    estimate,
    iqm,
    mean,
    median,
    permutation_p,
    probability_of_improvement,
)

FINAL, AREA = "final", "area"
"""The mean return of the last evaluation, and the average of the evaluation curve."""
NORMALISED = " (human = 1)"
SIGNIFICANCE = 0.05
"""Significance level: the probability with which two equal variants may be called different."""

Tables = dict[tuple[str, str], dict[str, Scores]]
"""(environment, measure) → variant → its scores."""


class Row(NamedTuple):
    """One measure of one variant."""

    environment: str
    measure: str
    variant: str
    runs: int
    mean: Estimate
    median: Estimate
    iqm: Estimate


class Pair(NamedTuple):
    """Two variants by one measure."""

    environment: str
    measure: str
    variant: str
    other: str
    probability: Estimate
    """P(a run of ``variant`` scores more than a run of ``other``); equal scores count half."""
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The result of comparing runs."""

    groups: Groups
    shared: Sequence[str]
    """Overrides that all variants have in common."""
    tables: Tables
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    notes: Sequence[str]
    """Caveats, and runs that were left out."""


def compare(
    runs: Sequence[FinishedRun],
    left_out: Mapping[str, str] | None = None,
    baseline: FinishedRun | None = None,
) -> Comparison:
    """Compare runs, variant by variant.

    Args:
        runs: the finished runs.
        left_out: why each other run was left out, by directory.
        baseline: a run of the variant that all others are compared with; None: compare every pair.

    Raises:
        ComparisonError: there are no runs, or they were evaluated differently.
    """
    notes = [f"left out: {directory}: {why}" for directory, why in (left_out or {}).items()]
    if not runs:
        raise ComparisonError("\n".join(["there is no finished run to compare", *notes]))
    notes += [change for run in runs for change in run.changes]
    labels = Labels(runs)
    first = labels(baseline) if baseline else None
    groups, repeated = group(runs, labels, first)
    measured = _measured(groups)
    tables = measured | _normalised(groups, measured)
    compared = measured | _over_environments(groups, measured)
    rows = [row for key, by_variant in tables.items() for row in _rows(*key, by_variant)]
    pairs = [pair for key, by_variant in compared.items() for pair in _pairs(*key, by_variant, first)]
    notes += [*repeated, *caveats(groups), *_without_reference(groups), *_too_few(measured)]
    return Comparison(groups, labels.shared, tables, rows, pairs, notes)


def _measured(groups: Groups) -> Tables:
    """The scores of the runs on each environment, in its own units."""
    tables: Tables = {}
    for environment, by_variant in groups.items():
        tables[environment, FINAL] = {
            variant: [np.array([run.scores[-1] for run in runs])] for variant, runs in by_variant.items()
        }
        if all(len(run.steps) > 1 for runs in by_variant.values() for run in runs):
            tables[environment, AREA] = {
                variant: [np.array([area_under_curve(run.steps, run.scores) for run in runs])]
                for variant, runs in by_variant.items()
            }
    return tables


def _normalised(groups: Groups, measured: Tables) -> Tables:
    """The human-normalised scores of each Atari game, and over all games that every variant played."""
    games = {
        environment: game
        for environment in groups
        if (game := _game(groups, environment)) in RANDOM_AND_HUMAN
    }
    tables: Tables = {
        (environment, f"{measure}{NORMALISED}"): {
            variant: [human_normalised(games[environment], scores) for scores in by_environment]
            for variant, by_environment in by_variant.items()
        }
        for (environment, measure), by_variant in measured.items()
        if environment in games
    }
    return tables | _merged("games", [each for each in _common(groups) if each in games], tables)


def _over_environments(groups: Groups, measured: Tables) -> Tables:
    """The scores over all environments in which every variant was run; their units may differ."""
    return _merged("environments", _common(groups), measured)


def _merged(what: str, environments: Sequence[str], tables: Tables) -> Tables:
    """One table for each measure, with the scores in several environments."""
    merged: Tables = {}
    for measure in dict.fromkeys(measure for _, measure in tables):
        parts = [tables[each, measure] for each in environments if (each, measure) in tables]
        if len(parts) > 1:
            merged[f"{len(parts)} {what}", measure] = {
                variant: [scores for part in parts for scores in part[variant]] for variant in parts[0]
            }
    return merged


def _common(groups: Groups) -> list[str]:
    """The environments in which every variant was run."""
    variants = {variant for by_variant in groups.values() for variant in by_variant}
    return [environment for environment, by_variant in groups.items() if by_variant.keys() == variants]


def _game(groups: Groups, environment: str) -> str | None:
    return next(run.game for runs in groups[environment].values() for run in runs)


def _rows(environment: str, measure: str, by_variant: Mapping[str, Scores]) -> Iterator[Row]:
    for variant, scores in by_variant.items():
        averages = (estimate(average, scores) for average in (mean, median, iqm))
        yield Row(environment, measure, variant, sum(map(len, scores)), *averages)


def _pairs(
    environment: str, measure: str, by_variant: Mapping[str, Scores], first: str | None
) -> Iterator[Pair]:
    """Every pair, the probably better variant first; or each variant against ``first``, if that has runs."""
    if first and first not in by_variant:
        return
    with_first = [(variant, first) for variant in by_variant if first and variant != first]
    for variant, other in with_first or combinations(by_variant, 2):
        if not first and probability_of_improvement(by_variant[variant], by_variant[other]) < 0.5:
            variant, other = other, variant
        sides = by_variant[variant], by_variant[other]
        probability = estimate(probability_of_improvement, *sides)
        yield Pair(environment, measure, variant, other, probability, _verdict(*sides))


def _verdict(x: Scores, y: Scores) -> str:
    if chance_of_separation(x, y) > SIGNIFICANCE:
        return "too few runs to tell"
    if permutation_p(x, y) > SIGNIFICANCE:
        return "undecided"
    return "better" if probability_of_improvement(x, y) > 0.5 else "worse"


def _without_reference(groups: Groups) -> Iterator[str]:
    """A note for each Atari game without a human score."""
    for environment in groups:
        if (game := _game(groups, environment)) and game not in RANDOM_AND_HUMAN:
            yield f"{environment}: no human score of {game} was published, so none is normalised by it"


def _too_few(tables: Tables) -> Iterator[str]:
    """A note for each environment where the smallest variants have too few runs for any verdict."""
    enough = next(runs for runs in count(1) if 2 / comb(2 * runs, runs) <= SIGNIFICANCE)
    for (environment, measure), by_variant in tables.items():
        fewest = sorted(by_variant.values(), key=lambda scores: len(scores[0]))[:2]
        if measure == FINAL and len(fewest) == 2 and (chance := chance_of_separation(*fewest)) > SIGNIFICANCE:
            few, more = (len(scores[0]) for scores in fewest)
            yield (
                f"{environment}: {few} and {more} runs are too few to tell: of two equal variants, every run "
                f"of one beats every run of the other in {chance:.0%} of cases; {enough} of each would do"
            )
