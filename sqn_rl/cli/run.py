"""``sqn-run``: train a recipe, or sweep over several."""

import signal
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from types import FrameType
from typing import TYPE_CHECKING

from sqn_rl.catalogue import RECIPE, Catalogue
from sqn_rl.cli import Exit, catalogue_of, command, options, report
from sqn_rl.cli.completion import SCRIPT, complete
from sqn_rl.config import SLOTS, Run
from sqn_rl.errors import RecipeError
from sqn_rl.overrides import expand
from sqn_rl.provenance import flow
from sqn_rl.recipe import Recipe, compose_recipe

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = """Checks a recipe, trains it, evaluates it, and writes a run directory.

  sqn-run                                         the recipe `sqn` on CartPole
  sqn-run recipe=sqn_dueling env=acrobot          another recipe, another part
  sqn-run env=atari_ram env.game=breakout         a part's field
  sqn-run steps=20000 seed=3                      run-level settings
  sqn-run -m head=linear,dueling "seed=range(3)"  a sweep: every combination, one after the other"""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code; of a sweep, that of the first job that did not end well.
    """
    parser = options("sqn-run", DESCRIPTION)
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="what to change; see below")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="sweep over the values given with commas or range()"
    )
    parser.add_argument(
        "--completion", nargs="?", const="", metavar="LINE", help='eval "$(sqn-run --completion)" in bash'
    )
    parser.epilog = _what_there_is(Catalogue())
    arguments = parser.parse_intermixed_args(argv)
    if arguments.completion is not None:
        lines = complete(arguments.completion, parser) if arguments.completion else [SCRIPT]
        print("".join(f"{line}\n" for line in lines), end="")
        return Exit.DONE
    recipes = _recipes(arguments)

    from rich.console import Console

    console, codes = Console(), []
    for number, recipe in enumerate(recipes, 1):
        if len(recipes) > 1:
            console.rule(f"{number} of {len(recipes)}", characters="-")
        codes.append(_train(recipe, console, go_on=len(recipes) > 1))
        if codes[-1] == Exit.STOPPED:
            break
    return next((code for code in codes if code != Exit.DONE), Exit.DONE)


def _recipes(arguments: Namespace) -> list[Recipe]:
    """Everything to train, composed, so that a mistake in the last job is found before the first starts."""
    catalogue = catalogue_of(arguments)
    jobs = expand(arguments.overrides, catalogue) if arguments.multirun else [arguments.overrides]
    recipes = [compose_recipe("sqn", *job, catalogue=catalogue) for job in jobs]
    for recipe in recipes:
        if recipe.run.out and [each.run.out for each in recipes].count(recipe.run.out) > 1:
            message = f"out = {recipe.run.out!r}: several jobs of the sweep would write there"
            raise RecipeError(message, recipe.origin("out"), "leave it out, or give each its own: out=a,b")
    return recipes


def _train(recipe: Recipe, console: "Console", go_on: bool) -> int:
    from sqn_rl.experiment import Experiment
    from sqn_rl.progress import ProgressReporter

    _announce(recipe, console)
    try:
        with _stop_requests() as stopped, ProgressReporter(recipe.run.steps, console) as progress:
            summary = Experiment(recipe).train(reporters=[progress], should_stop=lambda: bool(stopped))
    except Exception as error:
        if not go_on:
            raise
        return report(error)
    done = f"{summary['env_steps']:,} steps"
    lines = [
        f"{done} in {summary['wall_s']:,.0f} s, {summary['steps_per_s']:,.0f} steps/s",
        f"curve  {summary['out']}/curve.png",
        f"run    {summary['out']}",
    ]
    if summary["status"] == "stopped":
        lines.insert(0, f"stopped by {stopped[0]} after {done}; the weights are saved")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    return Exit.STOPPED if summary["status"] == "stopped" else Exit.DONE


def _announce(recipe: Recipe, console: "Console") -> None:
    """Print every value that the run is about to use."""
    run = {name: value for name, value in vars(recipe.run).items() if value is not None}
    rows = [("run", "", run)]
    rows += [(slot.name, recipe.part(slot.name), recipe.fields(slot.name)) for slot in SLOTS]
    for slot, part, values in rows:
        text = " ".join(f"{name}={flow(value)}".replace(" ", "") for name, value in values.items())
        console.print(f"{slot:<14}{part:<11} {text}".rstrip(), highlight=False, soft_wrap=True, markup=False)
    if recipe.run.steps <= recipe.run.warmup_steps:
        origin = recipe.origin("warmup_steps")
        console.print(f"note: nothing will be learned within the warm-up ({origin})", highlight=False)


@contextmanager
def _stop_requests() -> Iterator[list[str]]:
    """Collect the signals that ask for a clean stop; a second one stops at once."""
    received: list[str] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _what_there_is(catalogue: Catalogue) -> str:
    lines = ["recipes and parts (sqn-list says what each is):"]
    groups = (RECIPE, *(slot.name for slot in SLOTS))
    lines += [f"  {group:<14}{', '.join(catalogue.names(group))}" for group in groups]
    lines += ["", "run-level settings, counted in environment steps:"]
    settings = (setting for setting in fields(Run) if setting.name != RECIPE)
    lines += [f"  {setting.name:<18}{setting.metadata['expected']}" for setting in settings]
    return "\n".join(lines)
