"""Draw ``comparison.png``: learning curves and performance profiles, one row per environment.

A run is a thin line. A statistic of several runs is a thick one, with a band if there are enough of them.
"""

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sqn_rl.analysis.comparison import FINAL, NORMALISED, Comparison
from sqn_rl.analysis.finished import FinishedRun
from sqn_rl.analysis.statistics import Scores, estimate, iqm, profile
from sqn_rl.plots.style import COLOURS, default_style, new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = Mapping[str, Any]

DASHES = ("-", "--", ":", "-.")
RESAMPLES = 2_000
"""The number of bootstrap resamples, enough for bands."""
THIN, THICK = 0.8, 2.2
ENOUGH, ENOUGH_FOR_PROFILE = 3, 10
"""The fewest runs for which an interval is drawn. That of a profile of fewer runs spans nearly [0, 1]."""
KEY = (
    "thin: single runs; thick: IQM of several, or their profile; band: 95 % interval, "
    f"from {ENOUGH} runs on, of a profile from {ENOUGH_FOR_PROFILE} on"
)


@default_style()
def draw_comparison(comparison: Comparison) -> bytes:
    """Draw the variants against each other.

    Args:
        comparison: the comparison to draw.

    Returns:
        A PNG.
    """
    return to_png(make_figure(comparison), dpi=120)


def make_figure(comparison: Comparison) -> "Figure":
    """The figure of a comparison: two panels for each environment, and a legend below them."""
    from matplotlib.lines import Line2D

    variants = list(dict.fromkeys(row.variant for row in comparison.rows))
    styles = _styles(variants)
    columns = 2 if max(map(len, variants)) < 60 and len(variants) > 3 else 1
    labels = [textwrap.fill(variant, 130 // columns, subsequent_indent="  ") for variant in variants]
    labels = [f" {label}" if label.startswith("_") else label for label in labels]  # else there is no entry
    lines = sum(label.count("\n") + 1 for label in labels) / columns + 2
    environments = list(dict.fromkeys(row.environment for row in comparison.rows))
    figure = new_figure(figsize=(11, 3.6 * len(environments) + 0.22 * lines), layout="constrained")
    panels = figure.subplots(len(environments), 2, squeeze=False)
    for environment, (left, right) in zip(environments, panels, strict=True):
        _draw_environment(left, right, comparison, environment, styles)
    handles = [Line2D([], [], **styles[variant]) for variant in variants]
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": 9}
    legend = figure.legend(handles, labels, title=KEY, title_fontsize=9, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a variant may have dollars in its name
    return figure


def _styles(variants: Sequence[str]) -> dict[str, Style]:
    """The colour and dashes of each variant."""
    return {
        variant: {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number % len(DASHES)],
        }
        for number, variant in enumerate(variants)
    }


def _draw_environment(
    left: "Axes", right: "Axes", comparison: Comparison, environment: str, styles: Mapping[str, Style]
) -> None:
    """Draw the two panels of an environment: curves, or averages if there are none; and profiles."""
    measure = FINAL if (environment, FINAL) in comparison.tables else f"{FINAL}{NORMALISED}"
    scores = comparison.tables[environment, measure]
    runs = comparison.groups.get(environment, {})
    if runs and all(len(each[0].steps) > 1 for each in runs.values()):
        _draw_curves(left, runs, styles)
        title = "learning curves"
    else:
        _draw_averages(left, scores, styles, measure)
        title = f"{measure} scores"
    _draw_profiles(right, scores, styles, measure)
    for axes, panel in ((left, title), (right, f"profiles of the {measure} scores")):
        axes.set_title(textwrap.fill(f"{environment}: {panel}", 60), parse_math=False, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.locator_params(axis="x", nbins=6)


def _draw_curves(
    axes: "Axes", runs: Mapping[str, Sequence[FinishedRun]], styles: Mapping[str, Style]
) -> None:
    from matplotlib.ticker import EngFormatter

    for variant, same in runs.items():
        style = styles[variant]
        for run in same:
            dashes = style["linestyle"] if len(same) == 1 else "-"
            axes.plot(run.steps, run.scores, linewidth=THIN, color=style["color"], linestyle=dashes)
        if len(same) > 1:
            scores_NT = np.stack([run.scores for run in same])
            points = [estimate(iqm, [scores_N], resamples=RESAMPLES) for scores_N in scores_NT.T]
            _draw_line(axes, same[0].steps, np.array(points).T, style, len(same), enough=ENOUGH)
    axes.set(xlabel="environment steps", ylabel="return of an evaluation")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_profiles(
    axes: "Axes", scores: Mapping[str, Scores], styles: Mapping[str, Style], measure: str
) -> None:
    every = np.concatenate([each for by_environment in scores.values() for each in by_environment])
    margin = 0.02 * (np.ptp(every) or abs(every[0]) or 1)
    thresholds_T = np.linspace(every.min() - margin, every.max() + margin, 401)
    for variant, by_environment in scores.items():
        fractions = partial(profile, thresholds_T=thresholds_T)
        bands = estimate(fractions, by_environment, resamples=RESAMPLES)
        _draw_line(
            axes, thresholds_T, bands, styles[variant], _fewest(by_environment), enough=ENOUGH_FOR_PROFILE
        )
    axes.set(xlabel=f"τ: {measure} score", ylabel="fraction of runs that score > τ", ylim=(-0.02, 1.02))


def _draw_averages(
    axes: "Axes", scores: Mapping[str, Scores], styles: Mapping[str, Style], measure: str
) -> None:
    for place, (variant, by_environment) in enumerate(scores.items()):
        value, low, high = estimate(iqm, by_environment)
        colour, every = styles[variant]["color"], np.concatenate(by_environment)
        axes.plot(every, np.full(len(every), place), "|", color=colour, markersize=12, markeredgewidth=0.8)
        if _fewest(by_environment) >= ENOUGH:
            axes.plot(
                [low, high], [place, place], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt"
            )
        if len(every) > 1:
            axes.plot([value], [place], "o", color=colour)
    names = [textwrap.fill(textwrap.shorten(variant, 75, placeholder=" …"), 25) for variant in scores]
    axes.set_yticks(range(len(scores)), names, fontsize=8, parse_math=False)
    axes.set(xlabel=f"{measure} score", ylim=(len(scores) - 0.5, -0.5))


def _fewest(by_environment: Scores) -> int:
    """The number of runs in the environment with the fewest."""
    return min(map(len, by_environment))


def _draw_line(axes: "Axes", x: np.ndarray, values: Any, style: Style, runs: int, *, enough: int) -> None:
    value, low, high = values
    axes.plot(x, value, linewidth=THICK if runs > 1 else THIN, **style)
    if runs >= enough:
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
