"""Text from files is escaped on the terminal: no control sequences, no hidden characters, no markup."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sqn_rl import Batch
from sqn_rl.cli.terminal.screen import Screen
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.reading import printable
from sqn_rl.watch.run import WatchedRun

Command = Callable[..., Any]

ACTS = {
    "colour": ("\x1b[31m", r"\x1b[31m"),
    "title": ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
    "link": ("\x1b]8;;http://x\x1b\\", "\\x1b]8;;http://x\\x1b\\"),
    "csi": ("\x9b2J", r"\x9b2J"),
    "return": ("a\rb\x08", r"a\rb\x08"),
    "line": ("a\nb\x0bc\x85d\u2028e", r"a\nb\x0bc\x85d\u2028e"),
    "bidi": ("\u202ea\u2066b\u200f", r"\u202ea\u2066b\u200f"),
    "unseen": ("a\u200bb\u00adc\ufeff", r"a\u200bb\xadc\ufeff"),
    "tags": ("\U000e0041", r"\U000e0041"),
    "bytes": ("\udcff", r"\udcff"),
}


@pytest.mark.parametrize("name", ACTS)
def test_control_and_invisible_characters_are_escaped(name: str) -> None:
    text, shown = ACTS[name]
    assert printable(f"é {text} α−") == f"é {shown} α−"


def test_a_screen_prints_markup_as_text_and_escapes_control_sequences() -> None:
    from rich.table import Table

    file = io.StringIO()
    console = Screen(file=file, force_terminal=False, width=120)
    table = Table("[red]a", box=None)
    table.add_row(":smile: [b]x[/b] \x1b[1m")
    console.print("[bold]b[/bold] :smile: \x1b]0;x\x07")
    console.print(table)
    console.rule("\x9b[i]")
    text = file.getvalue()
    assert text.startswith("[bold]b[/bold] :smile: \\x1b]0;x\\x07\n [red]a")
    assert ":smile: [b]x[/b] \\x1b[1m" in text
    assert "\\x9b[i]" in text
    assert "".join(text.split("\n")).isprintable()


HARM = "\x1b]0;x\x07\x1b[31m\x9b2J\u202e[red]:smile:"
YAML = r'"\e]0;x\a\e[31m\x9b2J\u202e[red]:smile:"'
COMMENT = "\x9b2J\u202e[red]\u2066".replace("\x9b", "\u200b")  # YAML allows no others unescaped


@pytest.fixture
def tree(folder: Path) -> Path:
    """A tree with control sequences in the names and contents of its files."""
    tree = folder / "tree"
    for path, text in {
        f"recipes/mine{HARM}.yaml": f"# {COMMENT} Mine.\ndefaults: [sqn, _self_]\nencoder: {{hidden: [8]}}\n",
        "recipes/wrong.yaml": f"defaults: [sqn, _self_]\n{YAML}: 1\n",
        "recipes/torn.yaml": f"# {COMMENT}\na: !!int {YAML}\n",
        f"components/head/{HARM}.yaml": f"# {COMMENT}\n_target_: sqn_rl.LinearHead\nx: {YAML}\n",
        "components/env/odd.yaml": f"# {COMMENT}\n_target_: sqn_rl.GymEnv\nid: {YAML}\n"
        "defaults: [/task@_global_: classic_control, _self_]\n",
        "components/loss/odd.yaml": f"# {COMMENT}\n_target_: {YAML}\n",
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    return tree


@pytest.fixture
def runs(folder: Path) -> list[str]:
    """Three runs with control sequences in their files."""
    lines = compose_recipe("sqn", "encoder.hidden=[8]", "lr=0.5").to_yaml().splitlines()
    lines = [line.replace("command line: ", f"command line: {COMMENT}") for line in lines]
    lines = [f"recipe: {YAML}" if line.startswith("recipe:") else line for line in lines]
    lines = [f"  id: {YAML}" if line.startswith("  id:") else line for line in lines]
    for name in ("a", "b"):
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.yaml").write_text("\n".join(lines))
        batch = {f"batch.{field}": torch.zeros(1) for field in Batch._fields}
        save_file(batch, run / "numerics.safetensors")
        row = {"env_steps": 9, "mean": 2.0, "std": 0, "episodes": 1, "lengths": [9], "greedy": True}
        (run / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
        summary = {"status": "done", "env": HARM, "seed": ord(name), "git_revision": HARM}
        (run / "summary.json").write_text(json.dumps(summary | {"versions": {"sqn_rl": HARM}}))
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "c")
    (folder / "runs" / "c" / "summary.json").write_text(
        json.dumps({"status": HARM, "env_steps": 3, "env": HARM, "seed": 3})
    )
    return ["runs/a", "runs/b", "runs/c"]


COMMANDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "list": (0, ("list", "--config-dir", "tree")),
    "run": (2, ("run", "--config-dir", "tree", "recipe=wrong")),
    "run_torn": (2, ("run", "--config-dir", "tree", "recipe=torn")),
    "run_env": (2, ("run", "--config-dir", "tree", "env=odd")),
    "run_loss": (2, ("run", "--config-dir", "tree", "loss=odd")),
    "run_unknown": (2, ("run", "--config-dir", "tree", "head=zzzzzzzz")),
    "graph": (2, ("graph", "--config-dir", "tree", f"head={HARM}")),
    "ablate": (2, ("ablate", "--config-dir", "tree", "recipe=wrong", "lr=1,2")),
    "tune": (2, ("tune", "--config-dir", "tree", "recipe=wrong", "lr=uniform(1,2)")),
    "complete": (0, ("run", "--completion", "sqn-run --config-dir tree recipe=")),
    "compare": (0, ("compare", "runs/a", "runs/b", "runs/c", "--output", "out")),
    "diff": (0, ("diff", "runs/a", "sqn")),
    "eval": (2, ("evaluate", "runs/a")),
    "resume": (2, ("resume", "runs/c")),
    "diagnose": (2, ("diagnose", "runs/a")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_control_characters_from_files(
    name: str, tree: Path, runs: list[str], command: Command
) -> None:
    code, arguments = COMMANDS[name]
    done = command(*arguments)
    assert done.code == code, done.err
    text = done.out + done.err
    assert "".join(text.split("\n")).isprintable()
    assert "\\x1b" in text or "\\e" in text or "\\u" in text
    assert "Traceback" not in text
    for path in Path("out").glob("*.[mc]*"):
        assert "".join(path.read_text().split("\n")).isprintable()


def test_the_title_of_a_watched_run_contains_no_control_characters(runs: list[str]) -> None:
    title = WatchedRun(Path(runs[0]), Catalogue()).title
    assert title.isprintable()
    assert "[red]" in title
