"""Fuzzing: whole commands on files, folders and arguments that are not what they should be.

A case is a command, what of its input is changed, and how. It runs in a process of its own, without special
rights, on a fresh copy of a small world. It must end in time, with a documented exit code; if that is not 0,
with one message that names what is wrong, never with a traceback. Nothing changes but what the command may
write, and no process is left.
"""

import copy
import ctypes
import http.client
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import torch
import yaml
from reliability.tiny import cut_short, made_longer, one_bit, some_bytes
from reliability.trials import TINY, begin
from safetensors.torch import load_file, save_file
from torch import Tensor

from sqn_rl import Batch, Experiment, compose
from sqn_rl.analysis.grid import jobs_of, variants_of
from sqn_rl.analysis.space import space_of
from sqn_rl.analysis.tuning import Tuning
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.recipe.reading import printable
from sqn_rl.recipe.schema import SLOTS
from sqn_rl.training.numerics import bundle

PROCESSOR_SECONDS, SECONDS = 20, 240
"""The most that a case may take; the second is for what waits, also for others' processes."""

CODES = {0, 1, 2, 4}
"""That are documented, of what is neither stopped by a signal nor not read."""

MOST = 4000
"""Characters of a message."""


class Case(NamedTuple):
    """One change, and the command that meets it."""

    command: str
    """What it is counted with."""
    module: str
    """Of ``sqn_rl.cli``."""
    arguments: tuple[str, ...]
    uses: tuple[str, ...]
    """What it needs of the world."""
    writes: tuple[str, ...]
    """What it may change; an empty text: everything but what is ``outside``."""
    kind: str
    """A name in ``CHANGES``, or ``arguments``, which are what is changed."""
    change: str
    """A name in ``CHANGES[kind]``, or the value of the argument."""
    target: str
    """The file or folder that is changed, or the argument."""
    seed: int


class Outcome(NamedTuple):
    """What came of a case."""

    code: int | None
    """None: it was killed, as it took too long."""
    out: str
    err: str
    pages: Mapping[str, str]
    """What was answered instead of pages that were asked for."""
    changed: list[str]
    """What was changed or made beside what the command may write."""
    left: int
    """Processes that outlived the command."""


class Command(NamedTuple):
    """A command that reads or writes files: what a :class:`Case` says of it, and globs of what is changed."""

    module: str
    arguments: tuple[str, ...]
    uses: tuple[str, ...]
    targets: tuple[str, ...]
    writes: tuple[str, ...] = ()


RUN = ("", "checkpoints", "checkpoints/replay", "checkpoints/0000000140", "checkpoints/0000000210", ".lock")
RUN += ("*.*", "checkpoints/*/manifest.json", "checkpoints/*/*.safetensors")
SHORT = (*TINY, "steps=100")
TUNED = "lr=uniform(0.001,0.01)"
TREE = ("tree", "tree/*", "tree/*/*", "tree/*/*/*")


