"""What there is to see of a run, read from its directory; nothing is ever written there."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from sqn_rl.errors import CheckpointError
from sqn_rl.plots.curve import EVALUATIONS, GAMES, MEAN, RETURN, Rows, columns_of, panels_of
from sqn_rl.plots.wiring import to_svg
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.recipe.diff import changes_of
from sqn_rl.recipe.overrides import origin
from sqn_rl.recipe.reading import JSON_BYTES, DataError, open_file, printable
from sqn_rl.recipe.resolved import of_run
from sqn_rl.runs.checkpoint import saved_in
from sqn_rl.runs.directory import LOGS, RECIPE, status_of
from sqn_rl.runs.experiment import Experiment

FRAMES = 450
"""The longest film, in steps."""

ROOM = 10_000
"""Of the replay here, which nobody learns from: the run itself may need the memory."""

COMMAND_LINE, TITLED = origin(""), ("recipe", "seed", "steps", "out")


class Log:
    """The rows of a file that grows; each is read once, and so many are kept that a curve has its shape.

    Args:
        path: the file, which need not be there yet.
        most: how many rows to keep. When twice as many are there, every other one is dropped.
    """

    def __init__(self, path: Path, most: int = 1000) -> None:
        self.path, self._most = path, most
        self._begin()

    def _begin(self) -> None:
        self._offset, self._count, self._every = 0, 0, 1
        self._kept: list[dict[str, Any]] = []
        self._newest: dict[str, Any] | None = None

    def read(self) -> Rows:
        """The rows kept, oldest first, and the newest."""
        with suppress(DataError), open_file(self.path) as file:
            if os.fstat(file.fileno()).st_size < self._offset:  # a run that goes on has cut it
                self._begin()
            file.seek(self._offset)
            while (line := file.readline(JSON_BYTES)).endswith(b"\n"):  # else it is being written
                self._offset += len(line)
                self._add(line)
        newest = self._newest
        return self._kept + ([newest] if newest and newest is not self._kept[-1] else [])

    def _add(self, line: bytes) -> None:
        try:
            row = json.loads(line, parse_constant=lambda name: None)  # a browser knows no NaN
            step = row["env_steps"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return
        if not isinstance(step, int):
            return
        while self._kept and self._kept[-1]["env_steps"] > step:  # cut and grown since we looked
            self._kept.pop()
        if self._count % self._every == 0 or not self._kept:
            self._kept.append(row)
        self._count, self._newest = self._count + 1, row
        if len(self._kept) >= 2 * self._most:
            self._kept, self._every = self._kept[::2], 2 * self._every


class WatchedRun:
    """A run as the page shows it.

    Args:
        path: the run directory.
        catalogue: where its parts are.

    Raises:
        RecipeError: there is no run in ``path``, or its recipe is not one of ours.
    """

    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        self.path, self._reading, self._working = path, Lock(), Lock()
        self._settled = of_run(path)
        capacity = self._settled.values.get("replay.capacity")
        large = capacity and isinstance(capacity.value, int) and capacity.value > ROOM
        small = [f"replay.capacity={ROOM}"] if large else []
        self._experiment = Experiment(load_recipe(path / RECIPE, *small, catalogue=catalogue))
        self._logs = {name: Log(path / f"{name}.jsonl") for name in LOGS}
        self._graph, self._filmed = "", (-1, b"")

    @property
    def title(self) -> str:
        """``sqn on CartPole-v1, seed 0``."""
        recipe = self._experiment.recipe
        env = recipe.fields("env")
        name = env.get("game") or env.get("id") or self._settled.parts["env"].value
        return printable(f"{recipe.run.recipe} on {name}, seed {recipe.run.seed}")

    def state(self) -> dict[str, Any]:
        """Everything that changes while it runs: status, counters, and the curves."""
        with self._reading:
            rows = {name: log.read() for name, log in self._logs.items()}
        last = {name: rows[name][-1] if rows[name] else {} for name in LOGS}
        counters = last["metrics"]
        return {
            "title": self.title,
            "path": str(self.path),
            "status": status_of(self.path),
            "steps": max(row.get("env_steps", 0) for row in last.values()),
            "budget": self._experiment.run.steps,
            "speed": counters["env_steps"] / counters["wall_s"] if counters.get("wall_s") else None,
            "overrides": self._overrides(),
            "evaluation": last["evaluations"] or None,
            "checkpoint": self._newest(),
            "charts": [*_charts(**rows)],
        }

    def _overrides(self) -> list[str]:
        """What was said on the command line, but for what the title says, and where the run is."""
        said = {s.origin: k for k, s in self._settled.everything.items() if s.origin.startswith(COMMAND_LINE)}
        return [each.removeprefix(COMMAND_LINE) for each, key in said.items() if key not in TITLED]

    def graph(self) -> str:
        """The wiring, as SVG, and what the recipe changes against ``sqn``."""
        with self._working:
            if not self._graph:
                graph = self._experiment.preflight()
                graph.changes = changes_of(self._settled, self._experiment.recipe.catalogue)
                self._graph = to_svg(graph, self.title)
            return self._graph

    def film(self) -> bytes:
        """The first game of an evaluation, played with the newest weights, as a GIF.

        Raises:
            CheckpointError: there are no weights.
            SettingError: there is nothing to see.
        """
        with self._working:
            newest = self._newest()
            if newest is None:
                raise CheckpointError("no checkpoint yet")
            if self._filmed[0] != newest:
                with TemporaryDirectory() as folder:
                    path = Path(folder, "game.gif")
                    self._experiment.film(self.path / "checkpoints", path, greedy=True, longest=FRAMES)
                    self._filmed = newest, path.read_bytes()
            return self._filmed[1]

    def _newest(self) -> int | None:
        """After how many environment steps the newest weights were saved."""
        saved = saved_in(self.path / "checkpoints")
        return int(saved[-1].name) if saved else None


def _charts(metrics: Rows, episodes: Rows, evaluations: Rows) -> Iterator[dict[str, Any]]:
    """The panels of ``curve.png``, as the page draws them."""
    columns = columns_of(metrics)
    steps = columns.get("env_steps", [])
    returns = [
        {"label": GAMES, "mark": "dots", **_points(episodes, "return")},
        {"label": MEAN, "mark": "line", "x": steps, "y": columns.get("return_mean", [])},
        {
            "label": EVALUATIONS,
            "mark": "bars",
            **_points(evaluations, "mean"),
            "spread": [row["std"] for row in evaluations],
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


def _points(rows: Rows, name: str) -> Mapping[str, list[Any]]:
    return {"x": [row["env_steps"] for row in rows], "y": [row[name] for row in rows]}
