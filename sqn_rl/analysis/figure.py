"""``comparison.png``: learning curves and performance profiles with their bands, a row an environment."""

from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from sqn_rl.analysis.comparison import FINAL, NORMALISED, Comparison
from sqn_rl.analysis.finished import FinishedRun
from sqn_rl.analysis.statistics import Scores, estimate, iqm, profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Style = Mapping[str, str]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe-Ito
DASHES = ("-", "--", ":", "-.")
RESAMPLES = 2_000
"""Enough for bands."""


def draw_comparison(comparison: Comparison) -> bytes:
    """Draw the variants against each other.

    Args:
        comparison: what to draw.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    variants = dict.fromkeys(row.variant for row in comparison.rows)
    styles = {
        variant: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[i % len(DASHES)],
            "label": variant.replace("$", r"\$"),
        }
        for i, variant in enumerate(variants)
    }
    environments = list(dict.fromkeys(row.environment for row in comparison.rows))
    figure = Figure(figsize=(11, 3.6 * len(environments) + 0.25 * len(variants)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(environments), 2, squeeze=False)
    for environment, (left, right) in zip(environments, panels, strict=True):
        measure = FINAL if (environment, FINAL) in comparison.tables else f"{FINAL}{NORMALISED}"
        scores = comparison.tables[environment, measure]
        runs = comparison.groups.get(environment, {})
        if all(len(each[0].steps) > 1 for each in runs.values()) and runs:
            _draw_curves(left, runs, styles)
        else:
            _draw_averages(left, scores, styles, measure)
        _draw_profiles(right, scores, styles, measure)
        for axes in (left, right):
            axes.set_title(environment, parse_math=False)
            axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0, 1].get_legend_handles_labels()
    columns = 1 + (len(variants) > 3)
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a variant may have dollars in its name
    figure.savefig(png := BytesIO(), dpi=120, format="png")
    return png.getvalue()


def _draw_curves(
    axes: "Axes", runs: Mapping[str, Sequence[FinishedRun]], styles: Mapping[str, Style]
) -> None:
    from matplotlib.ticker import EngFormatter

    for variant, same in runs.items():
        scores_NT = np.stack([run.scores for run in same])
        points = [estimate(iqm, [scores_N], resamples=RESAMPLES) for scores_N in scores_NT.T]
        value, low, high = np.array(points).T
        _draw_band(axes, same[0].steps, value, low, high, styles[variant])
    axes.set(xlabel="environment steps", ylabel="return: IQM over runs, 95 % band")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_profiles(
    axes: "Axes", scores: Mapping[str, Scores], styles: Mapping[str, Style], measure: str
) -> None:
    every = np.concatenate([each for by_environment in scores.values() for each in by_environment])
    margin = 0.02 * (np.ptp(every) or 1)
    thresholds_T = np.linspace(every.min() - margin, every.max() + margin, 401)
    for variant, by_environment in scores.items():
        fractions = partial(profile, thresholds_T=thresholds_T)
        bands = estimate(fractions, by_environment, resamples=RESAMPLES)
        _draw_band(axes, thresholds_T, *bands, styles[variant])
    axes.set(xlabel=f"τ: {measure} score", ylabel="fraction of runs that score > τ", ylim=(-0.02, 1.02))


def _draw_averages(
    axes: "Axes", scores: Mapping[str, Scores], styles: Mapping[str, Style], measure: str
) -> None:
    for place, (variant, by_environment) in enumerate(scores.items()):
        value, low, high = estimate(iqm, by_environment)
        colour = styles[variant]["color"]
        axes.plot([low, high], [place, place], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt")
        axes.plot([value], [place], "o", color=colour)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set(xlabel=f"{measure} score: IQM over runs, 95 % interval")
    axes.invert_yaxis()


def _draw_band(axes: "Axes", x: np.ndarray, value: Any, low: Any, high: Any, style: Style) -> None:
    colour, dashes, label = (style[name] for name in ("color", "linestyle", "label"))
    axes.plot(x, value, linewidth=2, color=colour, linestyle=dashes, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
