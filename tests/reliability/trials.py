"""Trials: a run is killed and resumed, again and again, and must end as one that was left alone."""

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqn_rl import Experiment, compose
from sqn_rl.recipe import load_recipe

OPERATIONS = ("open", "write", "fsync", "ftruncate", "replace", "mkdir", "unlink", "rmdir")
"""All that is done to a disk in a run."""


class Killed(BaseException):
    """The process is gone: nothing catches this."""


@contextmanager
def disk_that(fails: Callable[[int, Callable[[], Any], tuple[Any, ...]], Any]) -> Iterator[None]:
    """Have every operation on the disk done by ``fails(its number, how to do it, its arguments)``."""
    number = count()

    def faulty(operation: Callable[..., Any]) -> Callable[..., Any]:
        def perform(*arguments: Any, **keywords: Any) -> Any:
            return fails(next(number), lambda: operation(*arguments, **keywords), arguments)

        return perform

    with patch.multiple(os, **{name: faulty(getattr(os, name)) for name in OPERATIONS}):
        yield


def left_by(run: Path) -> dict[str, Any]:
    """All that a run leaves: every file of its checkpoints, and its logs, timings aside."""
    files: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".safetensors":
            files[name] = path.read_bytes()
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            files[name] = [[*(json.loads(line) | {"wall_s": 0}).items()] for line in lines]
        elif path.name == "manifest.json":
            state = json.loads(path.read_text())["state"]
            files[name] = state | {"counters": state["counters"] | {"wall_s": 0}}
    return files


def differences(one: Path, other: Path) -> list[str]:
    """The names of what two runs left that is not the same."""
    these, those = left_by(one), left_by(other)
    return [name for name in sorted({*these, *those}) if these.get(name) != those.get(name)]


def train(run: Path, *settings: str, die: Callable[[], bool] = lambda: False) -> str:
    """Begin a run, or go on with it; gives its status. It dies when ``die``, asked at every turn, says so."""

    def stop() -> bool:
        if die():
            raise Killed
        return False

    if (run / "recipe.yaml").exists():
        return Experiment(load_recipe(run / "recipe.yaml")).train(should_stop=stop, resume=run)["status"]
    recipe = next((text.partition("=")[2] for text in settings if text.startswith("recipe=")), "sqn")
    return compose(recipe, *settings, f"out={run}", "resume=auto").train(should_stop=stop)["status"]


def killed_and_resumed(folder: Path, kills: int, seed: int, *settings: str) -> tuple[int, list[str]]:
    """Kill a run, and compare what it ends as with one that is left alone.

    Every other kill is in the loop or in an evaluation, the rest are in operations on the disk.

    Returns:
        The number of kills, and what differs.
    """
    chance = random.Random(seed)
    turns, operations = count(), count()
    with disk_that(lambda number, perform, _: (next(operations), perform())[1]):
        train(folder / "alone", *settings, die=lambda: next(turns) < 0)
    turns_each, operations_each = next(turns) // kills, next(operations) // kills
    for killed in range(kills):
        turn, operation = chance.randrange(turns_each), chance.randrange(operations_each)
        turn, operation = (turn, -1) if killed % 2 else (-1, operation)
        try:
            with disk_that(partial(_die_at, operation)):
                train(folder / "killed", *settings, die=partial(_is, turn, count()))
        except Killed:
            continue
        return killed, differences(folder / "alone", folder / "killed")
    train(folder / "killed", *settings)
    return kills, differences(folder / "alone", folder / "killed")


def _is(turn: int, turns: Iterator[int]) -> bool:
    return next(turns) == turn


def _die_at(operation: int, number: int, perform: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
    if number == operation:
        raise Killed
    return perform()
