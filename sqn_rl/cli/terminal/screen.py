"""Print to the terminal: settings and progress of a run, and comparisons; and write their files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sqn_rl.cli import Exit, import_torchrl, print_lines
from sqn_rl.disk import Folder
from sqn_rl.errors import EnvError, SettingError, StorageError, explain, to_type
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.provenance import override
from sqn_rl.recipe.reading import printable
from sqn_rl.recipe.schema import SLOTS

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
        """Make every string printable; strings in tables pass through here too."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Raise the ``BrokenPipeError`` again that is being handled."""
        raise


def show_comparison(comparison: "Comparison") -> None:
    """Print the tables of a comparison, and below them the notes."""
    from sqn_rl.analysis import report

    console = Screen()
    if not console.is_terminal:
        console.width = 200  # wide enough not to wrap lines
    for line in report.measured(comparison):
        console.print(line, soft_wrap=True)
    for title, header, rows in report.tables(comparison):
        columns = (Column(name, overflow="fold") for name in header)  # long names are folded, not cut
        table = Table(*columns, box=None, header_style="bold", padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*row)
        console.print()
        console.print(title, style="bold")
        console.print(table)
    notes = [f"note: {note}" for note in comparison.notes]
    console.print()
    console.print(report.METHOD, *notes, sep="\n", soft_wrap=True)


def make_folder(folder: Path, setting: str) -> Path:
    """Make a folder, unless it exists.

    Args:
        folder: its path.
        setting: the setting that names it.

    Raises:
        SettingError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(setting, str(folder), f"a folder that can be made ({error.strerror})") from error
    return folder


def write_comparison(comparison: "Comparison", folder: Path) -> None:
    """Write ``comparison.md``, ``comparison.csv`` and ``comparison.png``, and say where.

    Raises:
        StorageError: they cannot be written.
    """
    from sqn_rl.analysis import report
    from sqn_rl.analysis.figure import draw_comparison

    files = {
        "comparison.md": report.to_markdown(comparison, FIGURE).encode(),
        "comparison.csv": report.to_csv(comparison).encode(),
        FIGURE: draw_comparison(comparison),
    }
    write_files(files, folder)
    print_lines("")
    for what, name in (("report", "comparison.md"), ("numbers", "comparison.csv"), ("figure", FIGURE)):
        print_lines(f"{what:<8}{folder / name}")


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files by their names into a folder.

    Raises:
        StorageError: they cannot be written.
    """
    try:
        with Folder(folder) as opened:
            for name, data in files.items():
                opened.write_atomic(name, [data])
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}") from error


def train(recipe: Recipe, console: Screen, resume: Path | None = None) -> dict[str, Any]:
    """Train a recipe, and print the result.

    Args:
        recipe: a resolved recipe.
        console: where to print.
        resume: the run directory to resume; None: as the recipe says.

    Returns:
        The summary of the run.
    """
    import_torchrl()
    from sqn_rl.plots.progress import ProgressReporter
    from sqn_rl.runs.experiment import Experiment
    from sqn_rl.training.stopping import StopRequest, signals_to

    announce(recipe, console)
    stop = StopRequest()
    with (
        signals_to(stop.receive),
        ProgressReporter(recipe.run.steps, console, lambda: stop.request("a broken pipe")) as progress,
    ):
        try:
            summary = Experiment(recipe).train(reporters=[progress], should_stop=stop, resume=resume)
        except SystemExit as error:  # raised by a user's part
            raise EnvError(recipe.run.recipe, explain(error)) from error
    done = f"{summary['env_steps']:,} steps"
    lines = [
        f"{done} in {summary['wall_s']:,.0f} s, {summary['steps_per_s'] or 0:,.0f} steps/s",
        f"curve  {summary['out']}/curve.png",
        f"run    {summary['out']}",
    ]
    if summary["status"] == "stopped":
        resuming = to_type("sqn-resume", summary["out"])
        lines.insert(0, f"stopped by {stop.by} after {done}; resume with {resuming}")
    for line in lines:
        console.print(line, soft_wrap=True)
    return summary


def exit_code(summary: Mapping[str, Any]) -> Exit:
    """The exit code for a run that ended without an error."""
    return Exit.STOPPED if summary["status"] == "stopped" else Exit.DONE


def announce(recipe: Recipe, console: Screen) -> None:
    """Print every value that the run is about to use."""
    given = {name: value for name, value in vars(recipe.run).items() if value is not None}
    run = {"recipe": recipe.run.recipe} | given
    rows = [("run", "", run)]
    rows += [(slot.name, recipe.part(slot.name), recipe.fields(slot.name)) for slot in SLOTS]
    for slot, part, values in rows:
        text = " ".join(override(name, value) for name, value in values.items())
        console.print(f"{slot:<14}{part:<11} {text}".rstrip(), soft_wrap=True)
    for note in notes_of(recipe):
        console.print(f"note: {note}", soft_wrap=True)


def notes_of(recipe: Recipe) -> Iterator[str]:
    """What the user may not have meant: that nothing is learned, and settings that no part reads."""
    if recipe.run.steps <= recipe.run.warmup_steps:
        yield f"nothing will be learned within the warm-up ({recipe.origin('warmup_steps')})"
    elif recipe.run.steps <= recipe.run.num_envs:
        why = "as each environment takes one step only"
        yield f"nothing will be learned, {why} ({recipe.origin('num_envs')})"
    for name in recipe.unused_overrides():
        yield f"no part of this run reads {name} ({recipe.origin(name)})"
