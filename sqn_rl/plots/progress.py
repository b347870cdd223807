"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import math
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from sqn_rl.parts.logger.base import Reporter
from sqn_rl.training.evaluation import format_evaluation
from sqn_rl.training.loop import COMPILING
from sqn_rl.types import Counters

SHOWN = {"alpha": "α {:.3g}", "entropy": "entropy {:.3f}", "epsilon": "ε {:.3f}"}
"""The metrics that are shown, if a recipe has them."""
REFRESHES_PER_SECOND = 2

LONGEST = 1e9
"""Seconds from which on the time left is not shown."""


class ProgressReporter(Reporter):
    """Shows steps, return, exploration (α and entropy, or ε), steps/s and the time left.

    Args:
        steps: the budget, in environment steps.
        console: where to write; by default standard error.
        lost: called when the console can no longer be written.
    """

    def __init__(
        self, steps: int, console: Console | None = None, lost: Callable[[], None] = lambda: None
    ) -> None:
        self._steps, self._lost = steps, lost
        self._console = console or Console(file=sys.stderr)
        self._counters, self._begun = Counters(), Counters()
        self._phase, self._numbers = "", ""
        self._bar = _Bar(self._fields, steps, self._console)

    def __enter__(self) -> "ProgressReporter":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, counters: Counters) -> None:
        """Follow these counters; speed is measured from here on."""
        self._counters, self._numbers = counters, ""
        self._begun = Counters(env_steps=counters.env_steps, wall_s=counters.wall_s)

    def phase(self, name: str) -> None:
        """Show the phase, which takes long."""
        self._phase = name
        if name == COMPILING and not self._console.is_terminal:
            self._print(f"{name}…")

    def note(self, text: str) -> None:
        """Print the note."""
        self._print(text)

    def metrics(self, row: dict[str, Any]) -> None:
        """Show new numbers, or print a line."""
        recent = "–" if row["return_mean"] is None else f"{row['return_mean']:.1f}"
        shown = [text.format(row[name]) for name, text in SHOWN.items() if row.get(name) is not None]
        self._phase, self._numbers = "", "  ".join([f"return {recent}", *shown])
        if not self._console.is_terminal:
            fields = self._fields()
            self._print("  ".join(fields[name] for name in ("steps", "text", "speed", "left")))

    def evaluation(self, row: dict[str, Any]) -> None:
        """Print the result."""
        self._print(f"evaluation at {row['env_steps']:,} steps: {format_evaluation(row)}")

    def _fields(self) -> dict[str, Any]:
        """The current values of the fields."""
        steps = min(self._counters.env_steps, self._steps)
        numbers = self._numbers or ("" if self._counters.updates else "random actions")
        seconds = self._counters.wall_s - self._begun.wall_s
        speed = (self._counters.env_steps - self._begun.env_steps) / seconds if seconds > 0 else 0.0
        left = (self._steps - steps) / speed if speed else math.inf
        return {
            "done": steps,
            "steps": f"{steps:,}/{self._steps:,}",
            "text": f"{self._phase}…" if self._phase else numbers,
            "speed": f"{speed:,.0f} steps/s",
            "left": f"{timedelta(seconds=round(left)) if left < LONGEST else '–:––:––'} left",
        }

    def _print(self, line: str) -> None:
        try:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
        except OSError:
            self._lost()


class _Bar(Progress):
    """A bar as wide as the terminal, which asks for current fields whenever it is drawn."""

    def __init__(self, ask: Callable[[], dict[str, Any]], steps: int, console: Console) -> None:
        names = ("steps", "text", "speed", "left")
        steps_column, *others = (TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in names)
        self._ask = ask
        super().__init__(
            steps_column,
            BarColumn(bar_width=None),
            *others,
            console=console,
            expand=True,
            disable=not console.is_terminal,
            refresh_per_second=REFRESHES_PER_SECOND,
        )
        self.add_task("", total=steps, **ask())

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar as it is now."""
        for task in self.tasks:
            task.fields.update(fields := self._ask())
            task.completed = fields["done"]
        yield from super().get_renderables()
