"""Every command works with any standard streams: any encoding or width, closed, unread, full."""

import importlib
import io
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from sqn_rl import cli
from sqn_rl.runs.manifest import saved_in
from sqn_rl.runs.status import status_of

TINY = ["steps=120", "warmup_steps=40", "log_every=40", "eval_every=60", "eval_episodes=1"]
TINY += ["update_ratio=0.5", "batch_size=8", "compile=never"]
ARGUMENTS = {
    "ablate": ["head=linear,dueling", "seeds=1", "out=grid", "--jobs=1", *TINY],
    "compare": ["{run}"],
    "diagnose": ["{run}"],
    "diff": ["sqn", "{run}"],
    "eject": [],
    "evaluate": ["{run}", "--episodes=1"],
    "export": ["{run}", "policy.pt2"],
    "graph": [],
    "list": [],
    "hub.pull": ["me/model", "{run}"],
    "hub.push": ["{run}", "--to", "{run}"],
    "resume": ["{run}"],
    "run": TINY,
    "tune": ["lr=uniform(0.001,0.01)", "trials=1", "seeds=1", "out=search", *TINY],
    "watch": ["{run}", "--port=-1"],
}
"""By command, arguments for a cheap call: ``{run}`` is a finished run."""
FIRST = "grid/base/s0"
CODES = dict.fromkeys(ARGUMENTS, 0) | {"diagnose": 2, "hub.pull": 2, "hub.push": 2, "watch": 2}
ENCODINGS = ("ascii", "latin-1", "cp1252", "utf-8")
SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]


Call = Callable[[str], int]


def run_main(name: str, *arguments: str) -> int:
    return int(importlib.import_module(f"sqn_rl.cli.{name}").main(list(arguments)))


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs and the search that the commands read or resume."""
    folder = tmp_path_factory.mktemp("streams")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_main("run", f"out={FIRST}", *TINY) == 0
        assert (
            run_main("run", "out='grid/head=dueling/s0'", "head=dueling", *TINY) == 0
        )  # ablate's other variant
        assert run_main("tune", *ARGUMENTS["tune"]) == 0
    return folder


@pytest.fixture
def call(done: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(done)
    monkeypatch.setenv("TERM", "xterm")
    return lambda name: run_main(name, *(each.format(run=FIRST) for each in ARGUMENTS[name]))


def test_the_tested_commands_are_all_scripts_of_the_package() -> None:
    assert set(SCRIPTS.values()) == {f"sqn_rl.cli.{name}:main" for name in ARGUMENTS}


@pytest.mark.parametrize(
    ("name", "encoding", "width", "kind"),
    [
        *((name, "ascii", "20", Terminal) for name in ARGUMENTS),
        *((name, "cp1252", "300", io.TextIOWrapper) for name in ("list", "graph", "run")),
    ],
)
def test_a_command_works_with_any_encoding_and_width(
    name: str, encoding: str, width: str, kind: type, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = [io.BytesIO(), io.BytesIO()]
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr(sys, "stdout", kind(raw[0], encoding=encoding))
    monkeypatch.setattr(sys, "stderr", kind(raw[1], encoding=encoding))
    assert call(name) == CODES[name]
    assert b"".join(each.getvalue() for each in raw).decode(encoding)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_help_works_with_any_encoding_and_width(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ENCODINGS:
        for width in (20, 21, 37, 80, 300) if encoding == "ascii" else (80,):
            raw = io.BytesIO()
            monkeypatch.setenv("COLUMNS", str(width))
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
            with pytest.raises(SystemExit, match="0"):
                run_main(name, "--help")
            assert "usage" in raw.getvalue().decode(encoding)


def test_characters_that_an_encoding_lacks_are_transliterated(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    cli.command(lambda argv: print("α Δ 1 ± 2 – ½ é 漢 \udcff") or 0)()
    assert raw.getvalue() == b"alpha Delta 1 +- 2 - 1/2 e \\u6f22 \\udcff\n"


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_command_works_without_standard_streams(
    name: str, call: Call, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for stream in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)
    assert call(name) == CODES[name]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_command_with_a_closed_pipe_as_stdout_exits_without_a_traceback(
    name: str, call: Call, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in ``sqn-list | head``; stderr is still read."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert call(name) == (cli.Exit.UNREAD if CODES[name] == 0 else CODES[name])
    errors = capfd.readouterr().err
    assert "Traceback" not in errors
    assert (errors == "") == (CODES[name] == 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("name", ["list", "graph", "run"])
def test_a_full_device_as_stdout_is_reported_with_exit_code_1(
    name: str, call: Call, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert call(name) == 1
    assert capfd.readouterr().err == "the output cannot be written: No space left on device\n"


def test_a_run_whose_output_pipe_is_closed_stops_with_a_checkpoint(folder: Path) -> None:
    run = shlex.join([sys.executable, "-m", "sqn_rl.cli.run", *TINY, "steps=1e7", "out=run"])
    line = f"{run} | grep -m 1 steps/s; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == (str(cli.Exit.UNREAD.value), "")
    assert status_of(Path("run")) == "stopped"
    assert saved_in(Path("run", "checkpoints"))


def test_an_opened_file_does_not_get_the_number_of_a_closed_standard_stream(folder: Path) -> None:
    """With stdout closed, the next file opened would have number 1 and receive everything that is printed."""
    code = "import os; from sqn_rl.cli.terminal import streams; streams.prepare(); "
    code += "print(os.open('file', os.O_CREAT), file=open('number', 'w'))"
    subprocess.run(["bash", "-c", f'"$0" -c "{code}" <&- >&- 2>&-', sys.executable], check=True)
    assert int(Path("number").read_text()) > 2


def test_a_process_with_closed_standard_streams_exits_with_0(folder: Path) -> None:
    line = f"{sys.executable} -m sqn_rl.cli.list <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", line]).returncode == 0


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_module_run_with_python_m_is_its_console_script(name: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"sqn_rl.cli.{name}", "--help"], capture_output=True, text=True
    )
    script = next(script for script, value in SCRIPTS.items() if value == f"sqn_rl.cli.{name}:main")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script} ")
