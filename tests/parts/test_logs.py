"""Logs read for drawing: in bounded memory, whatever they contain."""

import json
import os
import tracemalloc
from contextlib import closing
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from reliability.resources import resident

from sqn_rl.plots.curve import draw_curve
from sqn_rl.plots.logs import COLUMNS, Log
from sqn_rl.recipe.reading import JSON_BYTES, DataError, read_rows
from sqn_rl.recipe.resources import forget_peak
from sqn_rl.runs.directory import RunDirectory
from sqn_rl.types import Counters

MB = 10**6


def add(path: Path, **row: Any) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_a_log_truncated_by_a_resumed_run_is_read_without_repeated_steps(tmp_path: Path) -> None:
    log = Log(tmp_path / "rows.jsonl")
    assert log.read() == []
    for step in (1, 2, 3):
        add(log.path, env_steps=step, cut=0)
    assert [row["env_steps"] for row in log.read()] == [1, 2, 3]
    log.path.write_text('{"env_steps": 1, "cut": 1}\n')
    assert log.read() == [{"env_steps": 1, "cut": 1}]
    for step in (2, 3):
        add(log.path, env_steps=step, cut=1)
    log.read()
    longer = [{"env_steps": step, "cut": 2} for step in (2, 3, 4, 5)]
    log.path.write_text("".join(json.dumps(row) + "\n" for row in [{"env_steps": 1}, *longer]))
    assert [row["env_steps"] for row in log.read()] == sorted({row["env_steps"] for row in log.read()})


def test_a_long_log_is_thinned_evenly_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqn_rl.plots.logs.ROWS", 100)
    log = Log(tmp_path / "rows.jsonl")
    log.path.write_text("".join(f'{{"env_steps": {step}}}\n' for step in range(12_345)))
    steps = [row["env_steps"] for row in log.read()]
    assert 100 <= len(steps) <= 200
    assert (steps[0], steps[-1]) == (0, 12_344)
    assert {after - before for before, after in pairwise(steps[:-1])} == {64}
    log.path.write_bytes(b" " * log.path.stat().st_size)
    assert [row["env_steps"] for row in log.read()] == steps
    add(log.path, env_steps=12_345)
    assert [row["env_steps"] for row in log.read()] == [*steps[:-1], 12_345]


@pytest.mark.usefixtures("curves")
def test_finishing_a_run_with_300_000_rows_takes_less_than_30_mb(tmp_path: Path) -> None:
    with closing(RunDirectory(tmp_path / "run", "recipe")) as directory:
        directory.finish("stopped", Counters(), {})  # imports matplotlib
        with (tmp_path / "run" / "episodes.jsonl").open("w") as file:
            for step in range(300_000):
                file.write(f'{{"env_steps": {step}, "return": {step % 500}.0, "length": 1}}\n')
        forget_peak()
        before = resident(os.getpid(), "VmRSS")
        directory.finish("stopped", Counters(), {})
        assert resident(os.getpid(), "VmHWM") < before + 30 * MB
    picture = imread(tmp_path / "run" / "curve.png")
    assert (np.abs(picture[..., :3] - 0.6).max(-1) < 0.3).sum() > 1000  # grey dots


def test_the_curve_of_a_short_log_has_every_row(tmp_path: Path) -> None:
    logs = [tmp_path / f"{name}.jsonl" for name in ("metrics", "episodes", "evaluations")]
    for step in range(1, 1500):
        add(logs[0], env_steps=step, wall_s=0.1 * step, alpha=step / 7, return_mean=None)
        add(logs[1], env_steps=step, length=3, **{"return": step % 100})
        add(logs[2], env_steps=step, mean=1.5 * step, std=2.0, iqm=1.0, returns=[1.0], greedy=True)
    assert draw_curve("a", *(Log(path).read() for path in logs)) == draw_curve(
        "a", *([*read_rows(path)] for path in logs)
    )


@pytest.mark.parametrize("name", ["mean", "std", "return", "wall_s", "alpha"])
def test_a_curve_is_drawn_at_full_width_despite_missing_numbers(name: str) -> None:
    metrics, episodes, evaluations = (
        [{"env_steps": step, **row} for step in (1, 2, 3)]
        for row in ({"wall_s": 1.0, "alpha": 0.5}, {"return": 3.0}, {"mean": 7.0, "std": 1.0})
    )
    for rows in (metrics, episodes, evaluations):
        for row in rows[1:]:
            row |= {name: None} if name in row else {}
    assert imread(BytesIO(draw_curve("a", metrics, episodes, evaluations))).shape[1] == 1430


@pytest.mark.parametrize("name", ["$\\frac{", "\ud800", "a" * 101])
def test_a_column_with_an_odd_name_does_not_break_the_curve(name: str, tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        add(log.path, env_steps=step, wall_s=step, **{name: 1.0})
    assert draw_curve("a", log.read(), [], [])[1:4] == b"PNG"


def test_a_log_with_too_many_columns_is_limited_with_a_note(tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl")
    with log.path.open("w") as file:
        for step in range(2000):
            file.write(json.dumps({"env_steps": step} | {f"{step}-{i}": i for i in range(200)}) + "\n")
    names = {name for row in log.read() for name in row}
    assert len(names) == COLUMNS
    (note,) = log.notes
    assert note.startswith("metrics.jsonl:1: too many columns")


def test_env_steps_are_read_after_any_number_of_columns(tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl")
    for step in (3, 5):
        add(log.path, **{f"c{i}": i for i in range(2 * COLUMNS)}, env_steps=step)
    assert [row["env_steps"] for row in log.read()] == [3, 5]


def test_a_line_of_3_GB_is_never_read_whole(tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl")
    add(log.path, env_steps=1)
    with log.path.open("r+b") as file:
        file.truncate(3 * 2**30)  # a sparse file, which takes no disk space
    tracemalloc.start()
    assert [row["env_steps"] for row in log.read()] == [1]
    with pytest.raises(DataError, match=r"metrics.jsonl:2: a line of more than 16,777,216 bytes"):
        [*read_rows(log.path)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * JSON_BYTES
    (note,) = log.notes
    assert note == f"{log.path}:2: a line of more than 16,777,216 bytes"
