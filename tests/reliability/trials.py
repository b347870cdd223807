"""Trials: a run is killed and resumed repeatedly, and must equal a run that was not disturbed."""

import json
import math
import mmap
import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple
from unittest.mock import patch

from safetensors.torch import load_file

from sqn_rl import Experiment, compose
from sqn_rl.parts.replay.sequence_starts import LATER
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.training.update.compiling import Compiled

OPERATIONS = ("open", "write", "fsync", "ftruncate", "replace", "mkdir", "unlink", "rmdir")
"""The disk operations that a run uses."""


WAYS = ("disk", "turn", "time")
"""What the moment of a kill depends on: a disk operation, a turn of the loop, or the clock."""

ANEW = 0.1
"""The fraction of processes that compile everything again instead of reusing compiled code."""

HANGS = 3_600.0
"""Seconds after which a process counts as hanging; it takes seconds, or minutes if the CPU is busy."""

TINY = (
    "num_envs=2",
    "warmup_steps=60",
    "batch_size=8",
    "update_ratio=0.25",
    "hidden=[8]",
    "replay_capacity=150",
)
TINY += ("steps=300", "log_every=50", "checkpoint_every=70", "eval_every=90", "eval_episodes=2")
TINY += ("checkpoint_best=true",)
TASKS = {
    "CartPole": ("env=cartpole",),
    "Pong from RAM": ("env=atari_ram", "env.game=pong", "env.max_frames=240", "env.workers=0"),
    "Pong from pixels": ("env=atari", "env.game=pong", "env.max_frames=240", "env.threads=1"),
}


class Killed(BaseException):
    """Simulates a kill of the process: nothing catches this exception."""


@contextmanager
def disk_that(does: Callable[..., Any], run: Path) -> Iterator[None]:
    """Replace every disk operation within ``run`` by ``does(its number, the operation, *arguments)``."""
    number = count()

    def faulty(operation: Callable[..., Any]) -> Callable[..., Any]:
        def perform(*arguments: Any, **keywords: Any) -> Any:
            if not _in(run, arguments[0], keywords.get("dir_fd", keywords.get("src_dir_fd"))):
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


REPLAY = ": rows of table "


