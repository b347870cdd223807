"""``sqn-export``: write the policy of a run for other programs."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import Exit, add_checkpoint, catalogue_of, command, options, print_lines, print_notes
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.recipe.resolved import recipe_of
from sqn_rl.runs.manifest import noted_changes

DESCRIPTION = """Writes the network of a run's policy, from a batch of observations to action values: as ONNX
(.onnx, with the extra `export`) or as an exported program of PyTorch (.pt2).

  sqn-export runs/first policy.onnx
  sqn-export runs/first policy.pt2 --checkpoint best"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-export", DESCRIPTION)
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("output", type=Path, help="the file to write, a .onnx or a .pt2")
    add_checkpoint(parser)
    arguments = parser.parse_args(argv)
    path = recipe_of(arguments.run)

    from sqn_rl.runs.policy import Policy
    from sqn_rl.runs.sharing.export import SETTINGS, export, require_exportable

    try:
        require_exportable(arguments.output)
        recipe = load_recipe(path, *SETTINGS, catalogue=catalogue_of(arguments))
        print_notes(noted_changes(arguments.run, {path.name}))
        output = arguments.output.absolute()  # an environment may change the folder
        signature = export(Policy(recipe, arguments.run, arguments.checkpoint), output)
    except OSError as error:
        raise RecipeError(f"{arguments.output}: {error.strerror}") from error
    print_lines(f"{arguments.output}: {signature}")
    return Exit.DONE


if __name__ == "__main__":
    raise SystemExit(main())
