"""Reports of a comparison: tables, Markdown and CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sqn_rl.analysis.comparison import Comparison, Pair, Row
from sqn_rl.analysis.statistics import RESAMPLES, Estimate
from sqn_rl.recipe.provenance import override
from sqn_rl.recipe.reading import printable

METHOD = (
    f"In brackets: 95 % intervals, percentiles of {RESAMPLES:,} bootstrap resamples of the runs, stratified "
    "by environment. final: mean return of the last evaluation. area: average of the evaluation curve. "
    "P(improvement): probability that a run of the variant scores more than a run of the other; "
    "better or worse: a permutation test tells it from ½ at 5 %."
)
COLUMNS = ("environment", "measure", "variant", "against", "runs", "statistic", "value", "low", "high")
"""The columns of the CSV, before the verdict."""


class Table(NamedTuple):
    """Text in rows and columns."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(comparison: Comparison) -> Iterator[Table]:
    """The scores in each environment, then every pair."""
    for environment in dict.fromkeys(row.environment for row in comparison.rows):
        rows = [row for row in comparison.rows if row.environment == environment]
        header = ("variant", "measure", "runs", "mean", "median", "IQM")
        yield Table(environment, header, [_score_cells(row) for row in rows])
    if comparison.pairs:
        header = ("environment", "measure", "variant", "against", "P(improvement)", "verdict")
        yield Table("pairs", header, [_pair_cells(pair) for pair in comparison.pairs])


def measured(comparison: Comparison) -> Iterator[str]:
    """The evaluation protocol of each environment, as overrides of ``sqn-run``."""
    for environment, by_variant in comparison.groups.items():
        protocol = next(iter(by_variant.values()))[0].protocol
        values = " ".join(override(key, each.value) for key, each in protocol.items())
        yield f"{environment}: {values}"
    if comparison.shared:
        yield f"all variants: {' '.join(comparison.shared)}"


def to_markdown(comparison: Comparison, picture: str) -> str:
    """A page with everything on it.

    Args:
        comparison: the comparison to show.
        picture: the link to the figure's file.
    """
    lines = ["# Comparison", "", *(f"- {line}" for line in measured(comparison)), "", METHOD, ""]
    lines += [f"![Learning curves and performance profiles]({picture})", ""]
    for title, header, rows in tables(comparison):
        rule = ["---"] * len(header)
        lines += [f"## {title}", "", *map(_markdown_row, (header, rule, *rows)), ""]
    if comparison.notes:
        notes = ("; ".join(map(str.strip, note.splitlines())) for note in comparison.notes)
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(map(printable, lines))


def _markdown_row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def to_csv(comparison: Comparison) -> str:
    """Every number at full precision, one per line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "verdict"])
    for row in comparison.rows:
        for name, estimate in (("mean", row.mean), ("median", row.median), ("iqm", row.iqm)):
            labels = (row.environment, row.measure, row.variant, None, row.runs, name)
            writer.writerow([*labels, *_numbers(estimate), None])
    for pair in comparison.pairs:
        sides = (pair.environment, pair.measure, pair.variant, pair.other)
        numbers = _numbers(pair.probability)
        writer.writerow([*sides, None, "probability of improvement", *numbers, pair.verdict])
    return text.getvalue()


def _score_cells(row: Row) -> list[str]:
    averages = (_number(each) for each in (row.mean, row.median, row.iqm))
    return [row.variant, row.measure, str(row.runs), *averages]


def _pair_cells(pair: Pair) -> list[str]:
    return [
        pair.environment,
        pair.measure,
        pair.variant,
        pair.other,
        _number(pair.probability),
        pair.verdict,
    ]


def _number(estimate: Estimate) -> str:
    """``187.3 [165.0, 201.2]``; for a single run only the value."""
    decimals = _decimals(abs(estimate.value))
    numbers = [f"{each:,.{decimals}f}" for each in estimate]
    return numbers[0] if np.isnan(estimate.low) else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def _decimals(size: float) -> int:
    if size >= 1000:
        return 0
    return 1 if size >= 10 else 2


def _numbers(estimate: Estimate) -> list[float | None]:
    return [None if np.isnan(each) else float(each) for each in estimate]
