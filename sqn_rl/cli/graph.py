"""``sqn-graph``: the wiring of a recipe."""

from collections.abc import Sequence
from pathlib import Path

from sqn_rl.cli import Exit, catalogue_of, command, import_torchrl, options, print_lines
from sqn_rl.errors import RecipeError, require
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.diff import changes_of
from sqn_rl.recipe.resolved import of_recipe

DESCRIPTION = """Checks a recipe and shows its wiring: parts, keys, shapes, dtypes.

  sqn-graph recipe=sqn_dueling
  sqn-graph recipe=sqn env=atari_ram --output sqn.svg

Differences from the recipe `sqn` in the same environment are listed, and highlighted in a picture."""

FORMATS = ("text", "mermaid", "svg")
SUFFIXES = {".txt": "text", ".md": "mermaid", ".mmd": "mermaid", ".svg": "svg"}
"""The format of a file with this suffix, if no --format is given."""


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
    parser.add_argument(
        "--format", choices=FORMATS, help="how to show it; if not given, as FILE ends, or text"
    )
    files = f"where to write it instead of the screen: a {', '.join(SUFFIXES)} file"
    parser.add_argument("--output", type=Path, metavar="FILE", help=files)
    arguments = parser.parse_intermixed_args(argv)
    shown_as = arguments.format or _format_of(arguments.output)
    recipe = compose_recipe("sqn", *arguments.overrides, catalogue=catalogue_of(arguments))
    output = arguments.output and arguments.output.absolute()  # an environment may change the folder

    import_torchrl()
    from sqn_rl.disk import save
    from sqn_rl.plots import wiring
    from sqn_rl.recipe.preflight import preflight

    graph = preflight(recipe)
    graph.changes = changes_of(of_recipe(recipe.run.recipe, recipe), recipe.catalogue)
    title = f"{recipe.title} on {recipe.part('env')}"
    match shown_as:
        case "text":
            text = wiring.to_text(graph)
        case "mermaid":
            text = wiring.to_mermaid(graph)
        case _:
            text = wiring.to_svg(graph, title)
    if output is None:
        print_lines(*text.rstrip("\n").split("\n"))
        return Exit.DONE
    try:
        save(output, text.encode())
    except OSError as error:
        raise RecipeError(f"--output {arguments.output}: {error.strerror}") from error
    return Exit.DONE


def _format_of(path: Path | None) -> str:
    """The format of a file, by its suffix; text if there is no file."""
    if path is None:
        return "text"
    suffix = path.suffix.lower()
    expected = f"a file that ends in {', '.join(SUFFIXES)}, or --format"
    require(suffix in SUFFIXES, "output", str(path), expected)
    return SUFFIXES[suffix]


if __name__ == "__main__":
    raise SystemExit(main())
