"""Draw a moment of an episode: the screen, and below it Q(s, a) and π(a|s) of every action.

Legend: A actions; a picture is ``[H, W, 3]`` uint8.
"""

from collections.abc import Iterator
from functools import cache
from math import floor, log, log10
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sqn_rl.plots.style import BLUE, ORANGE


class Moment(NamedTuple):
    """One step of an episode, before the action is executed."""

    screen: np.ndarray
    """The rendered screen, ``[H, W, 3]`` uint8."""
    q: Tensor
    """Q(s, ·) of the mean weights, ``[A]``, reward units."""
    pi: Tensor | None
    """π(·|s), ``[A]``, which sums to 1; None where the actor has no policy that we know of."""
    action: int
    """The chosen action."""
    episode: int
    """Counted from 1."""
    step: int
    """Within the episode, counted from 0."""
    score: float
    """The return so far."""
    allowed: Tensor | None = None
    """The allowed actions, ``[A]`` bool; None: all are."""
    alpha: float | None = None
    """The temperature α of the actor, in reward units; None where it has none."""


class Palette(NamedTuple):
    """The colours of a picture, except those of the screen."""

    page: str
    ink: str
    grey: str
    faint: str
    bar: str
    chosen: str


LIGHT = Palette("#ffffff", "#1f2933", "#5f6b76", "#e4e7eb", BLUE, ORANGE)
DARK = Palette("#1b2027", "#e6e9ec", "#9aa5b1", "#323a44", "#56B4E9", "#E69F00")
"""The colours for dark pages of ``sqn-watch``."""
WIDTH, SCREEN = 480, 420
"""The width of a frame in pixels, with text readable even at 400; and the largest height of the screen."""
EDGE, HEADER, ROW = 12, 104, 22
NAME, Q, Q_TEXT, PI, PI_TEXT = (12, 122), (128, 248), (252, 330), (342, 422), (426, 468)
"""The columns of a row, from and to: the action, Q minus its mean and the number, π and the number."""
MOST_ROWS = 24
"""The most actions in a picture: the chosen one and the best allowed ones, in their order."""


