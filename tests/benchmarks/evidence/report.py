"""The tables and figures of the report phase, and what they say of each claim."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sqn_rl.analysis.statistics import Estimate, estimate, iqm, probability_of_improvement, profile

from .plan import FAMILIES, Task
from .runs import BINS, Row, rows_of
from .tables import Scores, cell, number, scores_of, table

REFERENCE, BEST = "double_dqn", "sqn_best"
"""Whose mean is 1 where scores of several tasks are averaged; and whom the primary claim is about."""

PERMUTATIONS = 20_000


class Pair(NamedTuple):
    """One agent against another over the tasks of a family."""

    agent: str
    other: str
    probability: Estimate
    p: float
    """Of a permutation test, not corrected."""


def stratified(scores: Scores, agent: str, tasks: Sequence[str]) -> list[np.ndarray]:
    """The scores of an agent, an array for each task."""
    return [scores[agent][task] for task in tasks]


def permutation_p(x: Sequence[np.ndarray], y: Sequence[np.ndarray], seed: int = 0) -> float:
    """How often P(improvement) is as far from one half when labels are dealt anew within each task.

    Two-sided, with the usual one added to both counts, so it is never 0.
    """
    generator = np.random.default_rng(seed)
    found = abs(float(probability_of_improvement(x, y)) - 0.5)
    dealt_x, dealt_y = [], []
    for a, b in zip(x, y, strict=True):
        together = np.tile(np.concatenate([a, b]), (PERMUTATIONS, 1))
        generator.permuted(together, axis=1, out=together)
        dealt_x.append(together[:, : len(a)])
        dealt_y.append(together[:, len(a) :])
    at_random = np.abs(probability_of_improvement(dealt_x, dealt_y) - 0.5)
    return (1 + int((at_random >= found - 1e-12).sum())) / (1 + PERMUTATIONS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979): p-values that may be compared with 5 % all together."""
    order = np.argsort(p_values)
    adjusted, largest = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted.tolist()


def pairs_of(scores: Scores, agent: str, others: Sequence[str], tasks: Sequence[str]) -> list[Pair]:
    """``agent`` against each of the others."""
    x = stratified(scores, agent, tasks)
    found = []
    for other in others:
        y = stratified(scores, other, tasks)
        found.append(Pair(agent, other, estimate(probability_of_improvement, x, y), permutation_p(x, y)))
    return found


def complete(scores: Scores, tasks: Sequence[Task]) -> list[str]:
    """The agents that were run on all tasks."""
    return [agent for agent, by_task in scores.items() if all(task.name in by_task for task in tasks)]


def relative(scores: Scores, tasks: Sequence[Task]) -> dict[str, list[np.ndarray]]:
    """Scores of which 0 is random play and 1 the mean of double DQN, an array for each task."""
    found = {}
    for agent in complete(scores, tasks):
        found[agent] = [
            (scores[agent][task.name] - task.random) / (scores[REFERENCE][task.name].mean() - task.random)
            for task in tasks
        ]
    return found


def sections() -> Iterator[str]:
    """The report, family by family; nothing until there are runs of every task."""
    rows = rows_of("report")
    for family, tasks in FAMILIES.items():
        names = [task.name for task in tasks]
        of_family = [row for row in rows if row["task"] in names]
        areas, finals = (
            scores_of(of_family, measure, lambda row: row["agent"]) for measure in ("area", "final")
        )
        agents = complete(areas, tasks)
        if REFERENCE not in agents:
            continue
        yield f"## Report: {family}"
        for what, scores in (("Area under the training curve", areas), ("Final greedy mean", finals)):
            yield f"### {what}"
            lines = [[f"`{agent}`", *(cell(scores[agent][name]) for name in names)] for agent in agents]
            yield table(["agent", *names], lines)
        yield "### Over all tasks"
        yield (
            "IQM of scores of which 0 is random play and 1 the mean of double DQN, with 95 % stratified "
            "bootstrap intervals; and processor seconds of a run, the median."
        )
        both = [relative(scores, tasks) for scores in (areas, finals)]
        lines = []
        for agent in sorted(agents, key=lambda agent: -float(iqm(both[0][agent]))):
            cells = [interval(estimate(iqm, each[agent])) for each in both]
            seconds = np.median([row["cpu_s"] for row in of_family if row["agent"] == agent])
            lines.append([f"`{agent}`", *cells, f"{seconds:.0f}"])
        yield table(["agent", "area", "final", "processor s"], lines)
        if BEST in agents:
            yield from _of_pairs(areas, agents, names)
        yield figure(family, of_family, both[0], agents)


def _of_pairs(areas: Scores, agents: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    others = [agent for agent in agents if agent != BEST]
    pairs = pairs_of(areas, BEST, others, names)
    yield f"### P(improvement) of `{BEST}`, by area"
    yield "The p-values are of permutation tests within tasks, with Holm's correction over the lines."
    adjusted = holm([pair.p for pair in pairs])
    lines = [
        [f"`{pair.other}`", interval(pair.probability), f"{p:.4f}"]
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
    yield table(["against", "P(improvement)", "p"], lines)


def interval(found: Estimate) -> str:
    """``0.71 [0.62, 0.80]``."""
    return f"{number(float(found.value))} [{number(float(found.low))}, {number(float(found.high))}]"


def figure(
    family: str, rows: Sequence[Row], areas: Mapping[str, list[np.ndarray]], agents: Sequence[str]
) -> str:
    """Draw curves by steps and by processor time, and the performance profile; the Markdown of it."""
    from matplotlib.figure import Figure

    from .runs import ROOT

    tasks = FAMILIES[family]
    drawn = Figure(figsize=(4 * (len(tasks) + 1), 6.4), layout="constrained")
    axes = drawn.subplots(2, len(tasks) + 1, squeeze=False)
    for column, task in enumerate(tasks):
        for agent in agents:
            runs = [row for row in rows if (row["agent"], row["task"]) == (agent, task.name)]
            curves = np.array([row["curve"] for row in runs])
            share = (np.arange(BINS) + 0.5) / BINS
            seconds = float(np.median([row["cpu_s"] for row in runs]))
            for line, x in ((0, share * task.steps), (1, share * seconds)):
                (drawn_line,) = axes[line, column].plot(x, curves.mean(0), label=agent, linewidth=1.2)
                low, high = np.quantile(curves, (0.25, 0.75), axis=0)
                axes[line, column].fill_between(
                    x, low, high, alpha=0.12, color=drawn_line.get_color(), linewidth=0
                )
        axes[0, column].set(title=task.name, xlabel="environment steps")
        axes[1, column].set(xlabel="processor seconds")
    thresholds = np.linspace(0, 2.5, 101)
    for agent in agents:
        axes[0, -1].plot(thresholds, profile(areas[agent], thresholds), label=agent, linewidth=1.2)
    axes[0, -1].set(title="fraction of runs above", xlabel="area, double DQN = 1")
    axes[1, -1].axis("off")
    axes[1, -1].legend(*axes[0, -1].get_legend_handles_labels(), loc="center", fontsize=8, frameon=False)
    name = f"evidence_{family}.png"
    drawn.savefig(Path(ROOT, "docs", "results", name), dpi=110)
    return f"![Training curves and performance profile: {family}]({name})\n\nBands are quartiles over seeds."
