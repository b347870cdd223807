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

from safetensors.torch import load_file

from sqn_rl import Experiment, compose
from sqn_rl.recipe import load_recipe

OPERATIONS = ("open", "write", "fsync", "ftruncate", "replace", "mkdir", "unlink", "rmdir")
"""All that is done to a disk in a run."""


class Killed(BaseException):
    """The process is gone: nothing catches this."""


@contextmanager
def disk_that(does: Callable[..., Any], run: Path) -> Iterator[None]:
    """Have every operation on what is in ``run`` done by ``does(its number, the operation, *arguments)``."""
    number = count()

    def faulty(operation: Callable[..., Any]) -> Callable[..., Any]:
        def perform(*arguments: Any, **keywords: Any) -> Any:
            if not _in(run, arguments[0], keywords.get("dir_fd")):
                return operation(*arguments, **keywords)
            return does(next(number), operation, *arguments, **keywords)

        perform.__name__ = operation.__name__
        return perform

    with patch.multiple(os, **{name: faulty(getattr(os, name)) for name in OPERATIONS}):
        yield


def _in(run: Path, what: Any, folder: int | None) -> bool:
    """Whether an operation's first argument, a path or an open file, is in a run."""
    if isinstance(what, int):
        what = os.readlink(f"/proc/self/fd/{what}")
    elif folder is not None:
        what = f"{os.readlink(f'/proc/self/fd/{folder}')}/{os.fspath(what)}"
    return Path(what).absolute().is_relative_to(run.absolute())


def left_by(run: Path) -> dict[str, Any]:
    """All that a run leaves, timings aside: its logs, and of its checkpoints every tensor and every value."""
    files: dict[str, Any] = {}
    for path in sorted(run.rglob("*.*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".safetensors" and path.parent.name != "replay":
            files[name] = path.read_bytes()
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            files[name] = [[*(json.loads(line) | {"wall_s": 0}).items()] for line in lines]
        elif path.name == "manifest.json":
            content = json.loads(path.read_text())
            counters = content["state"]["counters"] | {"wall_s": 0}
            files[name] = content["state"] | {"counters": counters}
            files[f"{name}: replay"] = _replay(path.parents[1] / "replay", content["replay"])
    return files


def _replay(folder: Path, chunks: list[dict[str, Any]]) -> dict[tuple[int, str], bytes]:
    """Every row of a replay by its number, and every final frame, however they are cut in pieces."""
    found: dict[tuple[int, str], bytes] = {}
    for begin, end in ((chunk["begin"], chunk["end"]) for chunk in chunks):
        columns = load_file(folder / f"{begin:012d}-{end:012d}.safetensors")
        games = len(columns["action"]) // (end - begin)
        finals = zip(columns.pop("final_of").tolist(), columns.pop("final_frame"), strict=True)
        found |= {(n // games, f"final {n % games}"): frame.numpy().tobytes() for n, frame in finals}
        for name, column in columns.items():
            rows = column.reshape(end - begin, -1).numpy()
            found |= {(begin + i, name): row.tobytes() for i, row in enumerate(rows)}
    return found


def differences(one: Path, other: Path) -> list[str]:
    """The names of what two runs left that is not the same; of replays, rows that both still have count."""
    these, those = left_by(one), left_by(other)
    for name in these.keys() & those.keys():
        if name.endswith(": replay") and these[name] and those[name]:
            first = max(min(these[name]), min(those[name]))[0]
            for each in (these, those):
                each[name] = {key: row for key, row in each[name].items() if key[0] >= first}
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
    with disk_that(partial(_counted, operations), folder):
        train(folder / "alone", *settings, die=lambda: next(turns) < 0)
    turns_each, operations_each = next(turns) // kills, next(operations) // kills
    for killed in range(kills):
        turn, operation = chance.randrange(turns_each), chance.randrange(operations_each)
        turn, operation = (turn, -1) if killed % 2 else (-1, operation)
        try:
            with disk_that(partial(_die_at, operation), folder):
                train(folder / "killed", *settings, die=partial(_is, turn, count()))
        except Killed:
            continue
        return killed, differences(folder / "alone", folder / "killed")
    train(folder / "killed", *settings)
    return kills, differences(folder / "alone", folder / "killed")


def _is(turn: int, turns: Iterator[int]) -> bool:
    return next(turns) == turn


def _counted(
    operations: Iterator[int], number: int, operation: Callable[..., Any], *what: Any, **how: Any
) -> Any:
    next(operations)
    return operation(*what, **how)


def _die_at(last: int, number: int, operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
    if number == last:
        raise Killed
    return operation(*what, **how)
