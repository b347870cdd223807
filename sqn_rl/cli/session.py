"""What ``sqn-run`` and ``sqn-resume`` do with a recipe: print it, train it, and print the result."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqn_rl.cli import Exit
from sqn_rl.errors import EnvError, blame
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.provenance import override
from sqn_rl.recipe.schema import SLOTS
from sqn_rl.training.stopping import StopRequest, signals_to

if TYPE_CHECKING:
    from sqn_rl.cli.screen import Screen


def train(recipe: Recipe, console: "Screen", resume: Path | None = None) -> dict[str, Any]:
    """Train a recipe, and print the result.

    Args:
        recipe: a resolved recipe.
        console: where to print.
        resume: the run directory to resume; None: as the recipe says.

    Returns:
        The summary of the run.
    """
    from sqn_rl.plots.progress import ProgressReporter
    from sqn_rl.runs.experiment import Experiment

    announce(recipe, console)
    stop = StopRequest()
    with (
        signals_to(stop.receive),
        ProgressReporter(recipe.run.steps, console, lambda: stop.request("a broken pipe")) as progress,
    ):
        try:
            summary = Experiment(recipe).train(reporters=[progress], should_stop=stop, resume=resume)
        except SystemExit as error:  # of a user's part, with whatever code
            raise EnvError(recipe.run.recipe, blame(error)) from error
    done = f"{summary['env_steps']:,} steps"
    lines = [
        f"{done} in {summary['wall_s']:,.0f} s, {summary['steps_per_s'] or 0:,.0f} steps/s",
        f"curve  {summary['out']}/curve.png",
        f"run    {summary['out']}",
    ]
    if summary["status"] == "stopped":
        resuming = shlex.join(["sqn-resume", summary["out"]])
        lines.insert(0, f"stopped by {stop.by} after {done}; resume with `{resuming}`")
    for line in lines:
        console.print(line, soft_wrap=True)
    return summary


def exit_code(summary: Mapping[str, Any]) -> Exit:
    """The exit code for a run that ended without an error."""
    return Exit.STOPPED if summary["status"] == "stopped" else Exit.DONE


def announce(recipe: Recipe, console: "Screen") -> None:
    """Print every value that the run is about to use."""
    run = {"recipe": recipe.run.recipe} | {
        k: value for k, value in vars(recipe.run).items() if value is not None
    }
    rows = [("run", "", run)]
    rows += [(slot.name, recipe.part(slot.name), recipe.fields(slot.name)) for slot in SLOTS]
    for slot, part, values in rows:
        text = " ".join(override(name, value) for name, value in values.items())
        console.print(f"{slot:<14}{part:<11} {text}".rstrip(), soft_wrap=True)
    if recipe.run.steps <= recipe.run.warmup_steps:
        origin = recipe.origin("warmup_steps")
        console.print(f"note: nothing will be learned within the warm-up ({origin})")
    for name in recipe.unread():
        console.print(f"note: no part of this run reads {name} ({recipe.origin(name)})")
