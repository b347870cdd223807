"""Draw ``curve.png``: a run's returns, metrics and evaluations. ``sqn-watch`` shows the same panels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

from sqn_rl.plots.logs import finite_number
from sqn_rl.plots.style import BLUE, GREY, ORANGE, default_style, new_figure, to_png

LogRows = Sequence[Mapping[str, Any]]
Series = list[float | None]


@dataclass(frozen=True)
class Panel:
    """One small plot of a curve."""

    title: str
    """The title, with the unit."""
    lines: Mapping[str, str]
    """The labels, by column of ``metrics.jsonl``. A second line is the target of the first."""
    scale: str = "linear"
    """``linear``, ``log``, or ``zero``: linear, and from 0 on."""


RETURN = "return (undiscounted, of a full episode)"
EPISODES, MEAN = "training episode", "mean of the last 20 training episodes"
EVALUATIONS = "evaluation: mean ± std over episodes"

PANELS = (
    Panel("mean Q(s, a) (reward units)", {"q_mean": "Q"}),
    Panel("mean |TD error| (reward units)", {"td_error": "|δ|"}, "log"),
    Panel("loss of Q", {"loss_q": "L_Q"}, "log"),
    Panel("loss of the policy", {"loss_policy": "L_π"}),
    Panel("temperature α (reward units)", {"alpha": "α"}, "log"),
    Panel("loss of α", {"loss_alpha": "L_α"}),
    Panel("entropy (nats)", {"entropy": "entropy", "target_entropy": "target"}, "zero"),
    Panel("off-greedy mass (fraction)", {"off_greedy": "off-greedy"}, "zero"),
    Panel("ε: random actions (fraction)", {"epsilon": "ε"}, "zero"),
    Panel("steps/s, updates included", {"steps_per_s": "steps/s"}, "zero"),
)
"""Every panel that a run may have; a panel is drawn if its column has two values or more."""
COUNTERS = {"env_steps", "frames", "updates", "episodes", "wall_s", "return_mean"}


def columns_of(metrics: LogRows) -> dict[str, Series]:
    """The columns of ``metrics.jsonl``, and ``steps_per_s``, the speed between two rows."""
    names = dict.fromkeys(name for row in metrics for name in row)
    columns = {name: column_of(metrics, name) for name in names}
    return columns | {"steps_per_s": [None, *map(_speed, pairwise(metrics))][: len(metrics)]}


def column_of(rows: LogRows, name: str) -> Series:
    """One column, with None where it is missing."""
    return [row.get(name) for row in rows]


def _speed(rows: tuple[Mapping[str, Any], Mapping[str, Any]]) -> float | None:
    before, now = rows
    if before.get("wall_s") is None or now.get("wall_s") is None:
        return None
    return rate(now["env_steps"] - before["env_steps"], now["wall_s"] - before["wall_s"])


def rate(steps: float, seconds: float) -> float | None:
    """Steps per second; None if that is no number."""
    return finite_number(steps / seconds) if seconds > 0 else None


def panels_of(columns: Mapping[str, Series]) -> Iterator[Panel]:
    """The panels of columns with two values or more; an unknown column has a panel too."""
    drawable = {name for name, column in columns.items() if len(column) - column.count(None) > 1}
    yield from (panel for panel in PANELS if next(iter(panel.lines)) in drawable)
    known = COUNTERS.union(*(panel.lines for panel in PANELS))
    yield from (Panel(name, {name: name}) for name in columns if name in drawable - known)


@default_style()
def draw_curve(title: str, metrics: LogRows, episodes: LogRows, evaluations: LogRows) -> bytes:
    """Draw the returns of training and evaluation, and below them every panel that the run has.

    Args:
        title: the title of the figure.
        metrics: rows of ``metrics.jsonl``, as :class:`~sqn_rl.plots.logs.Log` reads them.
        episodes: rows of ``episodes.jsonl``.
        evaluations: rows of ``evaluations.jsonl``.

    Returns:
        A PNG.
    """
    columns = columns_of(metrics)
    panels = list(panels_of(columns))
    width = min((4, 3), key=lambda number: -len(panels) % number)  # whichever leaves fewer gaps
    rows = ceil(len(panels) / width)
    height = 4.6 + 2.5 * rows
    figure = new_figure(figsize=(13, height))
    figure.suptitle(title, fontsize=14, parse_math=False, y=1 - 0.12 / height, va="top")
    # fixed margins, in inches: computing a layout would take as long as all the drawing
    grid = figure.add_gridspec(
        1 + rows,
        width,
        height_ratios=(1.8, *[1] * rows),
        left=0.9 / 13,
        right=1 - 0.15 / 13,
        bottom=0.7 / height,
        top=1 - 0.5 / height,
        wspace=0.24,
        hspace=0.36,
    )
    figure.supxlabel("environment steps", fontsize=10, y=0.2 / height, va="center")
    last = max((row["env_steps"] for rows in (metrics, episodes, evaluations) for row in rows), default=1)
    _draw_returns(_axes(figure, grid[0, :], last, 10), columns, episodes, evaluations)
    for number, panel in enumerate(panels):
        _draw_panel(_axes(figure, grid[1 + number // width, number % width], last, 5), panel, columns)
    return to_png(figure, dpi=110)


def _axes(figure: Any, place: Any, last: int, ticks: int) -> Any:
    """Axes over environment steps from 0 to the ``last``."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes = figure.add_subplot(place)
    axes.set_xlim(0, 1.04 * last)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_label_coords(0.5, -0.1)
    axes.yaxis.set_label_coords(-0.05, 0.5)
    return axes


