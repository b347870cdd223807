"""``sqn-graph``: the wiring of a recipe."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.changes import changes_of
from sqn_rl.cli import Exit, catalogue_of, command, options
from sqn_rl.errors import RecipeError
from sqn_rl.recipe import compose_recipe
from sqn_rl.settled import of_recipe

DESCRIPTION = """Checks a recipe and shows its wiring: parts, keys, shapes, dtypes.

  sqn-graph recipe=sqn_dueling
  sqn-graph recipe=sqn env=atari_ram --format svg --output sqn.svg

What differs from the recipe `sqn` in the same environment is said, and in a picture highlighted."""

FORMATS = ("text", "mermaid", "svg")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-graph", DESCRIPTION)
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="as for sqn-run")
    parser.add_argument("--format", choices=FORMATS, default="text", help="how to show it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write it instead of the screen")
    arguments = parser.parse_intermixed_args(argv)
    recipe = compose_recipe("sqn", *arguments.overrides, catalogue=catalogue_of(arguments))

    from sqn_rl import drawing, picture
    from sqn_rl.preflight import preflight

    graph = preflight(recipe)
    graph.changes = changes_of(of_recipe(recipe.run.recipe, recipe), recipe.catalogue)
    title = f"{recipe.run.recipe} on {recipe.part('env')}"
    text = {
        "text": lambda: drawing.to_text(graph),
        "mermaid": lambda: drawing.to_mermaid(graph),
        "svg": lambda: picture.to_svg(graph, title),
    }[arguments.format]()
    if arguments.output is None:
        print(text, end="")
        return Exit.DONE
    try:
        arguments.output.write_text(text)
    except OSError as error:
        raise RecipeError(f"--output {arguments.output}: {error.strerror}") from error
    return Exit.DONE
