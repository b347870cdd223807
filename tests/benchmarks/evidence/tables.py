"""Scores from rows, and Markdown tables of them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sqn_rl.analysis.statistics import Estimate, estimate, mean

from .runs import Row

Scores = Mapping[str, Mapping[str, np.ndarray]]
"""Variant → task → a number for each seed."""


ENOUGH = 5
"""Runs of a task, with other seeds, from which on an interval is shown."""


def enough(*agents: Sequence[np.ndarray]) -> bool:
    """Whether all agents, given by their scores on each task, have runs enough for an interval."""
    return all(len(scores) >= ENOUGH for agent in agents for scores in agent)


def scores_of(rows: Sequence[Row], measure: str, name: Callable[[Row], str]) -> Scores:
    """A measure of every run, by variant and task."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[name(row)][row["task"]][row["seed"]] = row[measure]
    return {
        variant: {
            task: np.array([by_seed[seed] for seed in sorted(by_seed)]) for task, by_seed in by_task.items()
        }
        for variant, by_task in found.items()
    }


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    rule = "|".join(["---", *["---:"] * (len(heads) - 1)])
    return "\n".join(
        [f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(values: np.ndarray | None) -> str:
    """A mean, its interval with five seeds or more, otherwise each seed."""
    if values is None or not len(values):
        return "–"
    if not enough([values]):
        return f"{number(values.mean())} ({' '.join(map(number, values))})"
    found = estimate(mean, [values])
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def interval(found: Estimate) -> str:
    """``0.71 [0.62, 0.80]``."""
    return f"{number(float(found.value))} [{number(float(found.low))}, {number(float(found.high))}]"


def least_seconds(rows: Sequence[Row]) -> float:
    """The processor seconds of the run that needed fewest: the machine's other users can only add to them."""
    return min(row["cpu_s"] for row in rows)


def area_within(row: Row, whole: float, seconds: float) -> float:
    """The area of a run until so many processor seconds have passed; all of it if it needed fewer.

    Args:
        row: of the report, with its training curve.
        whole: the processor seconds of the whole run.
        seconds: where the area ends.
    """
    parts = max(1, round(min(1.0, seconds / whole) * len(row["curve"])))
    return float(np.mean(row["curve"][:parts]))