def _numbers(column: Series) -> list[float]:
    return [float("nan") if value is None else value for value in column]


def _draw_returns(axes: Any, columns: Mapping[str, Series], episodes: LogRows, evaluations: LogRows) -> None:
    returns = _numbers(column_of(episodes, "return"))
    axes.plot(
        column_of(episodes, "env_steps"), returns, ".", color=GREY, markersize=3, alpha=0.6, label=EPISODES
    )
    if "return_mean" in columns:
        mean = _numbers(columns["return_mean"])
        axes.plot(columns["env_steps"], mean, color=BLUE, label=MEAN)
    if evaluations:
        steps = column_of(evaluations, "env_steps")
        means, stds = (_numbers(column_of(evaluations, name)) for name in ("mean", "std"))
        axes.errorbar(steps, means, yerr=stds, fmt="o", color=ORANGE, capsize=3, label=EVALUATIONS)
        place = {"xytext": (-7, 5), "textcoords": "offset points", "ha": "right", "va": "bottom"}
        axes.annotate(f"{means[-1]:.1f}", (steps[-1], means[-1]), color=ORANGE, **place)
    axes.set_ylabel(RETURN)
    axes.legend(loc="best", frameon=False)


def _draw_panel(axes: Any, panel: Panel, columns: Mapping[str, Series]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    styles: tuple[dict[str, Any], ...] = (
        {"color": BLUE, "linewidth": 1.2},
        {"color": ORANGE, "linestyle": "--"},
    )
    for (name, label), style in zip(panel.lines.items(), styles, strict=False):
        if name in columns:
            axes.plot(columns["env_steps"], _numbers(columns[name]), label=label, **style)
    axes.set_title(panel.title, fontsize=11, parse_math=False, y=1.0)
    if panel.scale == "log":
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        is_narrow = high < 10 * low  # a logarithmic axis may have no round number in it
        per_decade = (1, 2, 5) if high < 200 * low else (1,)
        axes.yaxis.set_major_locator(MaxNLocator(4) if is_narrow else LogLocator(subs=per_decade, numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
    if panel.scale == "zero":
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    if len(panel.lines) > 1:
        axes.legend(loc="best", frameon=False)
