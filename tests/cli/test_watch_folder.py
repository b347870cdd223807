"""``sqn-watch`` of a folder: the list of its runs, and the page of each."""

import fcntl
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import CHROMIUM, browsing
from cli.test_watch import ask, state
from cli.test_watch import trained as trained
from cli.test_watch_anything import GAPS, LINES, NUMBERS, OTHERS, add, with_value

from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.reading import read_rows
from sqn_rl.watch import folder as listing
from sqn_rl.watch import run as watch
from sqn_rl.watch import server as served

Command = Callable
LOGS = ("metrics.jsonl", "episodes.jsonl", "evaluations.jsonl")


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A folder with two runs: one directly in it, and one in nested folders."""
    for place in ("runs/s10", "runs/deep/er/s2"):
        shutil.copytree(trained, tmp_path / place)
    return tmp_path / "runs"


@contextmanager
def serving(path: Path) -> Iterator[served.WatchServer]:
    with served.WatchServer(listing.WatchedFolder(path, Catalogue()), port=0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def listed(server: served.WatchServer) -> dict[str, dict]:
    """The rows by path, in which every number is one that a browser can show."""
    rows = state(server)["runs"]
    for row in rows:
        for number in (row["steps"], row["seed"], row["budget"], *(row["evaluation"] or {}).values()):
            assert number is None or (isinstance(number, int | float) and abs(number) <= 1e100)
    return {row["path"]: row for row in rows}


def test_a_folder_lists_its_runs_at_any_depth(runs: Path) -> None:
    (*_, last) = read_rows(runs / "s10" / "evaluations.jsonl")
    with serving(runs) as server:
        shown = state(server)
        rows = listed(server)
    assert (shown["title"], shown["notes"], list(rows)) == (f"runs in {runs}", [], ["deep/er/s2", "s10"])
    for row in rows.values():
        assert (row["title"], row["env"], row["seed"]) == ("sqn head=dueling", "CartPole-v1", 0)
        assert (row["status"], row["steps"], row["budget"], row["problem"]) == ("done", 600, 600, "")
        assert (
            row["evaluation"].items() >= {name: last[name] for name in ("env_steps", "mean", "std")}.items()
        )


def test_new_runs_are_listed_and_running_ones_come_first(runs: Path) -> None:
    with serving(runs) as server:
        assert len(listed(server)) == 2
        for name in ("s9", "s11"):
            shutil.copytree(runs / "s10", runs / name)
        assert list(listed(server)) == ["deep/er/s2", "s9", "s10", "s11"]
        (runs / "s11" / "summary.json").unlink()
        assert listed(server)["s11"]["status"] == "killed"
        with (runs / "s11" / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            add(runs / "s11" / "metrics.jsonl", '{"env_steps": 700}')
            add(runs / "s11" / "evaluations.jsonl", '{"env_steps": 650, "mean": 5, "std": 0, "episodes": 2}')
            rows = listed(server)
        (first, row), *_ = rows.items()
        assert (first, row["status"], row["steps"], row["evaluation"]["mean"]) == ("s11", "running", 700, 5)
        shutil.rmtree(runs / "s9")
        assert list(listed(server)) == ["deep/er/s2", "s10", "s11"]


def test_every_listed_run_has_a_page(runs: Path) -> None:
    add(runs / "s10" / "episodes.jsonl", json.dumps({"env_steps": 601, "return": 9.0, "length": 9}))
    with serving(runs) as server:
        for row in listed(server).values():
            page = f"/run/{row['id']}/"
            assert b'<a href="../../">' in ask(server, page).body
            for name in re.findall(rb'(?:src|href)="(\w+\.\w+)"', ask(server, page).body):
                assert ask(server, page + name.decode()).status == 200
            shown = json.loads(ask(server, f"{page}data.json").body)
            assert shown["title"] == "sqn head=dueling on CartPole-v1, seed 0"
            assert shown["steps"] == (601 if row["path"] == "s10" else 600)
    with serving(runs) as again:  # an open page finds its run after a restart of the server
        assert ask(again, f"{page}data.json").status == 200
        shutil.rmtree(runs)
        assert ask(again, page).status == ask(again, f"{page}data.json").status == 404
        assert state(again)["runs"] == []


def test_an_extended_run_is_shown_with_its_new_budget(runs: Path) -> None:
    with serving(runs) as server:
        page = f"/run/{listed(server)['s10']['id']}/data.json"
        assert json.loads(ask(server, page).body)["budget"] == 600
        recipe = runs / "s10" / "recipe.yaml"
        recipe.write_text(re.sub("(?m)^steps: 600", "steps: 6000", recipe.read_text()))
        assert json.loads(ask(server, page).body)["budget"] == 6000
        assert listed(server)["s10"]["budget"] == 6000


def test_the_number_of_runs_kept_in_memory_is_bounded(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "OPEN", 1)
    folder = listing.WatchedFolder(runs, Catalogue())
    a, b = (row["id"] for row in folder.state()["runs"])
    assert folder.run(a) is folder.run(a)
    first = folder.run(a)
    folder.run(b)
    assert len(folder._opened) == 1
    assert folder.run(a) is not first


@pytest.mark.parametrize(
    "path", ["..", "recipe.yaml", "page.py", "checkpoints/", "%2e%2e/", "../data.json", "x" * 9999]
)
def test_any_other_path_or_host_is_refused(runs: Path, path: str) -> None:
    with serving(runs) as server:
        identifier = listed(server)["s10"]["id"]
        for place in (
            "/",
            "/run/",
            "/run/s10/",
            f"/run/{identifier}/",
            f"/run/{'0' * 16}/",
            f"/{identifier}/",
        ):
            assert ask(server, place + path).status == 404
        assert ask(server, f"/run/{'0' * 16}/").status == 404
        assert ask(server, "/data.json", Host="evil.example").status == 403
        assert ask(server, f"/run/{identifier}/", Host="evil.example").status == 403


def test_links_out_of_the_folder_are_not_followed(runs: Path, trained: Path, tmp_path: Path) -> None:
    (runs / "away").symlink_to(trained)
    (runs / "loop").symlink_to(runs)
    shutil.copytree(trained, tmp_path / "elsewhere")
    with serving(runs) as server:
        for name in listing.FILES:
            page = f"/run/{listed(server)['s10']['id']}/"
            assert (ask(server, page).status, state(server)["notes"]) == (200, [])
            file, aside = runs / "s10" / name, tmp_path / "aside"
            if file.exists():
                file.rename(aside)
            file.symlink_to(tmp_path / "elsewhere" / name)
            for each in ("", "data.json", "film.gif", "graph.svg"):
                assert ask(server, page + each).status == 404
            assert list(listed(server)) == ["deep/er/s2"]
            (note,) = state(server)["notes"]
            assert note.startswith(f"{runs / 's10'}: not listed, as a link in it leads out of {runs}")
            file.unlink()
            if aside.exists():
                aside.rename(file)


HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\u202e\nx"


def test_hostile_names_are_escaped(runs: Path) -> None:
    shutil.copytree(runs / "s10", runs / HOSTILE)
    shutil.copytree(runs / "s10", runs / os.fsdecode(b"\xff\xfe"))
    recipe = runs / HOSTILE / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(re.sub(r"(?m)^  id: CartPole-v1", r'  id: "a\\e[31m<b>\\u202e"', text))
    assert recipe.read_text() != text
    with serving(runs) as server:
        shown = state(server)
    assert len(shown["runs"]) == 4
    texts = [each for row in shown["runs"] for each in row.values() if isinstance(each, str)]
    assert all(text.isprintable() for text in [*texts, shown["title"], *shown["notes"]])
    assert all(re.fullmatch(r"[0-9a-f]{16}", row["id"]) for row in shown["runs"])


@pytest.mark.parametrize("name", [*LOGS, "summary.json"])
def test_any_value_or_line_in_a_run_file_is_listed_with_a_valid_status(name: str, runs: Path) -> None:
    path = runs / "s10" / name
    whole = path.read_bytes()
    row = json.loads(whole if name == "summary.json" else whole.splitlines()[-1])
    lines = [
        with_value(row | {"env_steps": 700}, key, value) for key in row for value in NUMBERS + GAPS + OTHERS
    ]
    with serving(runs) as server:
        for line in [*lines[::3], *LINES]:
            path.write_bytes(b"" if name == "summary.json" else whole)
            add(path, line)
            shown = listed(server)["s10"]
            assert type(shown["steps"]) is int
            assert shown["status"] in ("done", "killed")
            assert (name != "summary.json") <= (shown["steps"] in (600, 700))


def test_any_malformed_recipe_is_listed_with_its_problem(runs: Path) -> None:
    path = runs / "s10" / "recipe.yaml"
    lines = path.read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if ":" in line.partition("#")[0]]
    with serving(runs) as server:
        for value in ("null", "[1]", "{a: 1}", '"\\e[31m"', "1e400", "9" * 400):
            for number in keys[::5]:
                changed = [*lines]
                changed[number] = f"{lines[number].partition(':')[0]}: {value}"
                path.write_text("\n".join(changed))
                shown = listed(server)["s10"]
                assert shown["problem"].isprintable()
                answer = ask(server, f"/run/{shown['id']}/data.json")
                assert answer.status in (200, 500)
                assert b"Traceback" not in answer.body
        for text in (b"", b"\xff", b"recipe: sqn", b"- 1", b"a: &a [*a, *a]"):
            path.write_bytes(text)
            shown = listed(server)["s10"]
            assert shown["problem"].startswith(f"{path}")
            assert shown["steps"] == 600  # from its logs
            answer = ask(server, f"/run/{shown['id']}/data.json")
            assert (answer.status, answer.body.decode().replace("\n ", ";")) == (500, shown["problem"])
            assert ask(server, f"/run/{shown['id']}/").status == 200  # which shows the problem


def test_the_number_of_listed_runs_and_folders_is_bounded_with_a_note(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(runs) as server:
        monkeypatch.setattr(listing, "RUNS", 2)
        assert state(server)["notes"] == []
        monkeypatch.setattr(listing, "RUNS", 1)
        assert list(listed(server)) == ["deep/er/s2"]
        assert state(server)["notes"] == ["there are more than 1 runs; the others are not listed"]
        monkeypatch.setattr(listing, "FOLDERS", 2)
        assert listed(server) == {}
        assert state(server)["notes"] == ["there are more than 2 folders; the others are not listed"]


def test_only_the_first_unreadable_folders_are_named(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    for i in range(listing.NAMED + 2):
        (runs / f"locked{i}").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)  # root may read every folder
    notes = listing.WatchedFolder(runs, Catalogue()).state()["notes"]
    named = [f"{runs / f'locked{i}'}: cannot be read: Permission denied" for i in range(listing.NAMED)]
    assert notes == [*named, "2 more cannot be read"]


def test_a_folder_without_runs_is_refused(command: Command, folder: Path) -> None:
    (folder / "empty" / "folder").mkdir(parents=True)
    (folder / "a.txt").touch()
    for name, why in {
        "empty": "there is no run in it; a run has a recipe.yaml",
        "nothing": "there is no such directory",
        "a.txt": "not a directory",
    }.items():
        done = command("watch", name)
        assert (done.code, done.out, done.err) == (2, "", f"{name}: {why}\n")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_pages_fit_narrow_and_wide_windows_in_dark_and_light_mode(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FRAMES", 10)
    shutil.copytree(runs / "s10", runs / "<i>bold</i>" / ("a" * 200))
    (runs / "s10" / "recipe.yaml").write_bytes(b"recipe: sqn")
    with serving(runs) as server, browsing(tmp_path / "browser") as browser:
        for width, dark in ((400, True), (1280, False)):
            browser.show(server.url, width, dark=dark)
            assert browser.wait("document.querySelectorAll('tbody tr').length") == 3
            assert browser.overflow() <= 0
            assert browser.evaluate("document.querySelectorAll('i').length") == 0
            assert browser.evaluate("by_id('status').textContent") == "3 runs, 0 running"
            cells = "[...document.querySelectorAll('td')].every((td) => td.scrollWidth <= td.clientWidth + 1)"
            assert browser.evaluate(cells)
            browser.evaluate(
                "[...document.querySelectorAll('a')].find((a) => a.textContent === 'deep/er/s2').click()"
            )
            browser.wait("document.title === 'done: sqn head=dueling on CartPole-v1, seed 0'")
            for picture in ("film", "graph"):
                browser.wait(f"document.querySelector('#{picture} img').naturalWidth")
            assert browser.overflow() <= 0
            assert browser.evaluate("document.querySelectorAll('#charts svg').length") > 5
            for picture in ("film", "graph"):
                drawn, full = browser.evaluate(
                    f"[...document.querySelectorAll('#{picture} img')].flatMap((img) => "
                    "[img.clientWidth, img.naturalWidth])"
                )
                assert drawn > 2 / 3 * full  # so that text of 12 pixels has at least 8


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_pictures_are_requested_again_after_a_failed_request(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FRAMES", 10)
    with serving(runs) as server, browsing(tmp_path / "browser") as browser:
        browser.show(server.url, 1280, dark=False)
        browser.wait("document.querySelectorAll('tbody tr').length")
        browser.evaluate("document.querySelector('tbody a').click()")
        browser.wait("document.title.startsWith('done: sqn')")
        for picture in ("film", "graph"):
            browser.wait(f"document.querySelector('#{picture} img').naturalWidth")
        browser.evaluate(
            "window.works = fetch, fetch = (address) => "
            "address === 'data.json' ? works(address) : Promise.reject(new Error('no network')), 0"
        )
        browser.evaluate("document.querySelectorAll('img').forEach((each) => each.removeAttribute('src'))")
        browser.evaluate("drawn = false, filmed = null, graph(), film(shown), 0")
        for picture in ("film", "graph"):
            browser.wait(f"document.querySelector('#{picture} figcaption').textContent.endsWith('no answer')")
        browser.evaluate("fetch = works, 0")
        for picture in ("film", "graph"):
            browser.wait(f"document.querySelector('#{picture} img').naturalWidth")
