"""Shared by commands that start many runs: their settings, the number at a time, and how each run ended."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqn_rl.cli import Exit, Parser, import_torchrl, print_lines
from sqn_rl.disk import RECIPE_FILE
from sqn_rl.errors import RecipeError, require, to_install
from sqn_rl.parts import machine
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.resolved import environment_name
from sqn_rl.training.plan import convert

if TYPE_CHECKING:
    from sqn_rl.analysis.grid import Job
    from sqn_rl.analysis.submitting import Submitter

MOST = 999_999
"""The largest of a command's own numbers."""

WHOLE = f"a whole number from 1 to {MOST:,}"


def add_jobs(parser: Parser) -> None:
    """Add the option for the number of runs at a time."""
    parser.add_argument("--jobs", type=int, help="runs at a time; one a processor, if not given")


def require_jobs(arguments: Namespace) -> None:
    """Refuse a number of jobs that is out of range."""
    require(arguments.jobs is None or 1 <= arguments.jobs <= MOST, "jobs", arguments.jobs, WHOLE)


def at_a_time(arguments: Namespace, recipe: Recipe) -> int:
    """The number of runs at a time: as requested, or one per processor."""
    return arguments.jobs or max(1, machine.processors() // recipe.run.threads)


def add_launcher(parser: Parser) -> None:
    """Add the options that submit runs to a cluster."""
    text = "submit each run as a job of Slurm, or of processes where there is none (the extra `submitit`)"
    parser.add_argument("--launcher", choices=["submitit"], help=text)
    text = "a parameter of submitit: timeout_min=600, slurm_partition=NAME"
    parser.add_argument("--submit", action="append", default=[], metavar="NAME=VALUE", help=text)


def launcher_of(arguments: Namespace, folder: Path) -> "Submitter | None":
    """The object that submits runs to a cluster; None if they are local processes.

    Args:
        arguments: the arguments of the command.
        folder: the folder for files of submitit.

    Raises:
        RecipeError: submitit is not installed.
        SettingError: submitit refuses a parameter.
    """
    given = " ".join(arguments.submit)
    require(
        bool(arguments.launcher) or not given, "submit", given, "it only together with --launcher submitit"
    )
    if not arguments.launcher:
        return None
    if not find_spec("submitit"):
        hint = f"the extra `submitit`: {to_install('submitit')}"
        raise RecipeError("--launcher submitit needs submitit", "", hint)
    from sqn_rl.analysis.submitting import Submitter

    pairs = [text.partition("=") for text in arguments.submit]
    require(all(name and value for name, _, value in pairs), "submit", given, "NAME=VALUE")
    values = {name: int(value) if value.isdecimal() else value for name, _, value in pairs}
    return Submitter(folder, values)


def own_settings(
    overrides: Sequence[str], numbers: Mapping[str, int]
) -> tuple[list[str], dict[str, int], Path | None]:
    """Separate the overrides for ``sqn-run`` from a command's own settings: whole numbers, and ``out=``.

    Args:
        overrides: as on the command line.
        numbers: the names and defaults of the numbers.

    Raises:
        RecipeError: one of them cannot be read.
        SettingError: a number is not whole or out of range, or ``out`` is not a folder.
    """
    from sqn_rl.recipe.overrides import parse
    from sqn_rl.recipe.reading import is_there

    own: dict[str, Any] = {**numbers, "out": None}
    expected = dict.fromkeys(numbers, WHOLE) | {"out": "a folder"}
    others = [text for text in overrides if text.partition("=")[0] not in own]
    for given in parse([text for text in overrides if text not in others]):
        name, _, text = given.text.partition("=")
        require(not given.sweeps, name, text, expected[name])
        own[name] = given.value
    out = own.pop("out")
    for name, given in own.items():
        own[name] = convert(given, int)
        require(isinstance(own[name], int) and 1 <= own[name] <= MOST, name, given, WHOLE)
    require(out is None or (isinstance(out, str) and bool(out)), "out", out, expected["out"])
    is_run = out is not None and is_there(Path(out, RECIPE_FILE))
    require(not is_run, "out", out, "a folder for many runs; this is a run directory")
    return others, own, Path(out) if out else None


def folder_of(command: str, recipe: Recipe) -> Path:
    """The folder for all runs of a command, if ``out=`` is not given."""
    name = environment_name(recipe.part("env"), recipe.fields("env"))
    return Path("runs", command, recipe.run.recipe, name.replace("/", "-"))


def options_of(arguments: Namespace) -> list[str]:
    """The options that are passed on to ``sqn-run``."""
    trees = (word for folder in arguments.config_dir for word in ("--config-dir", folder))
    modules = (word for module in arguments.trust for word in ("--trust", module))
    return [*trees, *modules]


def preflight_all(recipes: Sequence[Recipe]) -> None:
    """Check recipes as before a run, and restore the working directory.

    Raises:
        RecipeError: something does not fit.
    """
    import_torchrl()
    from sqn_rl.recipe.preflight import preflight

    working_directory = os.getcwd()
    for recipe in recipes:
        preflight(recipe)
    os.chdir(working_directory)  # an environment may have changed it


def failure_of(job: "Job", code: int) -> tuple[str, int]:
    """Why a run that ended failed, and its exit code; an empty text and 0 if it is done.

    Args:
        job: the run.
        code: the exit code of its process.
    """
    from sqn_rl.runs.status import summary_of

    if code != Exit.DONE:
        log = job.log.read_text(encoding="utf-8", errors="replace") if job.log.exists() else ""
        lines = log.splitlines()
        stopped = [line for line in lines if line.startswith("stopped by")]
        last = (stopped or lines or [""])[-1]
        return f"exit code {code}: {last} ({job.log})", code if code > 0 else Exit.FAILED
    if summary_of(job.out).get("status") != "done":
        what = "exit code 0, but no summary.json says done: its process was ended"
        return f"{what} ({job.log})", Exit.FAILED
    return "", Exit.DONE


def say_waiting(job: "Job") -> None:
    """Print that another process is writing to this run."""
    print_lines(f"{job.out}: waiting for another process that is writing to this run")