def left_by(run: Path) -> dict[str, Any]:
    """All results of a run, without timings: its logs, and every tensor and value of its checkpoints."""
    files: dict[str, Any] = {}
    for path in sorted(run.rglob("*.*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".safetensors" and path.parent.name != "replay":
            files[name] = path.read_bytes()
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            timings = {"wall_s": 0, "learner_wait": 0}
            files[name] = [[*(json.loads(line) | timings).items()] for line in lines]
        elif path.name == "manifest.json":
            content = json.loads(path.read_text())
            counters = content["state"].get("counters", {}) | {"wall_s": 0}
            files[name] = content["state"] | {"counters": counters}
            tables: dict[int, list[dict[str, Any]]] = {0: []}
            for chunk in content["replay"]:
                tables.setdefault(chunk.get("table", 0), []).append(chunk)
            for table, chunks in tables.items():
                files[f"{name}{REPLAY}{table}"] = _replay(path.parents[1] / "replay", chunks)
    return files


def _replay(folder: Path, chunks: list[dict[str, Any]]) -> dict[tuple[int, str], bytes]:
    """Every row of a replay by its number, and every final frame, however they are split into files."""
    found: dict[tuple[int, str], bytes] = {}
    for chunk in chunks:
        begin, end, table = chunk["begin"], chunk["end"], chunk.get("table")
        columns = load_file(folder / f"{begin:012d}-{end:012d}{f'.{table}' if table else ''}.safetensors")
        games = len(columns["action"]) // (end - begin)
        finals = zip(columns.pop("final_of").tolist(), columns.pop("final_frame"), strict=True)
        found |= {(n // games, f"final {n % games}"): frame.numpy().tobytes() for n, frame in finals}
        if "memory" in columns:  # of the beginnings of sequences alone, but the first of an episode
            numbers = (begin * games + (columns["start"] == LATER).nonzero().flatten()).tolist()
            memories = zip(numbers, columns.pop("memory"), strict=True)
            found |= {(n // games, f"memory {n % games}"): each.numpy().tobytes() for n, each in memories}
        for name, column in columns.items():
            rows = column.reshape(end - begin, -1).numpy()
            found |= {(begin + i, name): row.tobytes() for i, row in enumerate(rows)}
    return found


def differences(one: Path, other: Path) -> list[str]:
    """The names of results in which two runs differ; of replays, rows that both still have are compared."""
    these, those = left_by(one), left_by(other)
    for name in these.keys() & those.keys():
        if REPLAY in name and these[name] and those[name]:
            first = max(min(row for row, what in each[name] if what == "action") for each in (these, those))
            for each in (these, those):
                each[name] = {key: row for key, row in each[name].items() if key[0] >= first}
    return [name for name in sorted({*these, *those}) if these.get(name) != those.get(name)]


def train(run: Path, *settings: str, die: Callable[[], bool] = lambda: False) -> str:
    """Begin or resume a run, and return its status. At a turn when ``die()`` is true, raise ``Killed``."""

    def stop() -> bool:
        if die():
            raise Killed
        return False

    if (run / "recipe.yaml").exists():
        return Experiment(load_recipe(run / "recipe.yaml")).train(should_stop=stop, resume=run)["status"]
    recipe = next((text.partition("=")[2] for text in settings if text.startswith("recipe=")), "sqn")
    return compose(recipe, *settings, f"out={run}", "resume=auto").train(should_stop=stop)["status"]


class Trial(NamedTuple):
    """The result of killing and resuming a run repeatedly."""

    kills: Counter[str]
    """The number of kills by way, one of ``WAYS``."""
    differ: list[str]
    """The results that differ from those of the undisturbed run."""
    faults: Counter[str]
    """Processes that ended in a traceback, or hung; the first ends the trial."""
    compiled: Counter[str]
    """The number of kills before, while and after something was compiled."""


def killed_and_resumed(folder: Path, kills: int, seed: int, *settings: str) -> Trial:
    """Kill a run so many times, and compare its results with those of an undisturbed run.

    A process is killed with SIGKILL: alternately in a disk operation (a write is then half done), at a turn
    of the loop or of an evaluation, and at a random time. If a run ends before it was killed often enough,
    another one follows. The undisturbed run is trained in this process, so that the forked processes need no
    imports, and most of them no compilation.
    """
    chance, killed, compiled, differ = random.Random(seed), Counter[str](), Counter[str](), []
    alone, again, compiling = folder / "alone", folder / "again", _Compiling()
    with compiling.noted():
        longest = _left_alone(alone, *settings)
    if compiling.made:  # once more with compiled code, as in most processes
        with _Compiling(compiling.made).noted():
            longest = _left_alone(again, *settings)
        differ += differences(alone, again)
    while killed.total() < kills:
        run = Path(mkdtemp(dir=folder))
        while True:
            way = WAYS[killed.total() % len(WAYS)]
            when = chance.uniform(0, longest[way] / 3) if killed.total() < kills else math.inf
            seen = _Compiling([] if chance.random() < ANEW else compiling.made)
            session = partial(_session, run, settings, seen, **{way: when})
            ended = in_a_process(session, when if way == "time" else math.inf)
            if ended in FAULTY:
                return Trial(killed, differ, Counter([FAULTY[ended]]), compiled)
            if ended == "done":
                break
            killed[way] += 1
            compiled[seen.now()] += 1
        differ += differences(alone, run)
        shutil.rmtree(run)
    return Trial(killed, differ, Counter(), compiled)


class _Compiling:
    """Counts how often a process, possibly dead by now, began and finished to compile a function.

    Args:
        warm: functions compiled by the parent of the process; those whose guards fit are reused. Compiling
            takes 3 to 10 s, everything else in a process 1 s.
    """

    def __init__(self, warm: Sequence[Any] = ()) -> None:
        self._warm, self._counts = warm, mmap.mmap(-1, 2)
        self.made: list[Any] = []
        """The functions that were compiled in this process."""

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Count compilations in this process."""
        compile_and_call = Compiled._compile_and_call

        def counted(compiled: Any, arguments: Any) -> Any:
            self._counts[0] += 1
            names = ("self", *compiled._arguments)
            given = dict(zip(names, (compiled._owner, *arguments), strict=True))
            method, known = compiled._method.__func__, len(compiled._variants)
            made = next((made for of, made in self._warm if of is method and made[0](given)), None)
            if made:
                compiled.pending = False
                compiled._variants.append(made)
                result = made.code(compiled._owner, *arguments)
            else:
                result = compile_and_call(compiled, arguments)
            if len(compiled._variants) > known:
                self.made.append((method, compiled._variants[-1]))
                self._counts[1] += 1
            return result

        with patch.object(Compiled, "_compile_and_call", counted):
            yield

    def now(self) -> str:
        """Whether the process is, or was, before, while or after compiling."""
        begun, done = self._counts[0], self._counts[1]  # iterating over an mmap yields bytes objects
        return "before" if not begun else "after" if begun == done else "while"


def begin(act: Callable[[], int | None]) -> int:
    """Fork a process that calls ``act`` and exits with its result; return the process id."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = act() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


FAULTY = {"failed": "tracebacks", "hung": "hangs"}
"""The ends of a process that count as faults, with their kind."""


def in_a_process(act: Callable[[], None], seconds: float = math.inf) -> str:
    """Call ``act`` in a new process, and kill it after so many seconds.

    Returns:
        ``done``, ``killed`` (by this function or by itself), ``failed`` or ``hung``.
    """
    child, hung = begin(act), False
    began = time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        hung = time.monotonic() - began >= HANGS
        if hung or time.monotonic() - began >= seconds:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[1])
    return "hung" if hung else {0: "done", -signal.SIGKILL: "killed"}.get(code, "failed")


def _left_alone(run: Path, *settings: str) -> dict[str, float]:
    """Train to the end in this process; return the number of turns, disk operations and seconds."""
    turns, operations, began = count(), count(), time.monotonic()

    def does(number: int, operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
        next(operations)
        return operation(*what, **how)

    with disk_that(does, run):
        train(run, *settings, die=lambda: next(turns) < 0)
    return {"turn": next(turns), "disk": next(operations), "time": time.monotonic() - began}


def _session(
    run: Path,
    settings: Sequence[str],
    seen: _Compiling,
    turn: float = math.inf,
    disk: float = math.inf,
    time: float = math.inf,
) -> None:
    """Train, and kill this process at this turn, or in this disk operation."""
    turns = count()

    def does(number: int, operation: Callable[..., Any], *what: Any, **how: Any) -> Any:
        if number < disk:
            return operation(*what, **how)
        if operation.__name__ == "write":
            operation(what[0], what[1][: len(what[1]) // 2])
        return os.kill(os.getpid(), signal.SIGKILL)

    def die() -> bool:
        if next(turns) >= turn:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    with disk_that(does, run), seen.noted():
        train(run, *settings, die=die)
