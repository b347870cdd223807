"""The style of all figures, which no ``matplotlibrc`` of the user changes; and their colours."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, which colour-blind people distinguish."""


@contextmanager
def default_style() -> Iterator[None]:
    """A context in which figures are drawn alike for every user, also where LaTeX is missing."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure(**options: Any) -> "Figure":
    """A figure that no window shows; ``options`` are Matplotlib's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: "Figure", dpi: int) -> bytes:
    """A figure as a PNG; compressed little, as that takes most of the time."""
    figure.savefig(png := BytesIO(), dpi=dpi, format="png", pil_kwargs={"compress_level": 3})
    return png.getvalue()
