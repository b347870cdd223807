"""The README and the docs are correct: code blocks run, links resolve, names exist, tables are up to date.

The blocks of a page run from top to bottom, in an empty folder for each page. Budgets are reduced to
``STEPS`` environment steps, ``GAMES`` evaluation episodes and one seed, so that pages can show real ones.

- ``python``: executed, all blocks of a page in one namespace. After ``# → text``, ``text`` must be printed.
- ``bash``: our commands must exit with 0; ``export`` sets variables; the commands in ``NOT_RUN`` are skipped.
  ``> FILE`` writes the output to a file.
- ``console``: the same after ``$``; the next lines are the whole output, and ``$ echo $?`` is the exit code.
- ``text``: lines that the commands of the page have printed.
- In both, ``…`` stands for any lines, or any part of a line; numbers may differ after a training run.
- A block with a file name behind its language (``yaml mine/recipes/x.yaml``) is written to that file.
"""

import inspect
import os
import pkgutil
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from sqn_rl import functional
from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.schema import SLOTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted(DOCS.rglob("*.md")),
]

STEPS, GAMES = 1200, 2  # the warm-up of classic control is 1,000
COMMANDS = {
    **{
        f"sqn-{name}": name
        for name in ("run", "resume", "list", "graph", "compare", "ablate", "tune", "diff", "eject")
    },
    "sqn-eval": "evaluate",
    "sqn-export": "export",
    "sqn-push": "hub.push",
}
EXPORT = DOCS / "walkthroughs" / "export.md"
STOPPING = DOCS / "walkthroughs" / "stop_and_resume.md"
NOT_RUN = (
    ".",
    "eval",
    "make",
    "pip",
    "python",
    "sqn-watch",
    "sqn-pull",
)  # set-up, and commands that wait or need a network: tested elsewhere

# torchrl 0.14.1 deprecates classes of its own while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Creating .*WeightUpdater which inherits:DeprecationWarning")


class Block(NamedTuple):
    language: str
    file: str | None
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in re.finditer(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(match[1], match[2], match[3], text.count("\n", 0, match.start(3)))


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


RUNNABLE = [
    page for page in PAGES if any(block.language in ("python", "bash", "console") for block in blocks(page))
]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=named)
def test_the_code_blocks_of_a_page_run_and_print_what_the_page_shows(
    page, tmp_path, monkeypatch, capsys
) -> None:
    if page == EXPORT:
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    namespace, printed = {"__name__": "page"}, ""
    for block in blocks(page):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text)
        elif block.language == "python":
            code = "\n" * block.line + re.sub(r"\bsteps=[\d_]+", f"steps={STEPS}", block.text)
            exec(compile(code, str(page), "exec"), namespace)
            shown = capsys.readouterr().out
            assert [line for line in re.findall(r"# → (.*)", block.text) if line not in shown] == []
        elif block.language == "bash":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
            for line in block.text.splitlines():
                assert run(line, monkeypatch) == 0, line
        elif block.language == "console":
            session(block.text, monkeypatch, capsys)
        elif block.language == "text" and page != STOPPING:
            assert re.search(f"^{pattern(block.text, numbers=False)}", printed, re.MULTILINE), block.text
        printed += "".join(capsys.readouterr())


def pattern(text: str, *, numbers: bool) -> str:
    """A regular expression that matches these lines, with exactly these ``numbers`` or with any numbers."""
    lines = []
    for line in text.splitlines():
        escaped = ".*".join(map(re.escape, line.split("…")))
        if not numbers:
            escaped = re.sub(r"\d(?:[\d,]|\\\.\d|e\\-\d)*", r"\\d[\\d,.e-]*", escaped)
        lines.append(r"(?:.*\n)*?" if line == "…" else f"{escaped}\n")
    return "".join(lines)