class Frames:
    """Makes pictures of the moments of one film.

    The bars of Q are its differences from the mean over the allowed actions, zero in the middle. Their scale
    never shrinks: it is 1, 2 or 5 times a power of ten, the next above the largest difference in the film so
    far.

    Args:
        title: the first line.
        names: the names of the actions.
        palette: the colours.
    """

    def __init__(self, title: str, names: list[str], palette: Palette = LIGHT) -> None:
        self._title, self._names, self._palette, self._largest = title, names, palette, 0.0

    def draw(self, moment: Moment) -> Any:
        """A frame, as an image of Pillow; its sides are even, as MP4 requires."""
        from PIL import Image, ImageDraw

        screen = _scaled(Image.fromarray(moment.screen))
        rows, self._largest = _rows(moment), max(self._largest, *map(abs, _differences(moment)))
        height = screen.height + HEADER + ROW * len(rows) + EDGE
        palette = self._palette
        frame = Image.new("RGB", (WIDTH, -(-height // 2) * 2), palette.page)
        frame.paste(palette.faint, (0, 0, WIDTH, screen.height))
        frame.paste(screen, ((WIDTH - screen.width) // 2, 0))
        pen, top = ImageDraw.Draw(frame), screen.height
        self._write(pen, (EDGE, WIDTH - EDGE), top + 8, self._title, 15)
        counters = f"episode {moment.episode}   step {moment.step}   return {moment.score:g}"
        self._write(pen, (EDGE, WIDTH - EDGE), top + 31, counters, 13)
        mean = f"mean Q {_mean(moment):.4g}"
        self._write(pen, (EDGE, WIDTH - EDGE), top + 50, "   ".join([mean, *_policy_line(moment)]), 13)
        self._draw_scale(pen, top + HEADER)
        if moment.pi is not None:
            self._write(pen, (PI[0], PI_TEXT[1]), top + 72, "π(a|s)", 12)
            self._write(pen, PI, top + 85, "0", 11, palette.grey)
            self._write(pen, PI, top + 85, "1", 11, palette.grey, "ra")
        for number, row in enumerate(rows):
            self._draw_row(pen, top + HEADER + ROW * number, row, moment)
        return frame

    @property
    def _scale(self) -> float:
        """The difference that fills half of a bar, in reward units."""
        if not self._largest:
            return 1.0
        power = 10.0 ** floor(log10(self._largest))
        steps = (factor * power for factor in (1, 2, 5, 10))
        return next(step for step in steps if self._largest <= step * (1 + 1e-9))

    def _draw_scale(self, pen: Any, y: int) -> None:
        self._write(pen, (Q[0], Q_TEXT[1]), y - 32, "Q(s, a) − mean, reward units", 12)
        for place, text in (("la", f"−{self._scale:g}"), ("ma", "0"), ("ra", f"+{self._scale:g}")):
            self._write(pen, Q, y - 19, text, 11, self._palette.grey, place)

    def _draw_row(self, pen: Any, y: int, action: int, moment: Moment) -> None:
        palette, chosen, name = self._palette, action == moment.action, self._names[action]
        if not _allowed(moment)[action]:
            self._write(pen, NAME, y, f"    {name}", 12, palette.grey)
            self._write(pen, (Q[0], Q_TEXT[1]), y, "not allowed", 12, palette.grey)
            return
        colour = palette.chosen if chosen else palette.bar
        difference = float(moment.q[action]) - _mean(moment)
        self._write(pen, NAME, y, f"{'▶' if chosen else '   '} {name}", 12)
        middle, half = sum(Q) // 2, (Q[1] - Q[0]) // 2
        pen.rectangle((Q[0], y + 2, Q[1], y + ROW - 7), palette.faint)
        end = middle + round(half * difference / self._scale)
        pen.rectangle((min(middle, end), y + 2, max(middle, end), y + ROW - 7), colour)
        pen.line((middle, y, middle, y + ROW - 5), palette.ink)
        self._write(pen, Q_TEXT, y, f"{difference:+.3g}".replace("-", "−"), 12, place="ra")
        if moment.pi is not None:
            pi, (left, right) = float(moment.pi[action]), PI
            pen.rectangle((left, y + 2, right, y + ROW - 7), palette.faint)
            pen.rectangle((left, y + 2, left + round((right - left) * pi), y + ROW - 7), colour)
            self._write(pen, PI_TEXT, y, f"{pi:.2f}", 12, place="ra")

    def _write(
        self,
        pen: Any,
        column: tuple[int, int],
        y: int,
        text: str,
        size: int,
        colour: str = "",
        place: str = "la",
    ) -> None:
        """Write a line into a column, at its left, middle or right; a text that is too long ends in ``…``."""
        left, right = column
        text = whole = text[:200]
        font = _font(size)
        while font.getlength(text) > right - left:
            whole = whole[:-1]
            text = f"{whole}…"
        x = {"l": left, "m": (left + right) / 2, "r": right}[place[0]]
        pen.text((x, y), text, colour or self._palette.ink, font, anchor=place)


def _rows(moment: Moment) -> list[int]:
    """The actions that are shown."""
    q_A, allowed_A = moment.q.tolist(), _allowed(moment)
    best = sorted(range(len(q_A)), key=lambda a: (a != moment.action, not allowed_A[a], -q_A[a]))
    return sorted(best[:MOST_ROWS])


def _allowed(moment: Moment) -> list[bool]:
    return [True] * len(moment.q) if moment.allowed is None else moment.allowed.tolist()


def _mean(moment: Moment) -> float:
    """The mean of Q over the allowed actions."""
    return float(moment.q[_allowed(moment)].double().mean())


def _differences(moment: Moment) -> list[float]:
    """Q of the allowed actions minus their mean."""
    q_A = moment.q[_allowed(moment)].double()
    differences: list[float] = (q_A - q_A.mean()).tolist()
    return differences


def _policy_line(moment: Moment) -> Iterator[str]:
    """The temperature α, and the policy's entropy with its maximum."""
    if moment.alpha is not None:
        yield f"α {moment.alpha:.3g}"
    if moment.pi is not None:
        entropy = float(torch.special.entr(moment.pi).sum())
        yield f"entropy {entropy:.2f} of {log(sum(_allowed(moment))):.2f} nats"


def _scaled(screen: Any) -> Any:
    """Enlarge small screens by whole factors; shrink those that do not fit."""
    from PIL.Image import Resampling

    factor = min(WIDTH / screen.width, SCREEN / screen.height)
    factor = int(factor) if factor >= 1 else factor
    size = (max(1, round(screen.width * factor)), max(1, round(screen.height * factor)))
    return screen.resize(size, Resampling.NEAREST if factor >= 1 else Resampling.LANCZOS)


@cache
def _font(size: int) -> Any:
    """The font that Matplotlib brings: it has Greek letters."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
