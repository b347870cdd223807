"""``sqn-resume``: resume a run that was stopped or killed."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import catalogue_of, command, options
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.recipe.overrides import origin
from sqn_rl.recipe.resolved import recipe_of

DESCRIPTION = """Resumes a run from its newest whole checkpoint, as if it had not been stopped.

Settings are those of its recipe.yaml. A run that is done stays as it is, unless a larger budget extends it:

  sqn-resume runs/first steps=100000"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-resume", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("budget", nargs="?", default="", metavar="steps=N", help="a larger budget")
    arguments = parser.parse_intermixed_args(argv)
    path = recipe_of(arguments.run)
    if arguments.budget and not arguments.budget.startswith("steps="):
        hint = "a run is resumed with its own settings; to change others, start a new run with sqn-run"
        raise RecipeError("only steps=N can be changed", origin(arguments.budget), hint)
    overrides = [arguments.budget] if arguments.budget else []
    recipe = load_recipe(path, *overrides, catalogue=catalogue_of(arguments))

    from sqn_rl.cli.terminal.screen import Screen, exit_code, train

    return exit_code(train(recipe, Screen(), resume=arguments.run))


if __name__ == "__main__":
    raise SystemExit(main())