def test_the_page_shows_the_messages_of_sqn_resume_about_a_damaged_checkpoint(
    tmp_path, monkeypatch, capsys
) -> None:
    (shown,) = [block.text for block in blocks(STOPPING) if block.language == "text"]
    monkeypatch.chdir(tmp_path)
    assert run("sqn-run out=runs/a warmup_steps=40 checkpoint_every=600", monkeypatch) == 0
    Path("runs/a/summary.json").unlink()
    newest = max(Path("runs/a/checkpoints").glob("*/state.safetensors"))
    state = newest.read_bytes()
    newest.write_bytes(state[:-1] + bytes([state[-1] ^ 1]))
    capsys.readouterr()
    assert run("sqn-resume runs/a", monkeypatch) == 0
    assert re.search(f"^{pattern(shown, numbers=False)}", capsys.readouterr().out, re.MULTILINE)


def run(line: str, monkeypatch) -> int:
    """Run one command line in this process, with small budgets, and return its exit code."""
    name, *arguments = shlex.split(line, comments=True) or ["."]
    if name == "export":
        for variable, value in (argument.split("=", 1) for argument in arguments):
            monkeypatch.setenv(variable, value)
            if variable == "PYTHONPATH":
                monkeypatch.syspath_prepend(os.path.abspath(value))
        return 0
    if name in NOT_RUN:
        return 0
    assert name in COMMANDS, f"{name}: neither a command of ours nor in NOT_RUN"
    if name in ("sqn-run", "sqn-ablate", "sqn-tune"):
        budgets = ("steps=", "seeds=", "trials=")
        arguments = [argument for argument in arguments if not argument.startswith(budgets)]
        arguments += [f"steps={STEPS}", f"eval_episodes={GAMES}", "log_every=100"]
        arguments += ["seeds=1"] * (name != "sqn-run") + ["trials=2"] * (name == "sqn-tune")
    if name == "sqn-resume":
        arguments = [re.sub(r"^steps=\d+$", f"steps={STEPS + 200}", argument) for argument in arguments]
    main = import_module(f"sqn_rl.cli.{COMMANDS[name]}").main
    if ">" not in arguments:
        return int(main(arguments))
    *arguments, _, file = arguments
    with open(file, "w") as written, redirect_stdout(written):
        return int(main(arguments))


def session(text: str, monkeypatch, capsys) -> None:
    """Run each line after ``$`` and compare its output with the lines below it."""
    code, trained = 0, False
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        if command == "echo $?":
            assert code == int(expected)
            code = 0
            continue
        assert code == 0, "an error that the page doesn't show with `echo $?`"
        capsys.readouterr()
        code = run(command, monkeypatch)
        trained = trained or (code == 0 and command.startswith("sqn-run"))
        printed = "".join(capsys.readouterr())
        assert re.fullmatch(pattern(expected, numbers=not trained), printed), f"{command}\n{printed}"
    assert code == 0, "an error that the page doesn't show with `echo $?`"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_pictures_of_a_page_resolve(page) -> None:
    text = re.sub(r"`[^`\n]*`", "", prose(page))  # a link inside code is not a link
    links = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for target in links:
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if anchor else []
        anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_and_names_quoted_in_the_prose_exist(page) -> None:
    quoted = re.findall(r"`([\w./*]+)`", prose(page))
    for name in quoted:
        if re.fullmatch(r"(sqn_rl|components|recipes|tests|docs)/[\w./]+", name) and "*" not in name:
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"sqn_rl(\.\w+)+", name):
            pkgutil.resolve_name(name)


def test_every_page_is_linked_from_the_index_or_the_results_page() -> None:
    """The tables of results are linked from the results page. Decisions are listed by the site itself."""
    maps = [DOCS / "index.md", DOCS / "results" / "README.md"]
    linked = {
        (page.parent / target).resolve()
        for page in maps
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text())
    }
    folders = ("walkthroughs", "algorithms", "reference", "results")
    pages = {page for page in PAGES if page.parent.name in folders and page.name != "index.md"}
    assert pages - set(maps) <= linked


def test_the_readme_has_at_most_120_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_plain_torchrl_page_has_the_code_of_the_script() -> None:
    script = DOCS / "walkthroughs" / "plain_torchrl.py"
    page = [block.text for block in blocks(script.with_suffix(".md")) if block.language == "python"]
    _, after_docstring = script.read_text().split('"""\n', 1)
    assert "".join(page).split() == after_docstring.split()