def _in(run: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{run}/{name}".rstrip("/") for name in names)


COMMANDS = {
    "sqn-resume": Command("resume", ("stopped",), ("stopped",), _in("stopped", *RUN), ("stopped",)),
    "sqn-run resume=auto": Command(
        "run", (*TINY, "out=stopped", "resume=auto"), ("stopped",), _in("stopped", *RUN), ("stopped",)
    ),
    "sqn-run out=": Command(
        "run", (*SHORT, "out=output/run"), ("output",), ("output", "output/run"), ("output",)
    ),
    "sqn-run --config-dir": Command(
        "run", (*SHORT, "--config-dir", "tree", "recipe=mine", "out=taken"), ("tree", "taken"), TREE
    ),
    "sqn-eval": Command("evaluate", ("done", "--episodes", "1"), ("done",), _in("done", *RUN)),
    "sqn-eval --video": Command(
        "evaluate",
        ("done", "--max-steps", "5", "--video", "output/game.gif"),
        ("done", "output"),
        ("output", "output/game.gif"),
        ("output",),
    ),
    "sqn-compare": Command("compare", ("done", "others"), ("done", "others"), _in("done", *RUN)),
    "sqn-compare --output": Command(
        "compare",
        ("done", "--output", "output"),
        ("done", "output"),
        ("output", "output/comparison.*"),
        ("output",),
    ),
    "sqn-diff": Command("diff", ("done", "sqn"), ("done",), _in("done", "", "recipe.yaml")),
    "sqn-diff --config-dir": Command("diff", ("--config-dir", "tree", "mine", "sqn"), ("tree",), TREE),
    "sqn-diagnose": Command(
        "diagnose", ("spoilt",), ("spoilt",), _in("spoilt", "", "recipe.yaml", "numerics.safetensors")
    ),
    "sqn-list": Command("list", ("--config-dir", "tree"), ("tree",), TREE),
    "sqn-graph": Command("graph", ("--config-dir", "tree", "recipe=mine"), ("tree",), TREE),
    "sqn-push --to": Command(
        "hub.push", ("done", "--to", "output/model"), ("done", "output"), _in("done", *RUN), ("output",)
    ),
    "sqn-eject --config-dir": Command("eject", ("--config-dir", "tree", "recipe=mine"), ("tree",), TREE),
    "sqn-graph --output": Command(
        "graph",
        ("--output", "output/graph.svg"),
        ("output",),
        ("output", "output/graph.svg"),
        ("output",),
    ),
    "sqn-watch": Command("watch", ("stopped",), ("stopped",), _in("stopped", *RUN)),
    "sqn-ablate": Command(
        "ablate",
        (*SHORT, "out=sweep", "seeds=1", "head=linear,dueling", "--jobs", "1"),
        ("sweep",),
        ("sweep", "sweep/comparison.*", "sweep/*/s0", "sweep/*/s0/*.*", "sweep/*/s0/.lock"),
        ("sweep",),
    ),
    "sqn-tune": Command(
        "tune",
        (*SHORT, TUNED, "out=search", "seeds=1", "trials=2", "--jobs", "1"),
        ("search",),
        (
            "search",
            "search/*",
            "search/.lock",
            "search/trials/*",
            "search/trials/*/*",
            "search/trials/*/s1000/*.*",
        ),
        ("search",),
    ),
    "sqn-export": Command(
        "export",
        ("done", "output/policy.pt2"),
        ("done", "output"),
        (*_in("done", *RUN), "output", "output/policy.pt2"),
        ("output",),
    ),
    "sqn-eval --checkpoint": Command(
        "evaluate",
        ("best", "--episodes", "1", "--checkpoint", "best"),
        ("best",),
        _in(
            "best", "", "*.*", "checkpoints", "checkpoints/best", "checkpoints/best/*", "checkpoints/best/*/*"
        ),
    ),
}

PAGES = ("/data.json", "/graph.svg", "/film.gif")


OUTPUTS = ("output", "sweep", "search")


class World:
    """Runs that are done, stopped and failed, a tree of recipes, and files that are nobody's business.

    Args:
        folder: an empty one that everybody may enter.
    """

    def __init__(self, folder: Path) -> None:
        self.whole, self.copy = folder / "whole", folder / "copy"
        self._streams = {name: folder / name for name in ("out", "err")}
        self.whole.mkdir()
        run = self.whole / "stopped"
        stops = (run / "checkpoints" / "0000000210").exists
        assert compose("sqn", *TINY, f"out={run}").train(should_stop=stops)["status"] == "stopped"
        for number in range(3):
            run = self.whole / ("others", "done")[number == 0] / ("", "a", "b")[number]
            assert compose("sqn", *TINY, f"seed={number}", f"out={run}").train()["status"] == "done"
        self._spoilt()
        self._tree()
        variants = variants_of([*SHORT, "head=linear,dueling"], Catalogue())
        for job in jobs_of(variants, 1, self.whole / "sweep", Catalogue()):
            assert Experiment(job.recipe).train()["status"] == "done"
        self._search()
        best = compose("sqn", *TINY, "checkpoint_best=true", f"out={self.whole / 'best'}")
        assert best.train()["status"] == "done"
        for path in (
            "outside/folder/file",
            "outside/file",
            "taken",
            *(f"{each}/comparison.md" for each in OUTPUTS),
        ):
            (self.whole / path).parent.mkdir(parents=True, exist_ok=True)
            (self.whole / path).write_text("precious: 1\n")
        for command in COMMANDS.values():
            importlib.import_module(f"sqn_rl.cli.{command.module}")
        self._subreaper()

    def _search(self) -> None:
        """Two trials that are done, and a page and a recipe that were written before."""
        fixed, space = space_of([*SHORT, TUNED], Catalogue())
        folder = self.whole / "search"
        folder.mkdir()
        tuning = Tuning(fixed, space, 2, 1, folder, Catalogue(), lambda trial: None)
        tuning.begin()
        while job := tuning.next_job():
            assert Experiment(job.recipe).train()["status"] == "done"
            tuning.job_ended(job, False, "")
        (folder / "tuning.html").touch()
        (folder / "best.yaml").touch()

    def _spoilt(self) -> None:
        """A run that a NaN has stopped."""
        run = self.whole / "spoilt"
        run.mkdir()
        shutil.copy(self.whole / "done" / "recipe.yaml", run)
        loss = load_recipe(run / "recipe.yaml").build()["loss"]
        ones, no = torch.ones(8), torch.zeros(8, dtype=torch.bool)
        action, place = torch.zeros(8, dtype=torch.int64), torch.arange(8)
        see = torch.randn(8, 4)
        batch = Batch(see, action, ones * torch.nan, see.clone(), no, ones * 0.99, place)
        save_file(bundle(loss, batch), run / "numerics.safetensors")

    def _tree(self) -> None:
        tree, ours = self.whole / "tree", Path(__file__).resolve().parents[2]
        (tree / "recipes").mkdir(parents=True)
        (tree / "recipes" / "mine.yaml").write_text(
            "# Mine.\ndefaults: [sqn, {override /head: mine}, {override /env: mine}, _self_]\ngamma: 0.98\n"
        )
        for group, name in (("head", "dueling"), ("env", "cartpole"), ("task", "classic_control")):
            (tree / "components" / group).mkdir(parents=True)
            own = "mine" if group != "task" else name
            shutil.copy(
                ours / "components" / group / f"{name}.yaml", tree / "components" / group / f"{own}.yaml"
            )

    @staticmethod
    def _subreaper() -> None:
        """Become the parent of whatever a case leaves behind."""
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)

    # --- a case ---------------------------------------------------------------------------------------------

    def run(self, case: Case) -> Outcome:
        """Have a command meet a change."""
        self._copy(case.uses)
        if case.kind in CHANGES:
            CHANGES[case.kind][case.change](self.copy / case.target, random.Random(case.seed))
        before = self._seen(case.writes)
        for path in self._streams.values():
            path.unlink(missing_ok=True)
        there = _children()
        child = begin(lambda: self._child(case.module, case.arguments))
        pages = self._browse(child) if case.module == "watch" else {}
        code, left = self._wait(child), self._left(there)
        after = self._seen(case.writes)
        changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
        out, err = (path.read_text(errors="replace") for path in self._streams.values())
        return Outcome(code, out, err, pages, changed, left)

    def targets(self, *globs: str) -> list[Path]:
        """What can be changed, in the world as it is."""
        found = (self.whole.glob(each) if "*" in each else [self.whole / each] for each in globs)
        return sorted({path.relative_to(self.whole) for paths in found for path in paths})

    def _copy(self, uses: tuple[str, ...]) -> None:
        self.clear()
        self.copy.mkdir()
        for name in (*uses, "outside"):
            source = self.whole / name
            if source.is_dir():
                shutil.copytree(source, self.copy / name)
            else:
                shutil.copy(source, self.copy / name)

    def clear(self) -> None:
        """Remove the copy, whatever its permissions are."""
        if self.copy.exists():
            for folder, _, _ in os.walk(self.copy):
                os.chmod(folder, 0o700)
            shutil.rmtree(self.copy)

    def _seen(self, but: tuple[str, ...]) -> dict[str, Any]:
        """All that can be seen to change: of each file its kind, rights, size and when it was changed."""
        seen = {}
        for folder, folders, files in os.walk(self.copy):
            for name in (*folders, *files):
                path = Path(folder, name).relative_to(self.copy)
                if path.parts[0] == "outside" or not {"", path.parts[0]} & {*but}:
                    found = os.lstat(self.copy / path)
                    seen[str(path)] = (found.st_mode, found.st_size, found.st_mtime_ns, found.st_ino)
        return seen

    def _child(self, module: str, arguments: tuple[str, ...]) -> int:
        for number, path in enumerate(self._streams.values(), 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdin = open(os.devnull)  # noqa: SIM115
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also if we are in the background
        warnings.resetwarnings()
        sys.argv = [f"sqn-{module}", *arguments]
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
        give_up_rights()
        os.chdir(self.copy)
        try:
            return importlib.import_module(f"sqn_rl.cli.{module}").main(arguments)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else 1

    def _wait(self, child: int) -> int | None:
        end = time.monotonic() + SECONDS
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() >= end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(ended[1])

    def _left(self, there: set[int]) -> int:
        """How many processes there are of this one that were not ``there`` before; they are ended."""
        left = [*_children() - there]
        end = time.monotonic() + 1  # one that is ending has a moment
        while left := [number for number in left if not os.waitpid(number, os.WNOHANG)[0]]:
            if time.monotonic() >= end:
                break
            time.sleep(0.002)
        for number in left:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
        return len(left)

    def _browse(self, child: int) -> dict[str, str]:
        """Ask a server for its pages, and end it; gives those answers that are no pages."""
        end, url, answers = time.monotonic() + SECONDS, None, {}
        while not url and time.monotonic() < end:
            time.sleep(0.01)
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return {}
            with suppress(FileNotFoundError):
                url = re.search(
                    r"http://127\.0\.0\.1:(\d+)/", self._streams["out"].read_text(errors="replace")
                )
        if url:
            for page in PAGES:
                connection = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=SECONDS)
                try:
                    connection.request("GET", page)
                    answer = connection.getresponse()
                    if answer.status != 200:
                        answers[page] = answer.read().decode(errors="replace")
                    elif page == "/data.json":
                        json.loads(answer.read())
                except (OSError, http.client.HTTPException, ValueError) as error:
                    answers[page] = f"{type(error).__name__}: {error}"
                finally:
                    connection.close()
            os.kill(child, signal.SIGINT)
        return answers


