"""The data of a run for its page; the run directory is only read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from sqn_rl.disk import LOG_FILES, RECIPE_FILE
from sqn_rl.errors import COMMAND_LINE, CheckpointError
from sqn_rl.plots.curve import (
    EPISODES,
    EVALUATIONS,
    MEAN,
    RETURN,
    LogRows,
    column_of,
    columns_of,
    panels_of,
    rate,
)
from sqn_rl.plots.logs import Log, finite_number
from sqn_rl.plots.wiring import to_svg
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.recipe.diff import changes_of
from sqn_rl.recipe.reading import printable
from sqn_rl.recipe.resolved import of_run
from sqn_rl.runs.experiment import Experiment
from sqn_rl.runs.manifest import CHECKPOINTS, is_model, noted_changes, saved_in
from sqn_rl.runs.policy import Policy
from sqn_rl.runs.status import status_of

FRAMES = 450
"""The longest video, in steps."""

UNUSED_CAPACITY = 10_000
"""The capacity of the replay that is built here, but not used: the run itself may need the memory."""

TITLED = ("recipe", "seed", "steps", "out")
"""Settings that the title or the path of the run already show."""


class WatchedRun:
    """A run as the page shows it.

    Args:
        path: the run directory.
        catalogue: where its parts are.

    Raises:
        RecipeError: there is no run in ``path``, or its recipe is not one of ours.
    """

    _working = Lock()
    """Held while a graph or video of any run is made: these set the threads of torch, and need memory."""

    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        self.path, self._reading = path, Lock()
        self._resolved = of_run(path)
        capacity = self._resolved.values.get("replay.capacity")
        is_large = capacity and isinstance(capacity.value, int) and capacity.value > UNUSED_CAPACITY
        overrides = [f"replay.capacity={UNUSED_CAPACITY}"] if is_large else []
        self._experiment = Experiment(load_recipe(path / RECIPE_FILE, *overrides, catalogue=catalogue))
        self._logs = {name: Log(path / file) for name, file in LOG_FILES.items()}
        self._graph, self._filmed = "", dict[bool, tuple[int, bytes]]()
        self._changes = noted_changes(path, {RECIPE_FILE, *LOG_FILES.values()})

    @property
    def title(self) -> str:
        """The title of the page: ``sqn on CartPole-v1, seed 0``."""
        recipe = self._experiment.recipe
        return printable(f"{recipe.title} on {self._resolved.environment}, seed {recipe.run.seed}")

    def state(self) -> dict[str, Any]:
        """Everything that changes while it runs: status, counters, and the curves."""
        with self._reading:
            rows = {name: log.read() for name, log in self._logs.items()}
            newest = self._logs["evaluations"].newest
            notes = [*self._changes, *(note for log in self._logs.values() for note in log.notes)]
        last = {name: rows[name][-1] if rows[name] else {} for name in LOG_FILES}
        counters = last["metrics"]
        try:
            checkpoint = self._newest()
        except CheckpointError as error:
            checkpoint, notes = None, [*notes, str(error)]
        return {
            "title": self.title,
            "path": str(self.path),
            "status": shown_status(self.path, is_model(self.path)),
            "steps": max(row.get("env_steps", 0) for row in last.values()),
            "budget": self._experiment.run.steps,
            "speed": rate(counters.get("env_steps", 0), counters.get("wall_s") or 0),
            "overrides": self._overrides(),
            "evaluation": evaluation_of(newest),
            "actors": _actors(counters),
            "checkpoint": checkpoint,
            "notes": [*map(printable, notes)],
            "charts": [*_charts(**rows)],
        }

    def _overrides(self) -> list[str]:
        """The overrides of the command line, without those shown in the title or path."""
        origins = {each.origin: key for key, each in self._resolved.everything.items()}
        overrides = {origin: key for origin, key in origins.items() if origin.startswith(COMMAND_LINE)}
        further = [each.removeprefix(COMMAND_LINE) for each, key in overrides.items() if key not in TITLED]
        return [each for each in further if each not in self._experiment.recipe.swapped]

    def graph(self) -> str:
        """The wiring as SVG, with the differences from the recipe ``sqn``."""
        with self._working:
            if not self._graph:
                graph = self._experiment.preflight()
                graph.changes = changes_of(self._resolved, self._experiment.recipe.catalogue)
                self._graph = to_svg(graph, self.title)
            return self._graph

    def film(self, *, dark: bool) -> bytes:
        """The first episode of an evaluation, played with the newest weights, as a GIF.

        Args:
            dark: draw for a dark background.

        Raises:
            CheckpointError: there are no weights.
            SettingError: the environment has no screen.
        """
        with self._working:
            newest = self._newest()
            if newest is None:
                raise CheckpointError("no checkpoint yet")
            filmed, film = self._filmed.get(dark, (-1, b""))
            if filmed != newest:
                with TemporaryDirectory() as folder:
                    path = Path(folder, "episode.gif")
                    Policy(self._experiment.recipe, self.path).film(path, longest=FRAMES, dark=dark)
                    film = path.read_bytes()
                self._filmed[dark] = newest, film
            return film

    def _newest(self) -> int | None:
        """The environment steps of the newest weights."""
        saved = saved_in(self.path / CHECKPOINTS)
        return int(saved[-1].name) if saved else None


def shown_status(path: Path, is_model: bool) -> str:
    """The status of the run in ``path``; ``model`` for a folder of sqn-push."""
    status = status_of(path)
    return "model" if status == "killed" and is_model else status


def _charts(metrics: LogRows, episodes: LogRows, evaluations: LogRows) -> Iterator[dict[str, Any]]:
    """The panels of ``curve.png``, as the page draws them."""
    columns = columns_of(metrics)
    steps = columns.get("env_steps", [])
    returns = [
        {"label": EPISODES, "mark": "dots", **_points(episodes, "return")},
        {"label": MEAN, "mark": "line", "x": steps, "y": columns.get("return_mean", [])},
        {
            "label": EVALUATIONS,
            "mark": "bars",
            **_points(evaluations, "mean"),
            "spread": column_of(evaluations, "std"),
        },
    ]
    yield {"title": RETURN, "scale": "linear", "series": [each for each in returns if each["x"]]}
    for panel in panels_of(columns):
        lines = zip(panel.lines.items(), ("line", "dashes"), strict=False)
        series = [
            {"label": label, "mark": mark, "x": steps, "y": columns[name]}
            for (name, label), mark in lines
            if name in columns
        ]
        yield {"title": panel.title, "scale": panel.scale, "series": series}


def _points(rows: LogRows, name: str) -> Mapping[str, list[Any]]:
    return {"x": column_of(rows, "env_steps"), "y": column_of(rows, name)}


def _actors(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers of the page's line about actors; None if there are none, or they are malformed."""
    shown = {name: finite_number(row.get(name)) for name in ("actors_up", "restarts", "lag", "learner_wait")}
    return None if None in shown.values() else shown


def evaluation_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest evaluation, for the page's line about it; None if there is none, or it is malformed."""
    shown = {name: finite_number(row.get(name)) for name in ("env_steps", "mean", "std", "episodes")}
    if None in shown.values():
        return None
    lengths = row["lengths"] if isinstance(row.get("lengths"), list) else []
    longest = max((each for each in map(finite_number, lengths) if each is not None), default=0)
    cut = finite_number(row.get("cut")) or 0
    return shown | {"greedy": row.get("greedy") is True, "cut": cut, "longest": longest}
