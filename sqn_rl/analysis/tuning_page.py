"""Write ``tuning.html``: the best settings, the importance of each, and all trials, on one page."""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from sqn_rl.analysis.space import Interval, Tuned
from sqn_rl.analysis.tuning import DONE, FIRST_SEED, Trial, Tuning
from sqn_rl.plots.style import BLUE, default_style, new_figure, to_png
from sqn_rl.recipe.reading import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OBJECTIVE = (
    "Objective: the mean return of all evaluations during training, over all seeds of a trial. A pruned "
    "trial was stopped as it was behind the median of the others. The best of many trials looks better than "
    "it is: run it again with other seeds before you report it."
)

STYLE = """
body { margin: 0 auto; padding: 1rem; max-width: 70rem; font: 15px/1.45 system-ui, sans-serif; }
body { color: #1f2933; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 1.5rem; } img { max-width: 100%; }
p { color: #5f6b76; overflow-wrap: anywhere; } code { overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.75rem 0.15rem 0; text-align: left; border-bottom: 1px solid #e4e7eb; }
"""


def importances(tuning: Tuning) -> dict[str, float]:
    """The importance of each setting for being among the best (PED-ANOVA); empty if all means are equal."""
    from optuna.importance import get_param_importances

    means = [trial.mean for trial in tuning.done]
    if len(means) < 2 or min(means) == max(means):
        return {}
    return get_param_importances(tuning.study)


def to_html(tuning: Tuning, command: str) -> str:
    """The page of a search.

    Args:
        tuning: the search; at least one trial is done.
        command: the command that runs the best settings.
    """
    best = tuning.done[0]
    title = f"Tuning of {tuning.base.run.recipe}: {len(tuning.done)} of {len(tuning.trials)} trials are done"
    picture = b64encode(draw_tuning(tuning)).decode()
    lines = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{_escaped(title)}</h1>",
        f"<p>{_escaped(OBJECTIVE)}</p>",
        f"<h2>Best: trial {best.name}, mean return {best.mean:.1f}</h2>",
        f"<p><code>{_escaped(' '.join(best.overrides))}</code></p>",
        f"<p>Run it: <code>{_escaped(command)}</code></p>",
        f'<img alt="Importance of the settings, and parallel coordinates of the trials" '
        f'src="data:image/png;base64,{picture}">',
        "<h2>All trials</h2>",
        *_table(tuning),
        f"<p>{tuning.seeds} runs a trial, with seeds from {FIRST_SEED} on.</p>",
        "</body></html>",
    ]
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return escape(printable(text))


def _table(tuning: Tuning) -> Iterator[str]:
    """The trials, the best first, then those that are not done."""
    others = [trial for trial in tuning.trials.values() if trial.status != DONE]
    yield "<table>"
    yield _row("th", ["trial", "mean return", *(each.key for each in tuning.space), "how it ended"])
    for trial in [*tuning.done, *sorted(others, key=lambda trial: trial.number)]:
        values = [each.override(trial.values[each.key]).partition("=")[2] for each in tuning.space]
        yield _row("td", [trial.name, f"{trial.mean:.1f}" if trial.means else "", *values, ending(trial)])
    yield "</table>"


def _row(kind: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{_escaped(cell)}</{kind}>' for cell in cells)}</tr>"


def ending(trial: Trial) -> str:
    """How a trial ended, in words."""
    after = f" after {max(trial.means):,} steps" if trial.means else ""
    if trial.status == DONE:
        return "done"
    if not trial.status:
        return "not ended"
    return f"{trial.status}{after}{f': {trial.why}' if trial.why else ''}"


@default_style()
def draw_tuning(tuning: Tuning) -> bytes:
    """Draw the importance of the settings, and every trial that is done as a line through its values.

    Args:
        tuning: the search to draw.

    Returns:
        A PNG.
    """
    figure = new_figure(figsize=(11, 7), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1, 2))
    _draw_importances(above, importances(tuning))
    _draw_parallel(below, tuning.space, tuning.done)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return to_png(figure, dpi=120)


def _draw_importances(axes: "Axes", found: Mapping[str, float]) -> None:
    axes.set(title="importance", xlim=(0, 1))
    axes.set_yticks(range(len(found)), list(found), parse_math=False)
    axes.barh(range(len(found)), list(found.values()), color=BLUE, height=0.6)
    axes.invert_yaxis()
    if not found:
        axes.text(
            0.5, 0.5, "unknown until two trials have different means", ha="center", transform=axes.transAxes
        )


def _draw_parallel(axes: "Axes", space: Sequence[Tuned], done: Sequence[Trial]) -> None:
    """Draw one line per trial, darker for better ones, over an axis for each setting and one for the mean."""
    from matplotlib import colormaps

    means_N = np.array([trial.mean for trial in done])
    low, width = means_N.min(), np.ptp(means_N) or 1
    for place, each in enumerate(space):
        axes.axvline(place, color="#999999", linewidth=1)
        for end, label in zip(*_marks(each), strict=True):
            axes.annotate(label, (place, end), (3, 0), "data", "offset points", va="center", parse_math=False)
    axes.axvline(len(space), color="#999999", linewidth=1)
    for end in (0.0, 1.0):
        label = f"{low + end * width:.1f}"
        axes.annotate(label, (len(space), end), (3, 0), "data", "offset points", va="center")
    for trial in reversed(done):
        shade = float((trial.mean - low) / width)
        heights = [*(_height(each, trial.values[each.key]) for each in space), shade]
        colour = colormaps["viridis_r"](shade)
        axes.plot(range(len(heights)), heights, color=colour, linewidth=2 if trial is done[0] else 1)
    axes.set(
        title="trials that are done, the better the darker", ylim=(-0.05, 1.05), xlim=(-0.1, len(space) + 0.3)
    )
    axes.set_xticks(range(len(space) + 1), [*(each.key for each in space), "mean return"], parse_math=False)
    axes.set_yticks([])


def _marks(each: Tuned) -> tuple[list[float], list[str]]:
    """The labels of an axis: their heights, and their texts."""
    labels = [f"{end:g}" if isinstance(end, float) else f"{end:.20}" for end in each.ends]
    return [_height(each, end) for end in each.ends], labels


def _height(each: Tuned, value: Any) -> float:
    """The height of a value on its axis, in [0, 1]."""
    if isinstance(each, Interval):
        low, high, height = np.log([*each.ends, value]) if each.is_log else (*each.ends, value)
        return float((height - low) / (high - low))
    return each.ends.index(value) / max(1, len(each.ends) - 1)
