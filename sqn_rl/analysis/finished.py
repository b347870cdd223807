"""Read finished runs from their directories: recipe, evaluation protocol and scores."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sqn_rl.disk import EVALUATIONS_FILE, RECIPE_FILE
from sqn_rl.errors import COMMAND_LINE, RecipeError, SqnError
from sqn_rl.plots.logs import LARGEST
from sqn_rl.recipe.catalogue import RECIPE, TASK
from sqn_rl.recipe.overrides import origin
from sqn_rl.recipe.reading import DataError, is_there, printable, read_rows
from sqn_rl.recipe.resolved import Resolved, Sourced, of_run
from sqn_rl.runs.manifest import noted_changes
from sqn_rl.runs.status import read_summary

EXECUTION = {
    *("seed", "out", "resume", "threads", "device", "compile", "log_every", "checkpoint_every"),
    *("checkpoint_keep", "checkpoint_best", "logger", "env.threads", "env.workers", "eval_max_steps"),
}
"""Settings of how a run is executed, which do not change what is learned."""

PROTOCOL = {"steps", "eval_every", "eval_episodes", "env"}
"""Settings of the evaluation protocol: budget, environment and evaluations."""

AGENT_SETTINGS = {"env.clip_reward", "env.frame_stack"}
"""Settings of an environment that belong to the agent: they change its rewards and observations."""

ATARI = ("sqn_rl.AtariEnv", "sqn_rl.AtariRamEnv")


class ComparisonError(SqnError):
    """There are no runs to compare, or they cannot be compared with each other."""


class _Evaluation(NamedTuple):
    """The values that are used from a row of ``evaluations.jsonl``."""

    mean: float
    cut: int
    longest: int


@dataclass(frozen=True, eq=False)  # arrays have no single equality
class FinishedRun:
    """One run that spent its budget."""

    resolved: Resolved
    environment: str
    seed: int
    steps: np.ndarray
    """The environment steps at which it was evaluated. Shape ``[T]``."""
    scores: np.ndarray
    """The mean return of each evaluation. Shape ``[T]``."""
    greedy: bool
    """Whether the last evaluation was greedy."""
    cut: int
    """How many episodes of its evaluations were cut."""
    longest: int
    """The length of its longest evaluation episode; if episodes were cut, they were cut there."""
    software: str
    """The version and revision of the code."""
    changes: Sequence[str] = ()
    """Its files that were changed after the run wrote them."""

    @property
    def variant_values(self) -> dict[str, Sourced]:
        """The parts and values that define the variant, apart from the environment."""
        return _variant_values(self.resolved)

    @property
    def variant(self) -> tuple[str, ...]:
        """Its recipe and overrides: ``("sqn", "head=dueling")``."""
        return variant_of(self.resolved)

    @property
    def recipe_file(self) -> str:
        """The recipe's name or file as on the command line, or else the name that the recipe has."""
        recipe = self.resolved.values["recipe"]
        name, where = recipe.value, recipe.origin
        prefix = origin("recipe=")
        return printable(where.removeprefix(prefix) if where.startswith(prefix) else name)

    @property
    def protocol(self) -> dict[str, Sourced]:
        """The evaluation protocol: budget, environment settings and evaluations."""
        values = {key: each for key, each in self.resolved.everything.items() if is_protocol(key)}
        return values | {"greedy": Sourced(self.greedy, EVALUATIONS_FILE)}

    @property
    def game(self) -> str | None:
        """The Atari game; None for other environments."""
        is_atari = self.resolved.classes["env"] in ATARI
        game = self.resolved.values.get("env.game") if is_atari else None
        return str(game.value) if game else None


def variant_of(resolved: Resolved) -> tuple[str, ...]:
    """A recipe's name, and the overrides that distinguish variants: ``("sqn", "head=dueling")``."""
    origins = (each.origin for each in _variant_values(resolved).values())
    given = (origin for origin in origins if origin.startswith(COMMAND_LINE))
    overrides = dict.fromkeys(origin.removeprefix(COMMAND_LINE) for origin in given)
    return tuple(map(printable, (resolved.values["recipe"].value, *overrides)))


def _variant_values(resolved: Resolved) -> dict[str, Sourced]:
    return {key: each for key, each in resolved.everything.items() if is_variant_key(key)}


