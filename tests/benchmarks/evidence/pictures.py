"""The pictures of the report: who is ahead on which task, training curves, and performance profiles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqn_rl.analysis.figure import COLOURS, DASHES
from sqn_rl.analysis.statistics import estimate, iqm, mean, profile

from .plan import FAMILIES, FIGURE_2D, ORDER, TUNED_MEAN, Task
from .runs import BINS, ROOT, Row
from .tables import least_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESULTS = Path(ROOT, "docs", "results")
GREY = "#8a8a8a"
STYLES = {
    agent: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS)]}
    for i, agent in enumerate(
        agent for group in ORDER for agent in group if agent not in {*FIGURE_2D, TUNED_MEAN}
    )
}
"""How each agent is drawn, the same in all pictures; variants that decided nothing are not drawn."""
Areas = Mapping[str, Sequence[np.ndarray]]
"""Agent → the areas on each task, of which double DQN's mean is 1 and random play 0."""


def curves(family: str, rows: Sequence[Row], areas: Areas) -> str:
    """Draw curves by steps and by processor time, and the performance profile; the Markdown of it."""
    tasks = FAMILIES[family]
    figure = _figure(2.9 * (len(tasks) + 1), 5.4)
    axes = figure.subplots(2, len(tasks) + 1, squeeze=False)
    styles = {agent: {**STYLES[agent], "label": agent} for agent in STYLES if agent in areas}
    for column, task in enumerate(tasks):
        for agent, style in styles.items():
            runs = [row for row in rows if (row["agent"], row["task"]) == (agent, task.name)]
            _draw_curves(axes[0, column], axes[1, column], task, runs, style)
        axes[0, column].set(title=task.name.replace("_", " "), xlabel="environment steps")
        axes[0, column].xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:g}k")
        axes[1, column].set(xlabel="processor seconds")
    thresholds = np.linspace(0, 2.5, 101)
    for agent, style in styles.items():
        axes[0, -1].plot(thresholds, profile(areas[agent], thresholds), linewidth=1.4, **style)
    axes[0, -1].set(title="fraction of runs above", xlabel="area, double DQN = 1")
    axes[1, -1].axis("off")
    axes[1, -1].legend(*axes[0, -1].get_legend_handles_labels(), loc="center", fontsize=11, frameon=False)
    name = f"evidence_{family}.png"
    figure.savefig(RESULTS / name, dpi=110)
    return (
        f"![Training curves and performance profile: {family}]({name})\n\nMeans over seeds, by environment "
        "steps and by processor seconds; bands are quartiles."
    )


def standings(families: Mapping[str, Areas]) -> str:
    """Draw the area of each agent on each task and over the tasks of a family; the Markdown of it.

    Args:
        families: by name, the areas of the agents that were run on all its tasks.
    """
    shares: dict[str, list[float]] = {}
    for areas in families.values():
        for agent in areas.keys() & STYLES.keys():
            shares.setdefault(agent, []).append(float(iqm(areas[agent])))
    order = sorted(shares, key=lambda agent: float(np.mean(shares[agent])))
    columns: list[tuple[str, dict[str, Sequence[np.ndarray]], Any]] = []
    for family, areas in families.items():
        there = {agent: areas[agent] for agent in order if agent in areas}
        columns.append((family.replace("_", " "), there, iqm))
        for i, task in enumerate(FAMILIES[family]):
            of_task = {agent: [each[i]] for agent, each in there.items()}
            columns.append((task.name.replace("_", " "), of_task, mean))
    figure = _figure(1.5 + 1.35 * len(columns), 0.8 + 0.3 * len(order))
    for panel, (title, scores, statistic) in zip(
        figure.subplots(1, len(columns), sharey=True), columns, strict=True
    ):
        by_place = {order.index(agent): each for agent, each in scores.items()}
        _draw_standing(panel, by_place, statistic, wide=statistic is iqm)
        panel.set_ylim(-0.6, len(order) - 0.4)
        panel.set_title(title, fontsize=9, fontweight="bold" if statistic is iqm else "normal")
    panel.set_yticks(range(len(order)), order, fontsize=9)
    figure.supxlabel("area under the training curve: 0 random play, 1 double DQN; 95 % intervals", fontsize=9)
    figure.savefig(RESULTS / "evidence.png", dpi=120)
    return (
        "![Area of each agent on each task](evidence.png)\n\nThe best of each column is blue. Of a family: "
        "the interquartile mean over its runs; of a task: the mean over seeds. An agent without a mark "
        "has too few runs there."
    )


def _draw_standing(
    panel: "Axes", scores: Mapping[int, Sequence[np.ndarray]], statistic: Any, *, wide: bool
) -> None:
    found = {place: estimate(statistic, each) for place, each in scores.items()}
    best = max(found, key=lambda place: float(found[place].value))
    for place, each in found.items():
        colour = COLOURS[0] if place == best else GREY
        panel.plot(
            [each.low, each.high], [place, place], color=colour, linewidth=3 if wide else 1.8, alpha=0.6
        )
        panel.plot([each.value], [place], "o", color=colour, markersize=5 if wide else 3.5)
    panel.axvline(1, color="black", linewidth=0.6, linestyle=":")
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    panel.locator_params(axis="x", nbins=3)


def _draw_curves(
    by_steps: "Axes", by_seconds: "Axes", task: Task, runs: Sequence[Row], style: Mapping[str, Any]
) -> None:
    values = np.array([row["curve"] for row in runs])
    share = (np.arange(BINS) + 0.5) / BINS
    seconds = least_seconds(runs)
    low, high = np.quantile(values, (0.25, 0.75), axis=0)
    for axes, x in ((by_steps, share * task.steps), (by_seconds, share * seconds)):
        axes.plot(x, values.mean(0), linewidth=1.4, **style)
        axes.fill_between(x, low, high, alpha=0.1, color=style["color"], linewidth=0)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
