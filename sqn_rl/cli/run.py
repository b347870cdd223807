"""``sqn-run``: train a recipe, or sweep over several."""

import os
import re
import shlex
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqn_rl.cli import Exit, Parser, catalogue_of, command, options, print_lines, print_notes, report
from sqn_rl.cli.terminal import many
from sqn_rl.cli.terminal.completion import SCRIPTS, complete
from sqn_rl.disk import LONGEST_NAME, Folder, hashed_name
from sqn_rl.errors import RecipeError, require
from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.compose import Recipe, compose_recipe
from sqn_rl.recipe.eject.recipe_file import to_template
from sqn_rl.recipe.overrides import expand
from sqn_rl.recipe.provenance import INTERPOLATION, override
from sqn_rl.recipe.schema import SLOTS, meanings

DESCRIPTION = """Checks a recipe, trains it, evaluates it, and writes a run directory.

  sqn-run                                         the recipe `sqn` on CartPole
  sqn-run recipe=sqn_dueling env=acrobot          another recipe, another part
  sqn-run env=atari_ram env.game=breakout         a part's field
  sqn-run steps=20000 seed=3                      run-level settings
  sqn-run -m head=linear,dueling "seed=range(3)"  a sweep: every combination, one after the other
  sqn-run … out=DIR resume=auto                   resume the run or sweep in DIR"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code; of a sweep, that of the first job that failed or was stopped.
    """
    parser = _parser()
    given = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & {*given}:
        parser.epilog = _epilog(Catalogue())
    arguments = parser.parse_intermixed_args(given)
    if arguments.completion is not None:
        _print_completion(arguments.completion, parser)
        return Exit.DONE
    jobs = _jobs(arguments)
    if arguments.save:
        _save(arguments.save, jobs)
        return Exit.DONE
    if arguments.dry_run:
        _print_checked(jobs)
        return Exit.DONE
    return _train_all(jobs)


def _parser() -> Parser:
    parser = options("sqn-run", DESCRIPTION)
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="what to change; see below")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="sweep over the values given with commas or range()"
    )
    parser.add_argument(
        "--completion",
        nargs="?",
        const="bash",
        metavar="SHELL",
        help="print what makes bash, zsh or fish complete names and values",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the recipe, print it with the origin of each value, and stop",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the recipe to FILE.yaml, to start from, and stop"
    )
    return parser


def _print_completion(text: str, parser: Parser) -> None:
    """Print the script of a shell, or what the last word of a command line can become.

    Raises:
        RecipeError: there is no such shell.
    """
    script = SCRIPTS.get(text)
    if script is None and " " not in text:
        raise RecipeError(f"--completion {text}: expected one of: {', '.join(SCRIPTS)}")
    if lines := script.split("\n") if script else complete(text, parser):
        print_lines(*lines)


def _train_all(jobs: Sequence[tuple[str, Recipe]]) -> int:
    """Train one recipe after the other, and return the exit code of the first that failed or was stopped.

    Raises:
        RecipeError: parts of a job of a sweep do not fit each other; nothing was trained.
    """
    from sqn_rl.cli.terminal.screen import Screen, exit_code, train

    if len(jobs) > 1:
        _preflight_all(jobs)
    console, failed, results = Screen(), dict[str, int](), dict[str, str]()
    working_directory = os.getcwd()
    for number, (name, recipe) in enumerate(jobs, 1):
        if len(jobs) > 1:
            console.rule(f"{number} of {len(jobs)}", characters="-")
        try:
            os.chdir(working_directory)  # an environment may have changed it
            summary = train(recipe, console)
            code, results[name] = exit_code(summary), _result(summary)
        except Exception as error:
            if len(jobs) == 1 or isinstance(error, BrokenPipeError):
                raise
            code, results[name] = report(error), "failed"
        if code != Exit.DONE:
            failed[name] = code
        if code == Exit.STOPPED:
            break
    if len(jobs) > 1:
        console.rule("results", characters="-")
        width = max(map(len, results))
        for name, result in results.items():
            ended = f", exit code {failed[name]:d}" if name in failed else ""
            console.print(f"{name:<{width}}  {result}{ended}", soft_wrap=True)
    return next(iter(failed.values()), Exit.DONE)


def _preflight_all(jobs: Sequence[tuple[str, Recipe]]) -> None:
    """Check the jobs of a sweep, of those that differ only in their seed the first."""
    checked = set[str]()
    for name, recipe in jobs:
        apart_from_seed = repr(recipe.config | {"seed": 0, "out": None})
        if apart_from_seed not in checked:
            checked.add(apart_from_seed)
            try:
                many.preflight_all([recipe])
            except RecipeError as error:
                hint = "; ".join(filter(None, [error.hint, f"no job was started, as {name} cannot run"]))
                raise RecipeError(error.message, error.origin, hint) from error


def _result(summary: Mapping[str, Any]) -> str:
    """How a job of a sweep ended."""
    from sqn_rl.training.evaluation import mean_and_std

    if evaluation := summary["evaluation"]:
        shown = mean_and_std(evaluation)
    else:
        shown = f"{summary['status']} after {summary['env_steps']:,} steps"
    return f"{shown}  {summary['out']}"


