"""The runs in a folder, as data for the page that lists them; the folder is only read."""

import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from sqn_rl.disk import EVALUATIONS_FILE, LOG_FILES, RECIPE_FILE, SUMMARY_FILE
from sqn_rl.errors import RecipeError, SqnError, explain
from sqn_rl.plots.logs import LAST_STEP, newest_row
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.reading import is_there, printable
from sqn_rl.recipe.resolved import of_run
from sqn_rl.runs.manifest import CHECKPOINTS, is_model
from sqn_rl.runs.status import LOCK, summary_of
from sqn_rl.watch.run import WatchedRun, evaluation_of, shown_status

RUNS, FOLDERS = 1_000, 20_000
"""The most runs that are listed, and the most folders that are searched for them."""
NAMED = 5
"""How many of the folders that cannot be read are named."""
OPEN = 8
"""The most runs whose pages are kept in memory."""
FILES = (RECIPE_FILE, SUMMARY_FILE, *LOG_FILES.values(), CHECKPOINTS, LOCK)
"""The files of a run that are read. None may be a link that leads out of the folder."""


class WatchedFolder:
    """A folder with runs at any depth. Links to other folders are not followed.

    Args:
        path: the folder.
        catalogue: where the parts of the runs are.

    Raises:
        RecipeError: there is no such folder, or no run in it.
    """

    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        self.path, self._catalogue = path, catalogue
        self._listing, self._opening = Lock(), Lock()
        self._root = Path(os.path.abspath(path))  # an environment may change the working directory
        self._known: dict[Path, tuple[Any, dict[str, Any]]] = {}
        self._opened: OrderedDict[str, tuple[Any, WatchedRun]] = OrderedDict()
        self._paths: dict[str, Path] = {}
        self._notes: list[str] = []
        if not os.path.isdir(path):
            problem = "not a directory" if is_there(path) else "there is no such directory"
            raise RecipeError(f"{path}: {problem}")
        if next(self._search(), None) is None:
            why = "".join(f"\n  {note}" for note in self._notes)
            raise RecipeError(f"{path}: there is no run in it; a run has a recipe.yaml{why}")

    @property
    def title(self) -> str:
        """The title of the page: ``runs in runs/parts``."""
        return printable(f"runs in {self.path}")

    def state(self) -> dict[str, Any]:
        """The current runs, with those that are running first."""
        with self._listing:
            found = list(self._search())
            rows = [self._row(path) for path in found]
            self._known = {path: self._known[path] for path in found}
            self._paths = {row["id"]: path for row, path in zip(rows, found, strict=True)}
            notes = self._notes
        return {
            "title": self.title,
            "notes": [*map(printable, notes)],
            "runs": sorted(rows, key=lambda row: row["status"] != "running"),
        }

    def has(self, identifier: str) -> bool:
        """Whether the folder has a run with this identifier."""
        with self._listing:
            return self._path_of(identifier) is not None

    def run(self, identifier: str) -> WatchedRun | None:
        """The run with this identifier; None if there is none, or no longer.

        Raises:
            RecipeError: its recipe is not one of ours.
        """
        with self._listing:
            path = self._path_of(identifier)
        if path is None:
            return None
        with self._opening:
            recipe = _stamp(path / RECIPE_FILE)
            known, run = self._opened.pop(identifier, (None, None))
            if run is None or known != recipe:  # an extended run has a new recipe
                run = WatchedRun(path, self._catalogue)
            self._opened[identifier] = recipe, run
            while len(self._opened) > OPEN:
                self._opened.popitem(last=False)
            return run

    def _path_of(self, identifier: str) -> Path | None:
        if identifier not in self._paths:  # of a page that was opened before this command started
            self._paths |= {_identifier(self._root, path): path for path in self._search()}
        path = self._paths.get(identifier)
        return path if path and self._is_run(path) else None

    def _search(self) -> Iterator[Path]:
        """The run directories in the folder, sorted by name, with numbers in numeric order."""
        self._notes, found = [], 0
        unreadable: list[OSError] = []
        for searched, (name, folders, files) in enumerate(os.walk(self._root, onerror=unreadable.append), 1):
            found += 1 if RECIPE_FILE in files else 0
            if searched > FOLDERS or found > RUNS:
                limit = f"{FOLDERS:,} folders" if searched > FOLDERS else f"{RUNS:,} runs"
                self._notes.append(f"there are more than {limit}; the others are not listed")
                break
            folders.sort(key=_natural)
            if RECIPE_FILE in files:
                folders.clear()
                if self._is_run(Path(name)):
                    yield Path(name)
                else:
                    what = f"not listed, as a link in it leads out of {self.path}"
                    self._notes.append(f"{name}: {what}; sqn-watch with its own path shows it")
        self._notes += [f"{each.filename}: cannot be read: {each.strerror}" for each in unreadable[:NAMED]]
        if len(unreadable) > NAMED:
            self._notes.append(f"{len(unreadable) - NAMED:,} more cannot be read")

    def _is_run(self, path: Path) -> bool:
        """Whether there is a run at this path, with all its files inside the folder."""
        root = os.path.realpath(self._root)
        real = (os.path.realpath(each) for each in (path, *(path / name for name in FILES)))
        return os.path.lexists(path / RECIPE_FILE) and all(Path(each).is_relative_to(root) for each in real)

    def _row(self, path: Path) -> dict[str, Any]:
        """The row of a run in the list; read again if its files have changed."""
        stamps = [_stamp(path / name) for name in FILES]
        if path not in self._known or self._known[path][0] != stamps:
            self._known[path] = stamps, self._read(path)
        row = self._known[path][1]
        return row | ({} if row["ended"] else {"status": shown_status(path, row["is_model"])})

    def _read(self, path: Path) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": _identifier(self._root, path),
            "path": printable(str(path.relative_to(self._root))),
            "title": "", "env": "", "seed": None, "budget": None, "evaluation": None, "problem": "",
        }  # fmt: skip
        try:
            resolved = of_run(path)
            values = {key: resolved.values[key].value for key in ("seed", "steps") if key in resolved.values}
            row |= {"title": printable(resolved.title), "env": printable(resolved.environment)}
            row |= {"seed": _whole(values.get("seed")), "budget": _whole(values.get("steps"))}
        except Exception as error:  # the files are not trusted
            problem = str(error).replace("\n ", ";") if isinstance(error, SqnError) else explain(error)
            row["problem"] = printable(problem)
        summary = summary_of(path)
        newest = {name: newest_row(path / name) for name in LOG_FILES.values()}
        steps = [_whole(each.get("env_steps")) for each in (summary, *newest.values())]
        row["evaluation"] = evaluation_of(newest[EVALUATIONS_FILE])
        row["steps"] = max((each for each in steps if each is not None), default=0)
        row["is_model"] = not summary and is_model(path)
        return row | {"status": str(summary.get("status", "")), "ended": bool(summary)}


def _identifier(root: Path, path: Path) -> str:
    """An identifier of a run: always the same, and with no character from the folder's name."""
    return sha256(os.fsencode(path.relative_to(root))).hexdigest()[:16]


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which ``s2`` comes before ``s10``."""
    return [(len(part), part) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """A value that changes when a file is written or replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _whole(value: Any) -> int | None:
    """The value if it is a whole number that a browser can show; else None."""
    return value if type(value) is int and abs(value) <= LAST_STEP else None