ABLATE, TUNE = COMMANDS["sqn-ablate"], COMMANDS["sqn-tune"]


def give_up_rights() -> None:
    """Have no rights but those that permissions give, even as root, and so have all that we start."""
    libc, pr_capbset_drop, version_3 = ctypes.CDLL(None), 24, 0x20080522
    for capability in range(64):
        libc.prctl(pr_capbset_drop, capability, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(version_3, 0), (ctypes.c_uint32 * 6)()
    libc.capset(header, none)


def permissions_count() -> bool:
    """Whether a process can be kept out of a file here."""
    with NamedTemporaryFile() as file:
        os.chmod(file.name, 0)

        def refused() -> bool:
            give_up_rights()
            return not os.access(file.name, os.R_OK)

        return os.waitstatus_to_exitcode(os.waitpid(begin(refused), 0)[1]) == 1


def _children() -> set[int]:
    """The processes of this one: Python itself may have some, such as one that tracks semaphores."""
    return {int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with what a command did."""
    wrong = []
    if outcome.code in (None, -signal.SIGXCPU):
        wrong.append("a hang")
    elif outcome.code not in CODES:
        wrong.append(f"exit code {outcome.code}")
    printed = f"{outcome.out}\n{outcome.err}"
    blamed = [text for text in outcome.pages.values() if re.match(r"\w*(Error|Exception|Timeout)\b", text)]
    if "Traceback (most recent call last)" in printed or "Fatal Python error" in printed or blamed:
        wrong.append("a traceback")
    if "Warning:" in outcome.err:
        wrong.append("a warning of Python's")
    if outcome.code in (1, 2) and not wrong:
        many = case.module in ("ablate", "tune")  # their runs fail in lines of their tables
        says = printed if many else outcome.err
        if not says.startswith("usage: ") and not any(name in says for name in _names(case)):
            wrong.append("a message without a name")
        if len(outcome.err) > MOST:
            wrong.append("a long message")
    wrong += [f"an effect on {name}" for name in outcome.changed if not _is_meant(case, name)]
    return wrong + ([f"{outcome.left} processes left"] if outcome.left else [])


def _names(case: Case) -> list[str]:
    """What a message may name: what is changed, who asks for it, or what is in the way of a good command."""
    names = [case.target, *case.target.split("/"), case.target.rpartition(".")[2], "mine", "taken"]
    return names + ([printable(case.change)[:50]] if case.kind == "arguments" else [])


def _is_meant(case: Case, name: str) -> bool:
    """Whether it is what the user has named, or where a link leads that the user has named."""
    if case.kind == "arguments":
        return name.startswith(case.change)
    named = any(case.target in argument for argument in case.arguments)
    return named and case.change in LINKS and name.startswith(LINKS[case.change])


LINKS = {"moved": "outside/moved", "link to a folder": "outside/folder"}
"""To folders, which a user may name."""


# --- what is changed ---------------------------------------------------------------------------------------

Change = Callable[[Path, random.Random], None]


def inserted(path: Path, chance: random.Random) -> None:
    """Insert some bytes somewhere."""
    text = path.read_bytes()
    at = chance.randrange(len(text) + 1)
    path.write_bytes(text[:at] + chance.randbytes(1 + chance.randrange(20)) + text[at:])


def cut_out(path: Path, chance: random.Random) -> None:
    """Remove some bytes from the middle."""
    text = path.read_bytes()
    at = chance.randrange(len(text) + 1)
    path.write_bytes(text[:at] + text[at + 1 + chance.randrange(40) :])


def swapped(path: Path, chance: random.Random) -> None:
    """Have two pieces change places."""
    text = path.read_bytes()
    a, b, c = sorted(chance.randrange(len(text) + 1) for _ in range(3))
    path.write_bytes(text[:a] + text[b:c] + text[a:b] + text[c:])


def zeros(path: Path, chance: random.Random) -> None:
    """Have zeros at the end, as a power cut leaves."""
    size = path.stat().st_size
    os.truncate(path, chance.randrange(size + 1))
    os.truncate(path, size)


def resigned(change: Change) -> Change:
    """Change a file of a run, and have its manifests say that this is what was written."""

    def changed(path: Path, chance: random.Random) -> None:
        change(path, chance)
        if run := _run_of(path):
            sign(run)

    return changed


def _run_of(path: Path) -> Path | None:
    return next((folder for folder in path.parents if (folder / "recipe.yaml").exists()), None)


def sign(run: Path) -> None:
    """Have the manifests of a run say of every file what it is now, and of themselves too."""
    for path in run.glob("checkpoints/*/manifest.json"):
        with suppress(Exception):  # whatever was made of it
            content = json.loads(path.read_text())
            marks = [(path.parent / name, mark) for name, mark in content["files"].items()]
            marks += [(run / name, mark) for name, mark in content["run"].items()]
            replay = run / "checkpoints" / "replay"
            for each in content["replay"]:
                marks.append((replay / f"{each['begin']:012d}-{each['end']:012d}.safetensors", each))
            for file, mark in marks:
                if file.is_file():
                    text = file.read_bytes()
                    mark |= {"bytes": len(text), "sha256": sha256(text).hexdigest()}
            content.pop("sha256", None)
            text = json.dumps(content, indent=1).encode()
            path.write_text(json.dumps({**content, "sha256": sha256(text).hexdigest()}, indent=1))


DEEP: Any = 1
for _ in range(200):
    DEEP = [DEEP]
DIGITS = "9" * 5000
WRONG = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    1.5,
    -0.5,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
]
WRONG += [
    "",
    "x" * 300,
    "../outside/file",
    "/dev/zero",
    "\x1b[31m",
    "\0",
    "${steps}",
    "${nothing}",
    "é\u202e",
]
WRONG += [[], {}, [[]], [None], {"": 0}, {"$tensor": "nothing"}, {"$rows": True}, {"_target_": "os.system"}]
WRONG += [DEEP, DIGITS, "2026-01-01", "1_000", "0x10", "~", "null"]


def another_value(path: Path, chance: random.Random) -> None:
    """Put another value somewhere in a file, of any type."""
    _edit(path, chance, lambda value: chance.choice(WRONG))


def like_value(path: Path, chance: random.Random) -> None:
    """Put a value like the one that was there: one more, less, negative, another length, as a text."""

    def other(value: Any) -> Any:
        if isinstance(value, bool) or value is None:
            return int(bool(value))
        if isinstance(value, int | float):
            return chance.choice(
                [value + 1, value - 1, -value, value * 10**6, value / 2, str(value), [value]]
            )
        if isinstance(value, str):
            return chance.choice([value[:-1], value + "x", value.upper(), value * 2, [value], {value: value}])
        if isinstance(value, list):
            return chance.choice([value[:-1], value * 2, value[::-1], dict(enumerate(map(str, value)))])
        names = [*value]
        chance.shuffle(names)
        return chance.choice(
            [dict(zip(names, value.values(), strict=True)), [*value.values()], {**value, "x": 1}]
        )

    _edit(path, chance, other)


def no_value(path: Path, chance: random.Random) -> None:
    """Remove a value."""
    _edit(path, chance, lambda value: GONE)


GONE = object()


def _edit(path: Path, chance: random.Random, change: Callable[[Any], Any]) -> None:
    """Change one value of a file, whatever its format."""
    if path.suffix == ".safetensors":
        return _edit_tensors(path, chance, change)
    text = path.read_text()
    if path.suffix == ".yaml":
        changed = yaml.dump(_changed(yaml.safe_load(text), chance, change), sort_keys=False)
    elif path.suffix == ".jsonl":
        lines = text.splitlines()
        at = chance.randrange(len(lines))
        lines[at] = json.dumps(_changed(json.loads(lines[at]), chance, change))
        changed = "\n".join([*lines, ""])
    elif path.suffix == ".json":
        changed = json.dumps(_changed(json.loads(text), chance, change), indent=1)
    else:
        changed = text + str(change(text))
    path.write_text(changed.replace(f'"{DIGITS}"', DIGITS).replace(f"'{DIGITS}'", DIGITS))
    return None


def _changed(tree: Any, chance: random.Random, change: Callable[[Any], Any]) -> Any:
    """A tree in which one value is another."""
    tree = copy.deepcopy(tree)
    places = [*_places(tree)]
    # half of them near the root, where there are few
    top = [place for place in places if len(place) < 3]
    *path, last = chance.choice(chance.choice([places, top]))
    inner = tree
    for name in path:
        inner = inner[name]
    if (value := change(inner[last])) is GONE:
        del inner[last]
    else:
        inner[last] = value
    return tree


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(child, (*path, name))


def _edit_tensors(path: Path, chance: random.Random, change: Callable[[Any], Any]) -> None:
    tensors = load_file(path)
    name = chance.choice(sorted(tensors))
    tensor = tensors.pop(name)
    if change(0) is not GONE:
        tensors[name] = chance.choice(TENSORS)(tensor).contiguous()
    save_file(tensors, path)


def _filled(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full(tensor.shape, value).to(tensor.dtype)


TENSORS: list[Callable[[Tensor], Tensor]] = [
    *map(_filled, (0, -1, 1, 7, 1e30, 2**40, torch.nan, torch.inf)),
    lambda tensor: tensor.double(),
    lambda tensor: tensor.to(torch.float16),
    lambda tensor: tensor.to(torch.int64),
    lambda tensor: tensor.to(torch.uint8),
    lambda tensor: tensor.bool(),
    lambda tensor: tensor.reshape(-1).clone(),
    lambda tensor: tensor.unsqueeze(0).clone(),
    lambda tensor: tensor.reshape(-1)[:1].clone(),
    lambda tensor: torch.zeros(0, dtype=tensor.dtype),
    lambda tensor: torch.zeros((), dtype=tensor.dtype),
    lambda tensor: torch.cat([tensor.reshape(-1)] * 2),
    lambda tensor: tensor[:-1].clone() if tensor.dim() else tensor.clone(),
    lambda tensor: torch.zeros(2**20, dtype=tensor.dtype),
]


def replaced(make: Callable[[Path], None]) -> Change:
    """Have something else than a file, or a folder, at a path."""

    def changed(path: Path, chance: random.Random) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        make(path)

    return changed


def _outside(path: Path, name: str) -> Path:
    return next(folder for folder in path.parents if (folder / "outside").exists()) / "outside" / name


def moved(path: Path, chance: random.Random) -> None:
    """Have a link to where it is now."""
    other = _outside(path, "moved")
    if path.exists():
        path.rename(other)
    path.symlink_to(other)


def sparse(path: Path) -> None:
    """A file of terabytes."""
    with path.open("wb") as file:
        file.truncate(2**42)


def full_folder(path: Path) -> None:
    """A folder with something in it."""
    path.mkdir()
    (path / "file").touch()


def rights(mode: int) -> Change:
    """Take away rights."""
    return lambda path, chance: os.chmod(path, mode) if path.exists() else None


CHANGES: dict[str, dict[str, Change]] = {
    "bytes": {
        change.__name__: change
        for change in (one_bit, some_bytes, cut_short, made_longer, inserted, cut_out, swapped, zeros)
    },
    "types": {change.__name__: resigned(change) for change in (another_value, like_value, no_value)},
    "kind of file": {
        "moved": moved,
        **{
            name: replaced(make)
            for name, make in {
                "nothing": lambda path: None,
                "empty": lambda path: path.touch(),
                "folder": lambda path: path.mkdir(),
                "full folder": full_folder,
                "pipe": os.mkfifo,
                "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
                "link to a file": lambda path: path.symlink_to(_outside(path, "file")),
                "link to a folder": lambda path: path.symlink_to(_outside(path, "folder")),
                "link to nothing": lambda path: path.symlink_to(_outside(path, "nothing")),
                "link to itself": lambda path: path.symlink_to(path.name),
                "link to zeros": lambda path: path.symlink_to("/dev/zero"),
                "link to a full disk": lambda path: path.symlink_to("/dev/full"),
                "terabytes": sparse,
            }.items()
        },
    },
    "permissions": {f"{mode:03o}": rights(mode) for mode in (0o000, 0o200, 0o444, 0o555, 0o333, 0o666)},
}
CHANGES["bytes"] |= {f"{name}, signed": resigned(change) for name, change in [*CHANGES["bytes"].items()]}


# --- arguments ---------------------------------------------------------------------------------------------

VALUES = ["", "null", "true", "-1", "0", "1.5", "1e10", "1e999", "-inf", "nan", DIGITS, "x" * 300, "é", "''"]
VALUES += [
    "[]",
    "{}",
    "[[[1]]]",
    "{a:{b:1}}",
    "[" * 300 + "]" * 300,
    "[1,2",
    "'",
    "\\",
    "${steps}",
    "${x}",
    "???",
]
VALUES += [
    "\x1b[31m",
    "a=b",
    "../outside",
    "/dev/zero",
    "2147483648",
    "9223372036854775808",
    "0x10",
    "~",
    "%s",
]
VALUES += ["\udcff", "a,b", "range(3)", "outside/file", "outside/folder", ".", "/", "y" * 5000, "os.system"]

OVERRIDDEN: dict[str, tuple[str, Callable[[str], tuple[str, ...]]]] = {
    "sqn-run name=value": ("run", lambda text: (*SHORT, "out=taken", text)),
    "sqn-run -m": ("run", lambda text: (*SHORT, "out=taken", "-m", "seed=1,2", text)),
    "sqn-run --completion": ("run", lambda text: ("--completion", f"sqn-run {text}")),
    "sqn-graph name=value": ("graph", lambda text: (text,)),
    "sqn-eject name=value": ("eject", lambda text: (text,)),
    "sqn-diff name=value": ("diff", lambda text: ("sqn", f"sqn {text}")),
    "sqn-ablate name=value": (
        "ablate",
        lambda text: (*SHORT, "out=taken", "seeds=1", "head=linear,dueling", text),
    ),
    "sqn-tune name=value": (
        "tune",
        lambda text: (*SHORT, "out=taken", "seeds=1", "trials=1", TUNED, text),
    ),
}
"""The module, and its arguments with an override; where it could train, a file is in its way."""

OPTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "sqn-run": ("run", SHORT, ("out={}", "--config-dir={}", "--trust={}"), ()),
    "sqn-resume": ("resume", ("stopped",), ("--config-dir={}", "--trust={}", "--{}"), ("stopped",)),
    "sqn-eval": (
        "evaluate",
        ("done", "--episodes=1"),
        (
            "--seed={}",
            "--max-steps={}",
            "--checkpoint={}",
            "--video={}",
            "--video={}.gif",
            "--config-dir={}",
            "--trust={}",
        ),
        ("done",),
    ),
    "sqn-compare": ("compare", ("done",), ("--output={}", "{}"), ("done",)),
    "sqn-diff": ("diff", ("done",), ("{}",), ("done",)),
    "sqn-diagnose": ("diagnose", ("spoilt",), ("--config-dir={}", "--trust={}"), ("spoilt",)),
    "sqn-list": ("list", (), ("{}", "--config-dir={}", "--trust={}"), ()),
    "sqn-graph": ("graph", (), ("--output={}", "--output={}.svg", "--format={}", "--config-dir={}"), ()),
    "sqn-push": ("hub.push", ("done",), ("--to={}", "--config-dir={}", "--trust={}"), ("done",)),
    "sqn-eject": ("eject", (), ("--config-dir={}", "--trust={}"), ()),
    "sqn-watch": ("watch", ("stopped",), ("--port={}", "--config-dir={}"), ("stopped",)),
    "sqn-ablate": (
        "ablate",
        ABLATE.arguments,
        ("seeds={}", "--jobs={}", "--config-dir={}", "out=taken/{}"),
        ("sweep", "taken"),
    ),
    "sqn-tune": (
        "tune",
        TUNE.arguments,
        (
            "seeds={}",
            "trials={}",
            "--jobs={}",
            "gamma=uniform({},1)",
            "gamma=choice(0.9,{})",
            "gamma={}(0.9,1)",
        ),
        ("search", "taken"),
    ),
    "sqn-export": ("export", ("done",), ("output/{}", "output/{}.pt2", "{}"), ("done", "output")),
    "sqn-resume DIR": ("resume", (), ("{}",), ()),
    "sqn-eval DIR": ("evaluate", (), ("{}",), ()),
    "sqn-diagnose DIR": ("diagnose", (), ("{}",), ()),
    "sqn-push DIR": ("hub.push", ("--to=output/model",), ("{}",), ("output",)),
    "sqn-watch DIR": ("watch", (), ("{}",), ()),
    "sqn-compare DIR": ("compare", (), ("{}",), ()),
}
"""The module, arguments that do well, further ones with a value in them, and what is used."""


def keys() -> list[str]:
    """Everything that can be set on the command line."""
    recipe = compose_recipe("sqn_rainbow")
    fields = [f"{slot.name}.{name}" for slot in SLOTS for name in recipe.fields(slot.name)]
    slots = [slot.name for slot in SLOTS]
    others = [
        "recipe",
        "task",
        "lr",
        "tau",
        "nothing",
        "env.nothing",
        "x" * 300,
        "head._target_",
        "a.b",
        "-",
        "~lr",
    ]
    return [*vars(recipe.run), *slots, *fields, *others]


SLOW = (
    "sqn-run resume=auto",
    "sqn-run out=",
    "sqn-eval --video",
    "sqn-compare --output",
    "sqn-ablate",
    "sqn-tune",
)
SLOW += ("sqn-export",)
"""Commands that have a third of the others' cases."""


# --- cases -------------------------------------------------------------------------------------------------


def of_files(world: World, name: str, chance: random.Random) -> Case:
    """A command, and one of the files or folders that it reads or writes changed."""
    command = COMMANDS[name]
    target = chance.choice(world.targets(*command.targets))
    kinds = ["kind of file", "permissions"]
    if (world.whole / target).is_file():
        kinds += ["bytes"] if target.suffix == ".png" else ["bytes", "types"]
    kind = chance.choice(kinds)
    seed = chance.randrange(10**6) if kind in ("bytes", "types") else 0
    change = chance.choice([*CHANGES[kind]])
    return Case(name, *command[:3], command.writes, kind, change, str(target), seed)


def of_overrides(name: str, chance: random.Random) -> Case:
    """A command, and an override."""
    module, arguments = OVERRIDDEN[name]
    key, value = chance.choice(keys()), chance.choice(VALUES)
    writes = ("",) if key == "out" else ()
    return Case(
        name, module, arguments(f"{key}={value}"), ("taken",), writes, "arguments", value, key.lstrip("~"), 0
    )


def of_options(name: str, chance: random.Random) -> Case:
    """A command, and an argument or the value of an option."""
    module, arguments, options, uses = OPTIONS[name]
    option, value = chance.choice(options), chance.choice(VALUES)
    while value.startswith("outside") and not option.endswith("{}"):  # a new file, as it was asked for
        value = chance.choice(VALUES)
    named = option.partition("=")[0].lstrip("-").replace("{}", value)
    words = (*arguments, option.replace("{}", value))
    return Case(name, module, words, uses, ("",), "arguments", value, named, 0)


def cases(world: World, count: int, seed: int) -> Iterator[Case]:
    """So many cases, no two alike, of all commands by turns."""
    chance, drawn = random.Random(seed), set[Case]()
    makers: list[Callable[[random.Random], Case]] = []
    for name in COMMANDS:
        makers += [partial(of_files, world, name)] * (1 if name in SLOW else 3)
    makers += [partial(of_overrides, name) for name in OVERRIDDEN] * 3
    makers += [partial(of_options, name) for name in OPTIONS]
    while len(drawn) < count:
        for make in makers:
            if len(drawn) < count and (case := make(chance)) not in drawn:
                drawn.add(case)
                yield case