def is_variant_key(key: str) -> bool:
    """Whether a part or value distinguishes variants."""
    return key in AGENT_SETTINGS or not {key, key.partition(".")[0]} & (EXECUTION | PROTOCOL | {RECIPE, TASK})


def is_protocol(key: str) -> bool:
    """Whether a part or value belongs to the evaluation protocol."""
    return key.partition(".")[0] in PROTOCOL and key not in AGENT_SETTINGS | EXECUTION


def find_runs(places: Iterable[str]) -> list[Path]:
    """Find run directories.

    Args:
        places: run directories, folders that contain some, or globs.

    Raises:
        ComparisonError: one of the places has no run, or a folder in it may not be read.
        DataError: a folder above one of them may not be read.
    """
    found: dict[Path, Path] = {}
    for place in places:
        folders = [place] if is_there(Path(place)) else sorted(glob(place, recursive=True))
        runs = [run for folder in folders for run in _below(Path(folder))]
        if not runs:
            problem = "there is no run in it; a run has a recipe.yaml"
            if Path(place).is_file():
                problem = "not a directory; give that of a run, or one with runs in it"
            raise ComparisonError(f"{place}: {problem if folders else 'there is no such directory'}")
        found |= {run.resolve(): run for run in runs if run.resolve() not in found}
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    """The runs in a folder, links to runs included, or the folder itself if it is a run."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, NotADirectoryError):
            raise ComparisonError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for path, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        if RECIPE_FILE in files:
            folders.clear()
            yield Path(path)
        inner = [Path(path, name) for name in folders]
        yield from (link for link in inner if link.is_symlink() and is_there(link / RECIPE_FILE))


def read_runs(directories: Iterable[Path]) -> tuple[list[FinishedRun], dict[str, str]]:
    """Read the finished runs.

    Returns:
        The runs; and by directory, why any other run is left out: it has not ended, or a file is damaged.
    """
    runs, left_out = [], {}
    for directory in directories:
        try:
            resolved = of_run(directory)
            summary = read_summary(directory)
            if summary.get("status") == "done":
                runs.append(_finished(directory, resolved, summary))
            else:
                left_out[str(directory)] = _what_happened(summary, resolved)
        except (DataError, RecipeError) as error:
            left_out[str(directory)] = str(error).removeprefix(f"{directory}: ")
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            what = f"its summary.json or {EVALUATIONS_FILE} is damaged"
            left_out[str(directory)] = f"{what} ({type(error).__name__}: {error})"
    return runs, left_out


def _finished(directory: Path, resolved: Resolved, summary: Mapping[str, Any]) -> FinishedRun:
    evaluations, last = dict[int, _Evaluation](), dict[str, Any]()
    for last in read_rows(directory / EVALUATIONS_FILE):
        longest = int(max(last["lengths"]))
        evaluation = _Evaluation(float(last["mean"]), int(last.get("cut", 0)), longest)
        evaluations[last["env_steps"]] = evaluation  # older runs have some rows twice
    if not evaluations:
        raise ValueError("there is no evaluation")
    revision = (summary["git_revision"] or "")[:7]
    steps = np.array([*evaluations], dtype=float)
    scores = np.array([each.mean for each in evaluations.values()])
    if steps.ndim != 1 or not (np.abs([steps, scores]) <= LARGEST).all():
        raise ValueError(f"a step or a mean is no number of at most {LARGEST:g}")
    found = noted_changes(directory, {RECIPE_FILE, EVALUATIONS_FILE})
    if summary.get("evaluation", last) != last:
        found.append(f"{directory}: its summary.json has another last evaluation than its {EVALUATIONS_FILE}")
    return FinishedRun(
        resolved,
        printable(summary["env"]),
        int(summary["seed"]),
        steps=steps,
        scores=scores,
        greedy=bool(last["greedy"]),
        cut=sum(each.cut for each in evaluations.values()),
        longest=max(each.longest for each in evaluations.values()),
        software=printable(f"sqn_rl {summary['versions']['sqn_rl']} {revision}".rstrip()),
        changes=found,
    )


def _what_happened(summary: Mapping[str, Any], resolved: Resolved) -> str:
    """Why a run is not done."""
    if not summary:
        return "still running, killed, or a model of sqn-push: there is no summary.json"
    endings = {"stopped": "stopped", "numerics": "a number became NaN or infinite"}
    ending = endings.get(summary["status"], "failed")
    return f"{ending} after {summary['env_steps']:,} of {resolved.values['steps'].value:,} steps"
