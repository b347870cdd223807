"""``sqn-list``: list recipes and parts."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from sqn_rl.cli import Exit, catalogue_of, command, options, print_lines
from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.catalogue import RECIPE, TASK, Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.provenance import INTERPOLATION, with_values
from sqn_rl.recipe.schema import SLOT_NAMES, meanings

DESCRIPTION = """Lists the recipes and the parts of every slot, or of one.

A part that works with everything fits any part of the other slots.
A value such as ${lr} is the setting of that name; its value in the recipe `sqn` follows in brackets."""


class Row(NamedTuple):
    """One recipe or part."""

    group: str
    name: str
    description: str
    arguments: Mapping[str, str]
    """The meaning of each field, by ``name=value``."""
    works_with: str


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code.
    """
    parser = options("sqn-list", DESCRIPTION)
    parser.add_argument("slot", nargs="?", help="a slot, `task`, or `recipe`")
    arguments = parser.parse_args(argv)
    catalogue = catalogue_of(arguments)
    groups = [RECIPE, *(group for group in catalogue.groups() if group != RECIPE)]
    if arguments.slot and arguments.slot not in groups:
        found = [f"`sqn-list {group}`" for group in groups if arguments.slot in catalogue.names(group)]
        hint = f"it is listed by {' and '.join(found)}" if found else did_you_mean(arguments.slot, groups)
        raise RecipeError(f"there is no slot `{arguments.slot}`", "", hint)
    rows = list(_rows([arguments.slot] if arguments.slot else groups, catalogue))
    if not sys.stdout.isatty():
        _show_lines(rows)
    elif arguments.slot:
        _show_slot(rows)
    else:
        _show_table(rows)
    return Exit.DONE


def _rows(groups: Sequence[str], catalogue: Catalogue) -> Iterator[Row]:
    defaults = compose_recipe(catalogue=catalogue).layers.resolved()
    meaning = _meanings(catalogue) if {RECIPE, TASK} & {*groups} else {}
    for group in groups:
        for name in catalogue.names(group):
            try:
                document = catalogue.read(group, name)
            except RecipeError as error:
                yield Row(group, name, f"broken: {error}", {}, "")
            else:
                fields = {key: value for key, value in document.content.items() if key != TARGET}
                arguments = {
                    f"{key}={with_values(value, defaults)}": document.comment(key) or meaning.get(key, "")
                    for key, value in fields.items()
                }
                limits = " ".join(f"{slot}={','.join(names)}" for slot, names in document.works_with.items())
                anything = "" if group in (RECIPE, TASK) else "everything"
                yield Row(group, name, document.description, arguments, limits or anything)


def _meanings(catalogue: Catalogue) -> dict[str, str]:
    """What the settings of recipes and tasks mean: run-level ones, and those that parts name: ``${lr}``."""
    found = {name: {text.replace("``", "`"): None} for name, text in meanings().items()}
    for slot in SLOT_NAMES:
        for name in catalogue.names(slot):
            with suppress(RecipeError):  # its own row says that it is broken
                document = catalogue.read(slot, name)
                for field, value in document.content.items():
                    if named := INTERPOLATION.fullmatch(str(value)):
                        found.setdefault(named[1], {})[document.comment(field)] = None
    return {name: "; ".join(texts) for name, texts in found.items()}


def _show_lines(rows: Sequence[Row]) -> None:
    for row in rows:
        limits = f"works with {row.works_with}" if row.works_with else ""
        columns = f"{row.group}={row.name}", row.description, " ".join(row.arguments), limits
        print_lines("  ".join(filter(None, columns)))


def _show_table(rows: Sequence[Row]) -> None:
    from rich.table import Table

    from sqn_rl.cli.terminal.screen import Screen

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("slot", no_wrap=True)
    table.add_column("part", no_wrap=True, style="cyan")
    table.add_column("what it is", overflow="fold")
    previous = None
    for row in rows:
        if previous not in (None, row.group):
            table.add_section()
        group = "" if row.group == previous else row.group
        table.add_row(group, row.name, row.description)
        previous = row.group
    console = Screen()
    console.print(table)
    console.print("\n`sqn-list SLOT` shows the settings of its parts, and what they work with")


def _show_slot(rows: Sequence[Row]) -> None:
    """Print each part, and below it its arguments and what they mean."""
    from rich.padding import Padding
    from rich.table import Table

    from sqn_rl.cli.terminal.screen import Screen

    console = Screen()
    for row in rows:
        console.print(f"{row.group}={row.name}", style="cyan")
        limits = [f"works with {row.works_with}"] if row.works_with else []
        arguments = Table.grid(padding=(0, 2, 0, 0))
        for argument, meaning in row.arguments.items():
            arguments.add_row(argument, meaning)
        for line in (row.description, *limits):
            console.print(Padding(line, (0, 0, 0, 2)))
        if row.arguments:
            console.print(Padding(arguments, (0, 0, 0, 2)))


if __name__ == "__main__":
    raise SystemExit(main())