def test_the_table_of_slots_lists_every_slot_and_part() -> None:
    page = (DOCS / "walkthroughs" / "recipes_and_overrides.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (`.*?`) \|", page, re.MULTILINE)
    assert [slot for slot, _ in rows] == [slot.name for slot in SLOTS]
    catalogue = Catalogue()
    for slot, parts in rows:
        assert re.findall(r"`(\w+)`", parts) == catalogue.names(slot)


def test_the_table_of_parts_equals_the_catalogue() -> None:
    page = (DOCS / "reference" / "parts.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE)
    catalogue = Catalogue()
    parts = [(slot.name, name) for slot in SLOTS for name in catalogue.names(slot.name)]
    limits = [catalogue.read(*part).works_with for part in parts]
    texts = [" ".join(f"`{slot}={','.join(names)}`" for slot, names in each.items()) for each in limits]
    assert rows == [(*part, each or "everything") for part, each in zip(parts, texts, strict=True)]


@pytest.mark.parametrize("page", sorted((DOCS / "algorithms").glob("*.md")), ids=named)
def test_the_defaults_in_the_tables_of_fields_are_those_of_the_parts(page) -> None:
    catalogue, row = Catalogue(), r"^\| (`\w+\.\w+`.*?) \| (.*?) \| .* \|$"
    for cell, defaults in re.findall(row, page.read_text(), re.MULTILINE):
        fields = re.findall(r"`(\w+)\.(\w+)`", cell)
        shown = [each.strip(" `").replace("−", "-") for each in defaults.split(",")]
        for (slot, field), default in zip(fields, shown * (len(fields) // len(shown)), strict=True):
            values = [catalogue.read(slot, name).content.get(field) for name in catalogue.names(slot)]
            given = ["of the task" if str(value).startswith("${") else str(value).lower() for value in values]
            assert default in given or float(default) in values, (slot, field, default)


def test_every_recipe_is_named_on_an_algorithm_page() -> None:
    pages = "".join(page.read_text() for page in (DOCS / "algorithms").glob("*.md"))
    assert [name for name in Catalogue().names(RECIPE) if f"`{name}`" not in pages] == []


def test_the_map_of_equations_is_complete_in_both_directions() -> None:
    page = (DOCS / "algorithms" / "sqn.md").read_text()
    there, back = page.split("## From the paper to the code")[1].split("## From the code to the paper")
    sources = "".join(path.read_text() for path in (ROOT / "sqn_rl").rglob("*.py"))
    others = r"(20\d\d|\d{4}\.\d{5}), eq\S* \d+((-| to |, | and )\d+)*"  # of other papers
    ours = re.sub(others, "", sources)
    assert cited(ours) <= cited(page)
    assert {("eq", 10), ("eq", 20), ("line", 11), ("line", 18)} <= cited(there) & cited(sources)

    rows = re.findall(r"^\| (`.*?) \| ", back.split("\n## ")[0], re.MULTILINE)
    functions = inspect.getmembers(functional, inspect.isfunction)
    own = {name for name, function in functions if function.__module__ == functional.__name__}
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == own


def cited(text: str) -> set[tuple[str, int]]:
    """The equations and lines of the paper that a text cites: ``lines 10 to 12`` are three."""
    found = re.findall(r"\b(eq|line)(?:uation)?s?\.? (\d+(?:(?:-| to |, | and )\d+)*)", text, re.IGNORECASE)
    ranges = [
        (kind.lower(), re.split("-| to ", part))
        for kind, all_ in found
        for part in re.split(", | and ", all_)
    ]
    return {(kind, number) for kind, ends in ranges for number in range(int(ends[0]), int(ends[-1]) + 1)}


@pytest.mark.parametrize("slot", ["backup", "policy_source"])
def test_the_tables_of_backups_and_policy_sources_are_complete(slot) -> None:
    from sqn_rl.parts.loss.sqn import POLICY_SOURCES

    page = (DOCS / "algorithms" / "sqn.md").read_text()
    table = page.split(f"| `{slot}` |")[1].split("\n\n")[0]
    forms = {"backup": tuple(functional.BACKUPS), "policy_source": POLICY_SOURCES}[slot]
    assert tuple(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == forms
