"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sqn_rl.parts.logger.base import Reporter
from sqn_rl.training.evaluation import cut_note

SHOWN = {"alpha": "α {:.3g}", "entropy": "entropy {:.3f}", "epsilon": "ε {:.3f}"}
"""The metrics shown, where a recipe has them."""


class ProgressReporter(Reporter):
    """Shows steps, return, exploration (α and entropy, or ε), steps/s and the time left.

    Args:
        steps: the budget, in environment steps.
        console: where to write.
        lost: called when the console's reader has closed it.
    """

    def __init__(self, steps: int, console: Console, lost: Callable[[], None] = lambda: None) -> None:
        self._steps, self._console, self._lost = steps, console, lost
        self._bar = Progress(
            TextColumn("{task.completed:,}/{task.total:,}"),
            BarColumn(bar_width=8),
            TextColumn("{task.description}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("random actions", total=steps)

    def __enter__(self) -> "ProgressReporter":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def metrics(self, row: dict[str, Any]) -> None:
        """Move the bar, or print a line."""
        speed = row["env_steps"] / row["wall_s"]
        recent = "–" if row["return_mean"] is None else f"{row['return_mean']:.1f}"
        shown = [text.format(row[name]) for name, text in SHOWN.items() if name in row]
        numbers = "  ".join([f"return {recent}", *shown, f"{speed:,.0f} steps/s"])
        if self._console.is_terminal:
            self._bar.update(self._task, completed=row["env_steps"], description=numbers.replace("  ", " "))
        else:
            left = (self._steps - row["env_steps"]) / speed
            self._print(f"{row['env_steps']:,}/{self._steps:,}  {numbers}  {left:,.0f} s left")

    def evaluation(self, row: dict[str, Any]) -> None:
        """Print the result."""
        how = "greedy" if row["greedy"] else "sampled"
        self._print(
            f"evaluation at {row['env_steps']:,} steps: {row['mean']:.1f} ± {row['std']:.1f} "
            f"(mean ± std of {row['episodes']} {how} episodes{cut_note(row['cut'], row['lengths'])})"
        )

    def _print(self, line: str) -> None:
        try:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
        except OSError:
            self._lost()
