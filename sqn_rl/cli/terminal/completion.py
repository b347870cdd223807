"""Tab completion of ``sqn-run``, in bash, zsh and fish."""

import re
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from sqn_rl.cli import catalogue_of
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import Recipe, compose_recipe, names_in
from sqn_rl.recipe.provenance import Values, override
from sqn_rl.recipe.schema import SLOTS, Run

BASH = """\
_sqn_run() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }"
    COMPREPLY=($("$1" --completion "$line" 2>/dev/null))
    [[ $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    [[ ${#COMPREPLY[@]} == 1 && $COMPREPLY == *= ]] && compopt -o nospace
}
complete -o bashdefault -F _sqn_run sqn-run"""
"""The script for bash. Bash splits words at ``=`` and expects only the part behind it."""

ZSH = """\
_sqn_run() {
    local -a words=("${(@f)$("${words[1]}" --completion "${BUFFER[1,CURSOR]}" 2>/dev/null)}")
    local -a names=(${(M)words:#*=}) others=(${words:#*=})
    compadd -S '' -- $names
    compadd -- $others
}
compdef _sqn_run sqn-run"""

FISH = """\
function _sqn_run
    sqn-run --completion (commandline --cut-at-cursor --current-process | string collect) 2>/dev/null
end
complete --command sqn-run --no-files --arguments '(_sqn_run)'"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""The script that each shell evaluates to complete command lines of ``sqn-run``."""


def complete(line: str, parser: ArgumentParser) -> list[str]:
    """What the last word of a command line can become.

    Args:
        line: the line up to the cursor, which begins with the command.
        parser: the parser of the command.

    Raises:
        RecipeError: a ``--config-dir`` is no tree.
    """
    _, *words, word = line.split(" ")
    if word.startswith("-"):
        found = iter(dict.fromkeys(re.findall(r"--[a-z-]+", parser.format_help())))
    else:
        arguments = parser.parse_known_intermixed_args([each for each in words if each])[0]
        found = _overrides(word, arguments.overrides, catalogue_of(arguments))
    return [each for each in found if each.startswith(word)]


def _overrides(word: str, given: Sequence[str], catalogue: Catalogue) -> Iterator[str]:
    """Every possible ``name=``; behind a complete name, its possible values, also after a comma."""
    name, equals, value = word.partition("=")
    listed = word.rpartition(",")[0] + "," if "," in value else f"{name}="
    if name in catalogue.groups() and equals:
        yield from (f"{listed}{part}" for part in catalogue.names(name))
        return
    try:
        recipe = compose_recipe("sqn", *given, catalogue=catalogue)
    except RecipeError:
        recipe = compose_recipe(catalogue=catalogue)
    settings = _settings(recipe)
    if not equals:
        yield from (f"{each}=" for each in (*catalogue.groups(), *settings) if word or "." not in each)
    elif name in settings:
        values = (override(name, each).partition("=")[2] for each in _values(name, settings[name], recipe))
        yield from (f"{listed}{each}" for each in values)


def _settings(recipe: Recipe) -> Values:
    """The run-level settings and the fields of the parts, with the values that they have so far."""
    groups, values = recipe.catalogue.groups(), recipe.layers.resolved()
    settings = {name: value for name, value in values.items() if name not in groups}
    for slot in SLOTS:
        settings |= {f"{slot.name}.{name}": value for name, value in recipe.fields(slot.name).items()}
    return settings


def _values(key: str, value: Any, recipe: Recipe) -> Sequence[Any]:
    """The possible values of a setting: its choices if they are known, else its current value."""
    slot, _, field = key.partition(".")
    if field:
        names = names_in(recipe.meaning(slot, field))
    else:
        names = [name for each in fields(Run) if each.name == key for name in each.metadata.get("names", ())]
    return names or ((True, False) if isinstance(value, bool) else (value,))
