"""``curve.png``: how a run went, at a glance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BLUE, ORANGE, GREEN, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#999999",
)  # Okabe-Ito: distinct to colour-blind eyes

Rows = Sequence[Mapping[str, Any]]


def draw_curve(path: Path, title: str, metrics: Rows, episodes: Rows, evaluations: Rows) -> None:
    """Draw returns, α, entropy against its target, values and losses over environment steps.

    Args:
        path: the PNG to write.
        title: what is shown.
        metrics: rows of ``metrics.jsonl``.
        episodes: rows of ``episodes.jsonl``.
        evaluations: rows of ``evaluations.jsonl``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 3, height_ratios=(1.4, 1))
    returns = figure.add_subplot(grid[0, :])
    steps = [row["env_steps"] for row in metrics]

    def column(name: str) -> list[float]:
        return [np.nan if row.get(name) is None else row[name] for row in metrics]

    games, scores = [row["env_steps"] for row in episodes], [row["return"] for row in episodes]
    returns.plot(games, scores, ".", color=GREY, markersize=3, alpha=0.6, label="training game")
    returns.plot(steps, column("return_mean"), color=BLUE, label="mean of the last 20 training games")
    if evaluations:
        returns.errorbar(
            [row["env_steps"] for row in evaluations],
            [row["mean"] for row in evaluations],
            yerr=[row["std"] for row in evaluations],
            fmt="o",
            color=ORANGE,
            capsize=3,
            label="evaluation: mean ± std over games",
        )
    returns.set(ylabel="return")
    returns.legend(loc="best", frameon=False)

    exploration = figure.add_subplot(grid[1, 0])
    if any("epsilon" in row for row in metrics):
        exploration.plot(steps, column("epsilon"), color=BLUE)
        exploration.set(title="ε (fraction of random actions)", ylim=(0, None))
    else:
        exploration.plot(steps, column("alpha"), color=BLUE)
        exploration.set(title="temperature α (reward units)", yscale="log")
    entropy = figure.add_subplot(grid[1, 1])
    entropy.plot(steps, column("entropy"), color=BLUE, label="entropy")
    entropy.plot(steps, column("target_entropy"), color=ORANGE, linestyle="--", label="target")
    entropy.plot(steps, column("off_greedy"), color=GREEN, label="off-greedy mass")
    entropy.set(title="policy (nats; fraction)", ylim=(0, 1.5 * entropy.get_ylim()[1]))
    entropy.legend(loc="upper right", frameon=False)
    values = figure.add_subplot(grid[1, 2])
    values.plot(steps, column("q_mean"), color=BLUE, label="mean Q")
    values.plot(steps, column("td_error"), color=ORANGE, label="mean |TD error|")
    values.set(title="values (reward units)")
    values.legend(loc="best", frameon=False)
    for axes in figure.axes:
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_locator(MaxNLocator(8 if axes is returns else 4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