def _jobs(arguments: Namespace) -> list[tuple[str, Recipe]]:
    """Compose all recipes to train, so that a mistake in the last one is found before the first one starts.

    Each is named by its swept values; so is its folder, if jobs share an ``out``.
    """
    catalogue = catalogue_of(arguments)
    jobs = expand(arguments.overrides, catalogue) if arguments.multirun else [arguments.overrides]
    swept = [values for values in zip(*jobs, strict=True) if len({*values}) > 1]
    named = []
    for number, job in enumerate(jobs):
        name = ",".join(values[number] for values in swept)
        recipe = compose_recipe("sqn", *job, catalogue=catalogue)
        if recipe.run.out and swept and not any(values[0].startswith("out=") for values in swept):
            out = override("out", f"{recipe.run.out}/{_folder(name)}")
            recipe = compose_recipe("sqn", *job, out, catalogue=catalogue)
        named.append((name, recipe))
    outs = [recipe.run.out for _, recipe in named]
    for _, recipe in named:
        if recipe.run.out and outs.count(recipe.run.out) > 1:
            message, subject = "several jobs of the sweep would write there", f"out = {recipe.run.out!r}"
            hint = "give them one out=DIR, or each its own"
            raise RecipeError(message, recipe.origin("out"), hint, subject)
    return named


def _print_checked(jobs: Sequence[tuple[str, Recipe]]) -> None:
    """Check every recipe as before a run, and print it."""
    from sqn_rl.cli.terminal.screen import notes_of
    from sqn_rl.recipe.preflight import preflight

    for name, recipe in jobs:
        graph = preflight(recipe)
        if len(jobs) > 1:
            print_lines(f"# {name}")
        print_lines(*recipe.to_yaml().splitlines())
        print_notes([*notes_of(recipe), *graph.notes])


def _save(file: Path, jobs: Sequence[tuple[str, Recipe]]) -> None:
    """Write a recipe that inherits from the given one, with the overrides; it shows all other values.

    Raises:
        SettingError: the file has another ending, an unprintable name, or no folder, or it exists; or this
            is a sweep.
    """
    require(file.suffix == ".yaml", "save", str(file), "a file that ends in .yaml")
    require(str(file).isprintable(), "save", str(file), "a name without control characters")
    require(not os.path.lexists(file), "save", str(file), "a file that does not exist yet")
    require(file.absolute().parent.is_dir(), "save", str(file), "a file in a folder that exists")
    require(len(jobs) == 1, "save", str(file), "a single recipe, not a sweep")
    ((_, recipe),) = jobs
    with Folder(file.absolute().parent) as folder:
        folder.write_atomic(file.name, [to_template(recipe, file.as_posix()).encode()])
    print_lines(f"{file}: run it with `sqn-run {shlex.quote(override('recipe', file.as_posix()))}`")


def _folder(name: str) -> str:
    """The folder of a job of a sweep: always the same for the same name, and different for others."""
    plain = re.sub(r"[^\w=.,+-]+", "-", name)
    return plain if plain == name and len(plain.encode()) <= LONGEST_NAME else hashed_name(plain, name)


def _epilog(catalogue: Catalogue) -> str:
    """The end of ``sqn-run --help``: recipes, parts and settings."""
    lines = ["recipes and parts (sqn-list describes each):"]
    groups = (RECIPE, *(slot.name for slot in SLOTS))
    lines += [f"  {group:<14}{', '.join(catalogue.names(group))}" for group in groups]
    recipe, meaning = compose_recipe(catalogue=catalogue), meanings()
    lines += ["", "run-level settings, with the values of recipe=sqn env=cartpole:"]
    for name, value in vars(recipe.run).items():
        if name != RECIPE:
            lines += _explained(override(name, value), meaning[name])
    lines += ["", "settings of its parts; `sqn-list SLOT` shows those of all parts:"]
    for setting, texts in _part_settings(recipe).items():
        lines += _explained(setting, "; ".join(texts))
    return "\n".join(lines)


def _part_settings(recipe: Recipe) -> dict[str, list[str]]:
    """The meanings of the parts' fields, by ``name=value``; by ``lr=…`` where the value is ``${lr}``."""
    found: dict[str, list[str]] = {}
    for slot in SLOTS:
        for field, value in recipe.fields(slot.name).items():
            given = INTERPOLATION.fullmatch(str(recipe.layers.values[slot.name][field]))
            name, meaning = f"{slot.name}.{field}", recipe.meaning(slot.name, field)
            text = f"{meaning} ({name})" if given else meaning
            found.setdefault(override(given[1] if given else name, value), []).append(text)
    return found


def _explained(setting: str, meaning: str) -> Iterator[str]:
    """The lines of a setting and its meaning, in two columns."""
    column = 36
    width = max(shutil.get_terminal_size().columns - column, 40)
    first, *others = textwrap.wrap(meaning.replace("``", "`"), width) or [""]
    yield f"  {setting:<{column - 4}}  {first}".rstrip()
    yield from (" " * column + line for line in others)


if __name__ == "__main__":
    raise SystemExit(main())
