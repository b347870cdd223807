"""Where commands print: the terminal; and how a comparison is shown and written."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sqn_rl.cli import print_lines
from sqn_rl.errors import SettingError, StorageError
from sqn_rl.recipe.reading import printable

if TYPE_CHECKING:
    from sqn_rl.analysis.comparison import Comparison

FIGURE = "comparison.png"


class Screen(Console):
    """Rich's console, printing strings literally: no markup, no emoji, no control characters.

    The command, not Rich, handles a broken pipe.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string passes here, in tables too."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Called while a ``BrokenPipeError`` is handled, which is raised again."""
        raise


def show(comparison: "Comparison") -> None:
    """Print the tables, and below them the notes."""
    from sqn_rl.analysis import report

    console = Screen()
    if not console.is_terminal:
        console.width = 200  # not a terminal: lines are not wrapped
    for line in report.measured(comparison):
        console.print(line, soft_wrap=True)
    for title, header, rows in report.tables(comparison):
        table = Table(*header, box=None, header_style="bold", padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*row)
        console.print()
        console.print(title, style="bold")
        console.print(table)
    notes = [f"note: {note}" for note in comparison.notes]
    console.print()
    console.print(report.METHOD, *notes, sep="\n", soft_wrap=True)


def make(folder: Path, setting: str) -> Path:
    """Make a folder, unless it is there.

    Args:
        folder: its path.
        setting: the setting that names it.

    Raises:
        SettingError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(setting, str(folder), f"a folder that can be made ({error.strerror})") from error
    return folder


def write(comparison: "Comparison", folder: Path) -> None:
    """Write ``comparison.md``, ``comparison.csv`` and ``comparison.png``, and say where.

    Raises:
        StorageError: they cannot be written.
    """
    from sqn_rl.analysis import report
    from sqn_rl.analysis.figure import draw_comparison
    from sqn_rl.disk import Folder

    files = {
        "comparison.md": report.to_markdown(comparison, FIGURE).encode(),
        "comparison.csv": report.to_csv(comparison).encode(),
        FIGURE: draw_comparison(comparison),
    }
    try:
        with Folder(folder) as opened:
            for name, data in files.items():
                opened.write_atomic(name, [data])
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}") from error
    print_lines("")
    for what, name in (("report", "comparison.md"), ("numbers", "comparison.csv"), ("figure", FIGURE)):
        print_lines(f"{what:<8}{folder / name}")
