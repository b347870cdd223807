"""``sqn-diff``: the differences between two recipes or runs."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqn_rl.recipe.compose import compose_recipe

Command = Callable[..., Any]


@pytest.fixture
def run(folder: Path) -> Callable[..., str]:
    """``run("a", "steps=300")``: a directory with the recipe of such a run."""

    def written(name: str, *overrides: str) -> str:
        (folder / name).mkdir()
        recipe = compose_recipe("sqn", *overrides, f"out={name}")
        (folder / name / "recipe.yaml").write_text(recipe.to_yaml())
        return name

    return written


def sections(out: str) -> dict[str, list[str]]:
    """The lines of each section, with single spaces."""
    header, *rest = out.split("\n\n")
    lines = [[" ".join(line.split()) for line in section.splitlines()] for section in rest]
    return {"": header.splitlines()} | {title: differing for title, *differing in lines}


def test_two_recipes_differ_in_parts_and_numbers_with_their_origins(command: Command) -> None:
    done = command("diff", "sqn", "sqn_per")
    assert (done.code, done.err) == (0, "")
    found = sections(done.out)
    assert found[""] == ["--- sqn", "+++ sqn_per"]
    assert found["parts"] == [
        "- replay=uniform recipes/sqn.yaml:14",
        "+ replay=prioritized recipes/sqn_per.yaml:2",
    ]
    assert found["numbers"] == [
        "+ replay.omega=0.6 components/replay/prioritized.yaml:4",
        "+ replay.beta=0.4 components/replay/prioritized.yaml:5",
        "+ replay.epsilon=1e-06 components/replay/prioritized.yaml:6",
        "+ replay.td_error=mean components/replay/prioritized.yaml:7",
    ]


@pytest.mark.parametrize("path", ["my recipe.yaml", "lr=1e-2.yaml", "it's.yaml"])
def test_a_recipe_file_with_special_characters_in_its_name_is_read(
    command: Command, folder: Path, path: str
) -> None:
    (folder / path).write_text("defaults: [sqn, _self_]\nlr: 0.02\n")
    done = command("diff", path, f"{shlex.quote(path)} steps=7")
    assert (done.code, done.err) == (0, "")
    assert sections(done.out)["numbers"][1] == "+ steps=7 command line: steps=7"


def test_overridden_values_are_shown_with_their_override(command: Command) -> None:
    out = command("diff", "lr=0.01", "sqn head=dueling optimizer.lr=0.02 steps=7").out
    assert out.startswith("--- lr=0.01\n+++ sqn head=dueling optimizer.lr=0.02 steps=7\n")
    assert sections(out)["parts"] == [
        "- head=linear recipes/sqn.yaml:6",
        "+ head=dueling command line: head=dueling",
    ]
    assert sections(out)["numbers"] == [
        "- steps=50000 components/task/classic_control.yaml:2",
        "+ steps=7 command line: steps=7",
        "- temperature.lr=0.01 command line: lr=0.01",
        "+ temperature.lr=0.001 components/task/classic_control.yaml:8",
        "- optimizer.lr=0.01 command line: lr=0.01",
        "+ optimizer.lr=0.02 command line: optimizer.lr=0.02",
    ]


def test_the_wiring_section_shows_changed_keys_and_shapes(command: Command) -> None:
    wiring = sections(command("diff", "sqn", "env=acrobot").out)["wiring"]
    assert "- head writes q_values [2, 64, 2] float32" in wiring
    assert "+ head writes q_values [2, 64, 3] float32" in wiring
    reads = sections(command("diff", "sqn", "sqn head=categorical").out)["wiring"]
    assert {"- q_net reads q_values", "+ q_net reads prediction"} < set(reads)


def test_a_run_is_equal_to_its_recipe_and_differs_from_another_run(
    run: Callable[..., str], command: Command
) -> None:
    first = run("first", "steps=300", "head=dueling")
    done = command("diff", first, "sqn steps=300 head=dueling")
    assert done.code == 0
    assert sections(done.out)[""][-1] == "no difference: the same parts and numbers"
    assert command("diff", "sqn", "sqn").out.endswith("no difference: the same parts, numbers and wiring\n")
    out = command("diff", first, run("second", "steps=400", "seed=1")).out
    assert sections(out)["parts"] == [
        "- head=dueling command line: head=dueling",
        "+ head=linear recipes/sqn.yaml:6",
    ]
    assert sections(out)["numbers"] == [
        "- steps=300 command line: steps=300",
        "+ steps=400 command line: steps=400",
        "- seed=0 default of sqn_rl",
        "+ seed=1 command line: seed=1",
    ]


def test_trusted_parts_of_a_user_are_compared(
    users_tree: Path, trusting: list[str], command: Command
) -> None:
    out = command("diff", *trusting, "sqn", "sqn head=head").out
    assert sections(out)["parts"] == [
        "- head=linear recipes/sqn.yaml:6",
        "+ head=head command line: head=head",
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "sqn_duelling",
            r"sqn_duelling: neither a run directory nor a recipe\n  did you mean `sqn_dueling`\?",
        ),
        ("runs/nowhere", r"runs/nowhere: neither a run directory nor a recipe\n  there are: .*"),
        ("empty", r"empty: not a run directory: there is no recipe.yaml in it"),
        (" ", r": neither a run directory nor a recipe\n  there are: .*"),
        ("sqn 'half", r"sqn 'half: No closing quotation"),
        ("sqn hed=dueling", r"command line: hed=dueling: there is no such setting\n  did you mean `head`\?"),
        ("sqn loss=dqn temperature=none", r"command line: temperature=none: actor: BoltzmannActor needs a.*"),
        ("recipe=nope", r"command line: recipe=nope: there is no such recipe\n  .*"),
    ],
)
def test_an_argument_that_is_no_run_and_no_valid_recipe_is_refused(
    argument: str, message: str, folder: Path, command: Command
) -> None:
    (folder / "empty").mkdir()
    done = command("diff", "sqn", argument)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(message, done.err.strip(), re.DOTALL)
