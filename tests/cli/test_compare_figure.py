"""``comparison.png``: lines, bands and legend for few and for many runs, and labels that do not overlap."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
from cli.test_compare import Write, several
from cli.test_compare import trained as trained
from cli.test_compare import write as write

from sqn_rl.analysis import figure as drawing
from sqn_rl.analysis.comparison import compare
from sqn_rl.analysis.figure import THICK, THIN, make_figure
from sqn_rl.analysis.finished import find_runs, read_runs


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "RESAMPLES", 50)


def figure_of(*places: str) -> Any:
    return make_figure(compare(*read_runs(find_runs(places))))


def drawn(axes: Any) -> tuple[list[float], int]:
    """The widths of the lines of a panel, and how many bands it has."""
    return sorted(line.get_linewidth() for line in axes.lines), len(axes.collections)


@pytest.mark.parametrize(
    ("runs", "curves", "profiles"),
    [
        (1, ([THIN], 0), ([THIN], 0)),
        (2, ([THIN] * 2 + [THICK], 0), ([THICK], 0)),
        (3, ([THIN] * 3 + [THICK], 1), ([THICK], 0)),
        (10, ([THIN] * 10 + [THICK], 1), ([THICK], 1)),
    ],
)
def test_single_runs_are_thin_lines_and_bands_need_enough_runs(
    runs: int, curves: tuple, profiles: tuple, write: Write
) -> None:
    several(write, "plain", [10 * n for n in range(1, 1 + runs)])
    left, right = figure_of("plain").axes
    assert (drawn(left), drawn(right)) == (curves, profiles)
    for line, final in zip(left.lines, range(1, 1 + runs), strict=False):
        assert list(line.get_ydata()) == [0, 5 * final, 10 * final]
    assert (left.get_title(), right.get_title()) == (
        "CartPole-v1: learning curves",
        "CartPole-v1: profiles of the final scores",
    )


def test_every_variant_is_in_the_legend_in_its_colour(write: Write) -> None:
    """Also a variant without a run on the first environment."""
    write("a", "env=acrobot")
    write("b")
    write("c", "head=dueling")
    drawing_of = figure_of("a", "b", "c")
    (legend,) = drawing_of.legends
    entries = dict(zip([text.get_text() for text in legend.get_texts()], legend.legend_handles, strict=True))
    assert [*entries] == ["sqn", "sqn head=dueling"]
    colours = [line.get_color() for line in drawing_of.axes[-1].lines]
    assert [entry.get_color() for entry in entries.values()] == [*dict.fromkeys(colours)]


def test_a_name_that_begins_with_an_underscore_is_in_the_legend(write: Write) -> None:
    for name, recipe in (("a", "sqn"), ("b", "_mine")):
        path = write(name) / "recipe.yaml"
        path.write_text(path.read_text().replace("recipe: sqn", f"recipe: {recipe}"))
    (legend,) = figure_of("a", "b").legends
    assert {text.get_text().strip() for text in legend.get_texts()} == {"sqn", "_mine"}


def texts_of(figure: Any) -> list[Any]:
    """Every visible text, with its bounding box."""
    figure.canvas.draw()
    (legend,) = figure.legends
    texts = [legend.get_title(), *legend.get_texts()]
    for axes in figure.axes:
        texts.append(axes.title)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            seen = (tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)
            texts += [axis.label, axis.offsetText, *(tick.label1 for tick in seen)]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]


LONG = [f"optimizer.lr=0.00{n}" for n in range(1, 4)]
MORE = ["head=dueling", "replay=prioritized", "layers=noisy", "encoder.hidden=[300,200,100,50]", "gamma=0.98"]


@pytest.mark.parametrize("scores", [[1, 2, 3], [5]], ids=["curves", "averages"])
@pytest.mark.parametrize(
    "variants", [[[]], [[], *([each] for each in LONG)], [[], MORE, *([*MORE, each] for each in LONG)]]
)
def test_labels_do_not_overlap_and_are_inside_the_figure(
    variants: Sequence[Sequence[str]], scores: Sequence[float], write: Write
) -> None:
    for number, overrides in enumerate(variants):
        for env in ("cartpole", "acrobot"):
            write(f"runs/{number}/{env}", *overrides, f"env={env}", scores=[1000 * each for each in scores])
    figure = figure_of("runs")
    texts, whole = texts_of(figure), figure.bbox
    assert len(texts) > 20
    for text, place in texts:
        inside = whole.x0 <= place.x0 <= place.x1 <= whole.x1 and whole.y0 <= place.y0 <= place.y1 <= whole.y1
        assert inside, (text, place)
    for (text, place), (other, there) in combinations(texts, 2):
        assert not place.overlaps(there), (text, other)
    for axes in figure.axes:
        assert axes.get_window_extent().width > 0.25 * whole.width
