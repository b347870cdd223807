"""``sqn-watch``: the page of a run, served to this machine only."""

import fcntl
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM

from sqn_rl.cli.run import main as train
from sqn_rl.plots import curve, frames
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.reading import read_rows
from sqn_rl.watch import run as watch
from sqn_rl.watch import server as served

Command = Callable
LOGS = ("metrics", "episodes", "evaluations")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watched") / "run"
    every = ["log_every=100", "eval_every=200", "checkpoint_every=200", "eval_episodes=2"]
    assert train(["steps=600", "warmup_steps=100", "head=dueling", *every, f"out={path}"]) == 0
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@contextmanager
def serving(path: Path) -> Iterator[served.WatchServer]:
    with served.WatchServer(watch.WatchedRun(path, Catalogue()), port=0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def ask(server: served.WatchServer, path: str, method: str = "GET", **headers: str) -> HTTPResponse:
    with closing(HTTPConnection(*server.server_address, timeout=300)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): headers[name] for name in headers})
        answer = connection.getresponse()
        answer.body = answer.read()
        return answer


def state(server: served.WatchServer) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"a browser cannot read {name}")

    return json.loads(ask(server, "/data.json").body, parse_constant=refuse)


def add(run: Path, name: str, **row: Any) -> None:
    with (run / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_the_page_shows_the_data_of_curve_png(trained: Path) -> None:
    with serving(trained) as server:
        shown = state(server)
    rows = {name: [*read_rows(trained / f"{name}.jsonl")] for name in LOGS}
    columns = curve.columns_of(rows["metrics"])
    panels = list(curve.panels_of(columns))
    charts = {chart["title"]: chart for chart in shown["charts"]}
    assert list(charts) == [curve.RETURN, *(panel.title for panel in panels)]
    for panel in panels:
        lines = {each["label"]: (each["x"], each["y"]) for each in charts[panel.title]["series"]}
        drawn = {label: (columns["env_steps"], columns[name]) for name, label in panel.lines.items()}
        assert (lines, charts[panel.title]["scale"]) == (drawn, panel.scale)
    games, mean, evaluations = charts[curve.RETURN]["series"]
    assert games["y"] == [row["return"] for row in rows["episodes"]]
    assert mean["y"] == columns["return_mean"]
    assert [evaluations[name] for name in ("x", "y", "spread")] == [
        [row[name] for row in rows["evaluations"]] for name in ("env_steps", "mean", "std")
    ]
    assert (shown["title"], shown["steps"], shown["budget"]) == (
        "sqn head=dueling on CartPole-v1, seed 0",
        600,
        600,
    )
    newest = rows["evaluations"][-1]
    assert newest | shown["evaluation"] == newest | {"longest": max(newest["lengths"])}
    assert {"env_steps", "mean", "std", "episodes", "greedy", "cut"} <= shown["evaluation"].keys()
    assert shown["notes"] == []
    assert shown["overrides"]
    assert "head=dueling" not in shown["overrides"]  # it is in the title


def test_the_page_shows_the_newest_actor_metrics_unless_they_are_invalid(run: Path) -> None:
    actors = {"actors_up": 3, "restarts": 1, "lag": 150.5, "learner_wait": 0.25}
    with serving(run) as server:
        assert state(server)["actors"] is None
        add(run, "metrics", env_steps=700, **actors)
        assert state(server)["actors"] == actors
        add(run, "metrics", env_steps=800, **{**actors, "lag": "old"})
        assert state(server)["actors"] is None


def test_idle_requests_do_not_hold_threads(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served._Handler, "timeout", 0.5)
    with serving(run) as server:
        before = threading.active_count()
        idle = [socket.create_connection(server.server_address) for _ in range(3 * served.CONNECTIONS)]
        for each in idle:
            with suppress(ConnectionError):  # connections over the limit are closed
                each.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert threading.active_count() <= before + served.CONNECTIONS
        ended = time.monotonic() + 60
        while threading.active_count() > before and time.monotonic() < ended:
            time.sleep(0.05)
        assert threading.active_count() <= before
        assert ask(server, "/page.css").status == 200
        for each in idle:
            each.close()


def test_a_host_without_a_port_is_accepted_only_on_the_port_of_http(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(run) as server:
        assert ask(server, "/", Host="localhost").status == 403
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setattr(served, "HTTP", free.getsockname()[1])  # as if it were 80
    with served.WatchServer(watch.WatchedRun(run, Catalogue()), port=served.HTTP) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        assert ask(server, "/", Host="localhost").status == 200
        assert ask(server, "/", Host=f"localhost:{served.HTTP}").status == 200
        assert ask(server, "/", Host="elsewhere").status == 403
        server.shutdown()


def test_the_colours_of_the_page_equal_those_of_curve_png_and_the_video() -> None:
    style = Path(served.__file__).with_name("page.css").read_text()
    light = style.partition("@media")[0]
    for name, colour in (("line", curve.BLUE), ("other", curve.ORANGE), ("dots", curve.GREY)):
        assert f"--{name}: {colour.lower()};" in light
    dark, film = style.partition("@media")[2], frames.DARK
    for name, colour in (("card", film.page), ("ink", film.ink), ("faint", film.grey), ("rule", film.faint)):
        assert f"--{name}: {colour.lower()};" in dark


@pytest.mark.parametrize("status", ["done", "stopped", "numerics", "error"])
def test_the_page_shows_how_a_run_ended(run: Path, status: str) -> None:
    path = run / "summary.json"
    path.write_text(path.read_text().replace('"status": "done"', f'"status": "{status}"'))
    with serving(run) as server:
        assert state(server)["status"] == status


def test_a_run_without_a_summary_is_running_while_its_lock_is_held(run: Path) -> None:
    (run / "summary.json").unlink()
    with serving(run) as server:
        with (run / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert state(server)["status"] == "running"
        assert state(server)["status"] == "killed"


def test_new_metrics_appear_as_soon_as_their_row_is_complete(run: Path) -> None:
    def alpha() -> list[tuple[int, float | None]]:
        (chart,) = (each for each in state(server)["charts"] if each["title"].startswith("temperature α"))
        return list(zip(chart["series"][0]["x"], chart["series"][0]["y"], strict=True))

    *_, row = read_rows(run / "metrics.jsonl")
    with serving(run) as server:
        before = alpha()
        add(run, "metrics", **row | {"env_steps": 700, "alpha": float("nan")})
        line = json.dumps(row | {"env_steps": 800, "alpha": 0.5}) + "\n"
        for half, added in ((line[:30], [(700, None)]), (line[30:], [(700, None), (800, 0.5)])):
            with (run / "metrics.jsonl").open("a") as file:
                file.write(half)
            assert alpha() == [*before, *added]


def test_the_graph_on_the_page_is_the_wiring_of_the_run(trained: Path) -> None:
    with serving(trained) as server:
        answer = ask(server, "/graph.svg")
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert b"dueling instead of linear" in answer.body


def test_a_video_is_made_once_for_each_checkpoint_and_theme(run: Path, monkeypatch) -> None:
    monkeypatch.setattr(watch, "FRAMES", 10)
    with serving(run) as server:
        assert state(server)["checkpoint"] == 600
        first = ask(server, "/film.gif?600").body
        assert first.startswith(b"GIF89a")
        (run / "checkpoints" / "0000000600" / "weights.safetensors").unlink()
        assert ask(server, "/film.gif").body == first
        assert ask(server, "/film.dark.gif?600").status == 500  # another theme: its weights are missing
        shutil.rmtree(run / "checkpoints" / "0000000600")
        assert state(server)["checkpoint"] == 400
        light, dark = (ask(server, f"/{name}.gif?400").body for name in ("film", "film.dark"))
        assert dark.startswith(b"GIF89a")
        assert len({first, light, dark}) == 3
        shutil.rmtree(run / "checkpoints")
        answer = ask(server, "/film.gif")
        assert (answer.status, answer.body) == (500, b"no checkpoint yet")


def test_unchanged_data_is_answered_with_304_not_modified(run: Path) -> None:
    with serving(run) as server:
        tag = ask(server, "/data.json").headers["ETag"]
        again = ask(server, "/data.json", If_None_Match=tag)
        assert (again.status, again.body) == (304, b"")
        add(run, "episodes", env_steps=601, **{"return": 9.0, "length": 9})
        assert ask(server, "/data.json", If_None_Match=tag).status == 200


@pytest.mark.parametrize(
    "path", ["/recipe.yaml", "/../recipe.yaml", "/page.py", "/%2e%2e/", "/checkpoints/", "/run.py"]
)
def test_any_other_path_is_answered_with_404(trained: Path, path: str) -> None:
    with serving(trained) as server:
        assert ask(server, path).status == 404


def test_requests_for_another_host_or_with_another_method_are_refused(trained: Path) -> None:
    with serving(trained) as server:
        port = server.server_address[1]
        assert server.server_address[0] == "127.0.0.1"
        for host, status in (
            (f"localhost:{port}", 200),
            ("evil.example", 403),
            (f"evil.example:{port}", 403),
            ("", 403),
        ):
            for path in ("/", "/data.json"):
                assert ask(server, path, Host=host).status == status
        for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
            assert ask(server, "/", method).status == 501
        policy = ask(server, "/").headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")


def test_the_page_files_load_nothing_from_the_network_and_set_no_inner_html() -> None:
    files = [
        path for path in Path(served.__file__).parent.iterdir() if path.suffix in (".html", ".js", ".css")
    ]
    assert len(files) == 6
    for file in files:
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"//\w|url\(|@import|innerHTML", text) == []


def test_watch_refuses_a_missing_run_and_an_unusable_port(
    trained: Path, command: Command, folder: Path
) -> None:
    done = command("watch", "nothing")
    assert (done.code, done.out) == (2, "")
    assert done.err == "nothing: there is no such directory\n"
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        done = command("watch", str(trained), "--port", port)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"port = {port}: expected one that is free (Address already in use)\n"
    done = command("watch", str(trained), "--port", "70000")
    assert (done.code, done.err) == (
        2,
        "port = 70000: expected a number from 0 (any that is free) to 65535\n",
    )


def test_watch_prints_its_url_ends_with_ctrl_c_and_changes_no_file(trained: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    code = "import sys; from sqn_rl.cli.watch import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", code, trained], stdout=subprocess.PIPE, text=True)
    with process:
        title, _, url = process.stdout.readline().strip().rpartition(": ")
        connection = HTTPConnection(url.removeprefix("http://").removesuffix("/"), timeout=300)
        with closing(connection):
            connection.request("GET", "/")
            assert b"page.js" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0
    assert title == "sqn head=dueling on CartPole-v1, seed 0"
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == files


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_draws_the_curves_and_redraws_them_with_a_new_evaluation(
    run: Path, tmp_path: Path, monkeypatch
) -> None:
    """An evaluation is added to the run when the page asks for the second time."""
    looks, look = [], watch.WatchedRun.state

    def count(self: watch.WatchedRun) -> dict[str, Any]:
        looks.append(None)
        if len(looks) == 2:
            add(
                run,
                "evaluations",
                **[*read_rows(run / "evaluations.jsonl")][-1] | {"env_steps": 700, "mean": 123.4},
            )
        return look(self)

    monkeypatch.setattr(watch.WatchedRun, "state", count)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=15000", "--dump-dom"]
    with serving(run) as server:
        browser = subprocess.run(
            [CHROMIUM, *options, server.url], capture_output=True, text=True, timeout=300
        )
        charts = len(state(server)["charts"])
    assert [line for line in browser.stderr.splitlines() if "CONSOLE" in line] == []
    page = browser.stdout
    assert "<title>done: sqn head=dueling on CartPole-v1, seed 0</title>" in page
    assert len(re.findall(r"<svg ", page)) == charts
    assert len(re.findall(r'<path class="line" d="M[\d.L ]+"', page)) == charts
    assert "evaluation at 700 steps: 123.4" in page
    assert page.count('<circle class="bars"') == 4
    assert 'src="graph.svg"' in page
    assert 'src="film.gif?600"' in page
