"""``sqn-watch`` with malformed run files: the page is served, with notes on what is wrong."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli.test_watch import ask, serving, state
from cli.test_watch import run as run
from cli.test_watch import trained as trained

from sqn_rl.errors import SqnError
from sqn_rl.watch import server as served

LOGS = ("metrics.jsonl", "episodes.jsonl", "evaluations.jsonl")

NUMBERS = ["0", "-1", "7", "0.5", "-0.0", "1e99"]
GAPS = ["null", "NaN", "Infinity", "-Infinity", "1e999"]
OTHERS = [
    *("true", "false", '""', '"12"', r'"\ud800"', r'"<b>\u001b[31m"', "[]", "[1]", "[[1, null]]", "{}"),
    *('{"a": 1}', "1e101", f"1{'0' * 400}", f"-1{'0' * 4000}", f"1{'0' * 5000}", "[" * 9000 + "]" * 9000),
]
"""JSON values that are not numbers, or not numbers that a browser can draw."""

LINES = [*OTHERS, *NUMBERS, *GAPS, "", "{", "{}", "\x00", "\xff\xfe", '{"env_steps": 1e3}', "}" * 99]


def add(path: Path, line: str) -> None:
    with path.open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")


def with_value(row: dict[str, Any], key: str, value: str) -> str:
    """A row as JSON, in which one key has another value, given as JSON."""
    others = {name: each for name, each in row.items() if name != key}
    return f"{json.dumps(others)[:-1]}, {json.dumps(key)}: {value}}}"


def shown(server: served.WatchServer) -> dict[str, Any]:
    """What the server sends to a browser, after a check that every drawn value is a number or null."""
    answer = ask(server, "/data.json")
    assert answer.status == 200, answer.body
    page = state(server)
    for chart in page["charts"]:
        for series in chart["series"]:
            values = [*series["x"], *series["y"], *series.get("spread", [])]
            assert all(each is None or type(each) in (int, float) for each in values)
            assert None not in series["x"]
    return page


@pytest.mark.parametrize("name", LOGS)
def test_any_value_at_any_key_of_a_row_is_drawn_or_noted(name: str, run: Path) -> None:
    path = run / name
    *_, row = (json.loads(line) for line in path.read_text().splitlines())
    whole = path.read_bytes()
    number = len(whole.splitlines()) + 1
    with serving(run) as server:
        for key in row:
            for value in NUMBERS + GAPS + OTHERS:
                path.write_bytes(whole)
                shown(server)  # the log is read from its beginning again
                add(path, with_value(row | {"env_steps": 700}, key, value))
                notes = shown(server)["notes"]
                unseen = value in OTHERS and key not in ("returns", "lengths", "greedy")
                bad_step = key == "env_steps" and value not in ("0", "7")
                assert bool(notes) == (unseen or bad_step or len(value) > 4300), (key, value, notes)
                assert all(note.startswith(f"{name}:{number}: ") for note in notes)
                add(path, json.dumps(row | {"env_steps": 800}))
                page = shown(server)
                assert page["steps"] == 800
                assert page["notes"] == notes


@pytest.mark.parametrize("name", LOGS)
def test_any_malformed_line_is_noted_and_later_rows_are_read(name: str, run: Path) -> None:
    *_, row = (json.loads(line) for line in (run / name).read_text().splitlines())
    with serving(run) as server:
        for line in LINES:
            add(run / name, line)
            (note,) = shown(server)["notes"]
            assert note.startswith(f"{name}:")
        add(run / name, json.dumps(row | {"env_steps": 800}))
        page = shown(server)
        assert page["steps"] == 800
        assert f"and {len(LINES) - 1} more bad rows" in page["notes"][0]


def test_any_value_in_a_summary_is_served_with_a_valid_status(run: Path) -> None:
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    with serving(run) as server:
        for key in summary:
            for value in NUMBERS + GAPS + OTHERS:
                path.write_text(with_value(summary, key, value))
                assert shown(server)["status"] in ("done", "killed")
        for line in LINES:
            path.write_bytes(line.encode("latin-1"))
            assert shown(server)["status"] == "killed"


def test_any_wrong_value_in_a_manifest_is_noted_as_damaged(run: Path) -> None:
    (*_, newest) = sorted((run / "checkpoints").glob("0*/manifest.json"))
    manifest = json.loads(newest.read_text())
    texts = [with_value(manifest, key, value) for key in manifest for value in ("null", "[]", '"a"', "1e999")]
    for text in [*texts, *LINES]:
        newest.write_bytes(text.encode("latin-1"))
        with serving(run) as server:
            (note,) = shown(server)["notes"]
        assert note.startswith(f"{newest}: damaged: ")


def test_any_changed_value_in_a_recipe_is_noted_or_refused(run: Path) -> None:
    """The recipe is read once, when the command begins, which may refuse it."""
    path = run / "recipe.yaml"
    lines = path.read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if ":" in line.partition("#")[0]]
    answered = 0
    for number in keys[::3]:
        for value in ("null", "[1]", "text"):
            changed = [*lines]
            changed[number] = f"{lines[number].partition(':')[0]}: {value}"
            path.write_text("\n".join(changed))
            try:
                with serving(run) as server:
                    (note,) = shown(server)["notes"]
            except SqnError:
                continue
            assert note == f"{path}: changed since the run wrote it"
            answered += 1
    assert answered


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_loop(path: Path) -> None:
    path.symlink_to(path)


def a_line_of_3_gb(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 * 2**30)


@pytest.mark.parametrize("kind", [a_folder, a_pipe, a_device, a_loop, a_line_of_3_gb])
def test_any_special_file_in_place_of_a_run_file_leaves_the_page_served(
    kind: Callable[[Path], None], run: Path
) -> None:
    (*_, newest) = sorted((run / "checkpoints").glob("0*"))
    names = [*LOGS, "summary.json", ".lock", "checkpoints", f"checkpoints/{newest.name}"]
    with serving(run) as server:
        before = len(os.listdir("/proc/self/fd"))
        for name in [*names, f"checkpoints/{newest.name}/manifest.json"]:
            with replaced(run / name):
                kind(run / name)
                page = shown(server)
                if name in LOGS:
                    assert any(f"{run / name}:" in note for note in page["notes"])
        assert shown(server)["notes"] == []
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # connections that are being closed
    for name in [*LOGS, "checkpoints", f"checkpoints/{newest.name}/manifest.json"]:
        with replaced(run / name):
            kind(run / name)
            with serving(run) as server:
                shown(server)


@contextmanager
def replaced(path: Path) -> Iterator[None]:
    """Move a file aside, and afterwards remove what replaced it and move the file back."""
    path.rename(aside := path.with_name("aside"))
    yield
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    aside.rename(path)
