"""Tab completion, through ``--completion`` and in real shells."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sqn_rl.cli.run import main
from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.schema import SLOTS, Run


def completed(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["--completion", line]) == 0
    return capsys.readouterr().out.splitlines()


def test_an_empty_line_is_completed_with_every_slot_and_setting_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = completed("sqn-run ", capsys)
    assert {f"{slot.name}=" for slot in SLOTS} < set(names)
    assert {f"{name}=" for name in Run.__dataclass_fields__} < set(names)
    assert {"lr=", "tau="} < set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("group", [RECIPE, *(slot.name for slot in SLOTS)])
def test_a_slot_is_completed_with_its_parts(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [f"{group}={name}" for name in Catalogue().names(group)]
    assert completed(f"sqn-run steps=3 {group}=", capsys) == parts


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sqn-run warm", ["warmup_steps="]),
        ("sqn-run recipe=sqn_c", ["recipe=sqn_categorical"]),
        ("sqn-run -m head=linear,du", ["head=linear,dueling"]),
        ("sqn-run target_update.", ["target_update.tau="]),
        ("sqn-run target_update=periodic target_update.", ["target_update.every="]),
        ("sqn-run hed=typo encoder.", ["encoder.hidden="]),
        ("sqn-run encoder.hidden=[7,8] encoder.hidden=", ["encoder.hidden=[7,8]"]),
        ("sqn-run loss.backup_entropy=", ["loss.backup_entropy=true", "loss.backup_entropy=false"]),
        ("sqn-run loss.backup=expected_m", ["loss.backup=expected_min", "loss.backup=expected_mean"]),
        ("sqn-run actor=epsilon_greedy actor.policy=m", ["actor.policy=min", "actor.policy=mean"]),
        ("sqn-run precision=", ["precision=auto", "precision=fp32", "precision=bf16"]),
        ("sqn-run -m loss.backup=expected,ow", ["loss.backup=expected,own"]),
        ("sqn-run seed=3 --mu", ["--multirun"]),
        ("sqn-run nothing", []),
    ],
)
def test_a_partial_argument_is_completed_with_all_matches(
    line: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert completed(line, capsys) == words


def test_recipes_of_a_config_dir_are_completed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("# Mine.\ndefaults: [sqn, _self_]\n")
    assert completed(f"sqn-run --config-dir {tmp_path} recipe=mi", capsys) == ["recipe=mine"]


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "tcsh"]) == 2
    assert capsys.readouterr().err == "--completion tcsh: expected one of: bash, zsh, fish\n"


def test_completion_takes_under_a_second_and_does_not_import_torch(tmp_path: Path) -> None:
    code = "from sqn_rl.cli.run import main; main(['--completion', 'sqn-run enc']); import os, sys; "
    code += "print('torch' in sys.modules, sum(os.times()[:2]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *words, last = done.stdout.splitlines()
    assert words == ["encoder=", "encoder.hidden="]
    torch, seconds = last.split()
    assert torch == "False"
    assert float(seconds) < 1


SHELLS = {
    "bash": ("--norc -i", 'eval "$(sqn-run --completion)"'),
    "zsh": ("-f -i", 'autoload -U compinit; compinit -u -D; eval "$(sqn-run --completion zsh)"'),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_on_the_tab_key(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    write_command(tmp_path)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PS1": "$ ", "TERM": "dumb", "HOME": str(tmp_path)}
    master, terminal = pty.openpty()
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "start_new_session": True}
    options, prepare = SHELLS[shell]
    process = subprocess.Popen([shell, *options.split()], env={**os.environ, **own}, cwd=tmp_path, **streams)
    os.close(terminal)
    os.write(master, f'{prepare}; echo rea""dy\n'.encode())
    _read_until(master, "\r\nready")
    for typed, becomes in (("sqn-run recipe=sqn_c\t", "ategorical"), ("encoder.hid\t", "den=")):
        os.write(master, typed.encode())
        assert becomes in _read_until(master, becomes)
    process.kill()
    process.wait()
    os.close(master)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_a_line(tmp_path: Path) -> None:
    write_command(tmp_path)
    prepare = f"set PATH {tmp_path} $PATH; sqn-run --completion fish | source"
    for typed, words in (
        ("recipe=sqn_c", ["recipe=sqn_categorical"]),
        ("loss.backup=m", ["loss.backup=max"]),
    ):
        code = f"{prepare}; complete --do-complete 'sqn-run {typed}'"
        done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True)
        assert (done.stdout.split(), done.stderr) == (words, "")


def write_command(folder: Path) -> None:
    command = folder / "sqn-run"
    command.write_text(f"#!{sys.executable}\nfrom sqn_rl.cli.run import main\nmain()\n")
    command.chmod(0o755)


def _read_until(master: int, text: str) -> str:
    """The output of the terminal, without bells, until ``text`` appears or 30 seconds have passed."""
    shown, until = "", time.monotonic() + 30
    while text not in shown and time.monotonic() < until:
        if select.select([master], [], [], 1)[0]:
            shown += os.read(master, 1000).decode().replace("\a", "")
    return shown
