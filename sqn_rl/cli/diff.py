"""``sqn-diff``: what differs between two recipes or runs."""

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines, print_notes
from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.recipe.catalogue import RECIPE, YAML, Catalogue
from sqn_rl.recipe.compose import Recipe, compose_recipe
from sqn_rl.recipe.provenance import override
from sqn_rl.recipe.resolved import Difference, Resolved, differences, of_recipe, of_run
from sqn_rl.runs.manifest import noted_changes

DESCRIPTION = """Shows which parts, numbers and wiring differ between two recipes or runs, and where each
comes from. A run is only read: its parts are not built, so its wiring is not compared.

  sqn-diff sqn sqn_rainbow                 two recipes
  sqn-diff sqn "sqn head=dueling lr=1e-2"  a recipe and its overrides are one argument
  sqn-diff runs/first "sqn steps=20000"    a run, by its directory"""

NAMES = ("recipe", "out")
"""The recipe's name and the run's directory, which do not change the run."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-diff", DESCRIPTION)
    for name in ("a", "b"):
        parser.add_argument(name, help='a recipe with its overrides, "NAME name=value …", or a run directory')
    arguments = parser.parse_args(argv)
    catalogue = catalogue_of(arguments)
    (a, recipe_a), (b, recipe_b) = (_read(text, catalogue) for text in (arguments.a, arguments.b))
    found = {
        "parts": _signed(differences(a.parts, b.parts)),
        "numbers": _signed(each for each in differences(a.values, b.values) if each.key not in NAMES),
    }
    if recipe_a and recipe_b:
        found["wiring"] = _wiring(recipe_a, recipe_b)
    print_lines(f"--- {a.name}", f"+++ {b.name}")
    for title, lines in found.items():
        if lines:
            width = max(len(line) for line, _ in lines)
            print_lines("", title, *(f"{line:<{width}}  {origin}".rstrip() for line, origin in lines))
    if not any(found.values()):
        *others, last = found
        print_lines(f"no difference: the same {', '.join(others)} and {last}")
    return Exit.DONE


def _read(text: str, catalogue: Catalogue) -> tuple[Resolved, Recipe | None]:
    """The recipe or run that an argument names, resolved; and if it is a recipe, one that can be built."""
    names = catalogue.names(RECIPE)
    if os.path.isdir(text) and text not in names:
        resolved = of_run(Path(text))
        print_notes(noted_changes(Path(text), {RECIPE_FILE}))
        return resolved, None
    try:
        words = [text] if os.path.isfile(text) else shlex.split(text) or [""]
    except ValueError as error:
        raise RecipeError(f"{text}: {error}") from error
    if "=" in words[0] and not os.path.isfile(words[0]):
        words = ["sqn", *words]
    recipe, *overrides = words
    if recipe not in names and not recipe.endswith(YAML):
        raise RecipeError(f"{text}: neither a run directory nor a recipe", "", did_you_mean(recipe, names))
    composed = compose_recipe(recipe, *overrides, catalogue=catalogue)
    return of_recipe(text, composed), composed


def _signed(found: Iterable[Difference]) -> list[tuple[str, str]]:
    """A line for each side that has the value, as an override with a sign, and the value's origin."""
    return [
        (f"{sign} {override(key, side.value)}", side.origin)
        for key, *sides in found
        for sign, side in zip("-+", sides, strict=True)
        if side
    ]


def _wiring(a: Recipe, b: Recipe) -> list[tuple[str, str]]:
    """What parts read or write in only one of the two recipes."""
    from sqn_rl.recipe.preflight import preflight

    def flows(recipe: Recipe) -> list[str]:
        nodes = preflight(recipe).nodes
        reads = [f"{node.slot} reads {key}" for node in nodes for key in node.reads]
        return reads + [f"{node.slot} writes {entry}" for node in nodes for entry in node.writes]

    in_a, in_b = flows(a), flows(b)
    only_a = [(f"- {each}", "") for each in in_a if each not in in_b]
    return only_a + [(f"+ {each}", "") for each in in_b if each not in in_a]


if __name__ == "__main__":
    raise SystemExit(main())
