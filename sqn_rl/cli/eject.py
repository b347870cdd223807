"""``sqn-eject``: a recipe as one file of PyTorch and Gymnasium."""

import shlex
from collections.abc import Sequence

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.eject.single_file import eject, supported

DESCRIPTION = """Prints one readable file of PyTorch and Gymnasium that trains a recipe's agent.

  sqn-eject recipe=sqn_dueling_per > my_agent.py
  python my_agent.py

The file has only what the recipe uses, with its settings as constants. Given the same weights and batches,
updates are equal to rounding; random numbers differ. Other parts than these are refused:
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-eject", DESCRIPTION + "".join(f"\n  {line}" for line in supported()))
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="as for sqn-run")
    arguments = parser.parse_intermixed_args(argv)
    recipe = compose_recipe("sqn", *arguments.overrides, catalogue=catalogue_of(arguments))

    from sqn_rl.recipe.preflight import preflight

    preflight(recipe)
    print_lines(*eject(recipe, shlex.join(arguments.overrides)).splitlines())
    return Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
