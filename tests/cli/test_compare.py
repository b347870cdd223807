"""``sqn-compare``: runs with real recipes, and evaluations whose scores the tests set."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from sqn_rl.analysis.comparison import compare
from sqn_rl.analysis.finished import find_runs, read_runs
from sqn_rl.cli.run import main as train
from sqn_rl.recipe.compose import compose_recipe

Command = Callable[..., Any]
Write = Callable[..., Path]

STEPS = ["steps=60", "warmup_steps=40", "eval_every=20", "eval_episodes=2"]
CART, ATARI = "CartPole-v1", ["env=atari_ram"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    assert train([*STEPS, f"out={path}"]) == 0
    return path


@pytest.fixture
def write(trained: Path, folder: Path) -> Write:
    """``write("a", "head=dueling", scores=[1, 2, 3])``: a run directory with these evaluations."""

    def written(name: str, *overrides: str, scores: Sequence[float] = (1, 2, 3), **summary: Any) -> Path:
        run = folder / name
        run.mkdir(parents=True)
        recipe = compose_recipe("sqn", *STEPS, *overrides)
        (run / "recipe.yaml").write_text(recipe.to_yaml())
        env = recipe.fields("env")
        facts = {"env": env.get("id") or f"{env['game']}-ram", "seed": recipe.run.seed, **summary}
        real = json.loads((trained / "summary.json").read_text())
        rows = [json.loads(line) for line in (trained / "evaluations.jsonl").read_text().splitlines()]
        rows = [row | {"mean": score} for row, score in zip(rows, scores, strict=False)]
        (run / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "summary.json").write_text(json.dumps(real | facts | {"evaluation": rows[-1]}))
        return Path(name)

    return written


def several(write: Write, name: str, finals: Sequence[float], *overrides: str) -> None:
    for seed, final in enumerate(finals):
        write(f"{name}/s{seed}", *overrides, f"seed={seed}", scores=[0, final / 2, final])


def cells(out: str, *first: str) -> list[str]:
    """The further cells of the table line that begins with the cells ``first``."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    return next(line for line in lines if line[: len(first)] == list(first))[len(first) :]


# --- the output --------------------------------------------------------------------------------------------


def test_an_unmodified_run_is_shown_with_its_protocol_and_final_score(
    trained: Path, command: Command
) -> None:
    done = command("compare", str(trained))
    assert (done.code, done.err) == (0, "")
    rows = [json.loads(line)["mean"] for line in (trained / "evaluations.jsonl").read_text().splitlines()]
    assert cells(done.out, "sqn warmup_steps=40", "final")[0] == "1"
    assert float(cells(done.out, "sqn warmup_steps=40", "final")[1]) == pytest.approx(rows[-1], abs=0.05)
    protocol = f"{CART}: env=cartpole steps=60 eval_every=20 eval_episodes=2 env.id={CART} greedy=true\n"
    assert done.out.startswith(protocol)


def test_the_output_has_the_statistics_of_each_variant_and_the_verdict_of_the_pair(
    write: Write, command: Command
) -> None:
    several(write, "plain", [10, 20, 30, 40])
    several(write, "dueling", [50, 60, 70, 80], "head=dueling")
    done = command("compare", "plain", "dueling")
    assert (done.code, done.err) == (0, "")
    assert "all variants: warmup_steps=40" in done.out
    runs, mean, median, iqm = cells(done.out, "sqn", "final")
    assert (runs, mean[:4], median[:4], iqm[:4]) == ("4", "25.0", "25.0", "25.0")
    # The curve is 0, 1/2 and 1 of the last score: on average (0 / 2 + 1/2 + 1 / 2) / 2 of it.
    assert cells(done.out, "sqn head=dueling", "area")[1].startswith("32.5 [")
    assert cells(done.out, CART, "final") == ["sqn head=dueling", "sqn", "1.00 [1.00, 1.00]", "better"]
    assert "note:" not in done.out


@pytest.mark.parametrize(
    ("ours", "theirs", "what"),
    [
        (
            "sqn_rl.LinearHead",
            "lab.LinearHead",
            "are both `sqn warmup_steps=40` on CartPole-v1, but differ in parts or values",
        ),
        ("sqn_rl.GymEnv", "lab.ShiftedEnv", "were evaluated differently on CartPole-v1"),
    ],
)
def test_parts_with_one_name_but_different_classes_are_refused(
    ours: str, theirs: str, what: str, write: Write, command: Command
) -> None:
    write("a")
    path = write("b", "seed=1") / "recipe.yaml"
    path.write_text(path.read_text().replace(f"_target_: {ours}", f"_target_: {theirs}"))
    slot = "head" if "Head" in ours else "env"
    done = command("compare", "a", "b")
    assert done.code == 2
    assert f"a and b {what}:\n  {slot}._target_ {ours} " in done.err
    assert f"and {theirs} " in done.err
    assert f"- {slot}._target_={ours}" in command("diff", "a", "b").out


def test_runs_with_and_without_a_collect_slot_are_the_same_variant(write: Write, command: Command) -> None:
    """A recipe of a version before the slot ``collect`` has no such part."""
    write("a")
    path = write("b", "seed=1") / "recipe.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "LocalCollect" not in line and "collect:" not in line))
    done = command("compare", "a", "b")
    assert (done.code, done.err) == (0, "")
    assert cells(done.out, "sqn warmup_steps=40", "final")[0] == "2"
    assert "collect" not in command("diff", "a", "b").out


def test_three_runs_per_variant_are_reported_as_too_few_to_tell(write: Write, command: Command) -> None:
    several(write, "plain", [10, 20, 30])
    several(write, "dueling", [50, 60, 70], "head=dueling")
    done = command("compare", "plain", "dueling")
    assert cells(done.out, CART, "final")[-1] == "too few runs to tell"
    assert "3 and 3 runs are too few to tell" in done.out
    assert "in 10% of cases; 4 of each would do" in done.out


def test_variants_with_equal_scores_are_undecided(write: Write, command: Command) -> None:
    several(write, "plain", [10, 20, 30, 40, 50])
    several(write, "dueling", [10, 20, 30, 40, 50], "head=dueling")
    assert cells(command("compare", "plain", "dueling").out, CART, "final")[-1] == "undecided"


def test_a_single_run_has_no_interval(write: Write, command: Command) -> None:
    write("one")
    assert cells(command("compare", "one").out, "sqn warmup_steps=40", "final") == [
        "1",
        "3.00",
        "3.00",
        "3.00",
    ]


def test_a_run_with_one_evaluation_has_no_area_and_is_noted(write: Write, command: Command) -> None:
    write("one", scores=[5])
    done = command("compare", "one", "--output", "report")
    assert "area" not in done.out.split("In brackets")[0]
    assert f"note: {CART}: evaluated once" in done.out
    assert imread("report/comparison.png").ndim == 3


def test_the_report_files_contain_the_table_the_verdict_and_the_figure(
    write: Write, command: Command
) -> None:
    several(write, "runs/plain", [10, 20, 30, 40])
    several(write, "runs/dueling", [50, 60, 70, 81], "head=dueling")
    done = command("compare", "runs", "--output", "new/report")
    assert "figure  new/report/comparison.png" in done.out
    rows = list(csv.DictReader(Path("new/report/comparison.csv").read_text().splitlines()))
    (row,) = [
        row
        for row in rows
        if (row["variant"], row["measure"], row["statistic"]) == ("sqn head=dueling", "final", "mean")
    ]
    assert (row["environment"], row["runs"], row["value"]) == (CART, "4", "65.25")
    assert float(row["low"]) < 65.25 < float(row["high"])
    (pair,) = [row for row in rows if row["against"] and row["measure"] == "area"]
    assert (pair["variant"], pair["against"], pair["value"], pair["verdict"]) == (
        "sqn head=dueling",
        "sqn",
        "1.0",
        "better",
    )
    page = Path("new/report/comparison.md").read_text()
    assert "![Learning curves and performance profiles](comparison.png)" in page
    assert "| sqn head=dueling | final | 4 | 65.2 [" in page
    assert imread("new/report/comparison.png").shape[1] == 1320


def test_the_table_does_not_depend_on_how_the_runs_are_listed(write: Write, command: Command) -> None:
    several(write, "plain", [10, 25, 30, 47])
    several(write, "dueling", [15, 60, 12, 80], "head=dueling")
    first = command("compare", "plain", "dueling").out
    assert command("compare", "dueling", "plain").out == first
    assert command("compare", "dueling/s2", "*/s[013]", "plain/s2").out == first


# --- grouping of runs --------------------------------------------------------------------------------------


def test_a_variant_is_a_recipe_and_the_overrides_that_affect_learning(write: Write, command: Command) -> None:
    write("a", "recipe=sqn_dueling")
    write("b", "head=dueling", "lr=0.01")
    write(
        "c",
        "head=dueling",
        "lr=0.01",
        "seed=1",
        "log_every=7",
        "threads=2",
        "checkpoint_every=9",
        "compile=never",
    )
    write("d", "tau=0.3")
    out = command("compare", "a", "b", "c", "d").out
    runs = {"sqn_dueling": "1", "sqn head=dueling lr=0.01": "2", "sqn tau=0.3": "1"}
    assert {name: cells(out, name, "final")[0] for name in runs} == runs


def test_folders_and_globs_are_expanded_to_the_runs_in_them(write: Write, command: Command) -> None:
    several(write, "runs/deep/er", [1, 2])
    several(write, "runs/other", [3, 4], "head=dueling")
    for places in (
        ["runs"],
        ["runs/*/*/s*", "runs/other"],
        ["runs/**/s?"],
        ["runs/deep", "runs/deep", "runs/other"],
    ):
        out = command("compare", *places).out
        assert cells(out, "sqn", "final")[0] == cells(out, "sqn head=dueling", "final")[0] == "2"


def test_links_to_runs_are_followed_and_those_to_folders_are_not(
    write: Write, command: Command, folder: Path
) -> None:
    several(write, "far/runs", [1, 2, 3])
    several(write, "runs", [4])
    for seed in (1, 2):
        (folder / f"runs/link{seed}").symlink_to(f"../far/runs/s{seed}")
    (folder / "runs/around").symlink_to("..")
    assert cells(command("compare", "runs").out, "sqn warmup_steps=40", "final")[0] == "3"


def test_a_repeated_seed_is_left_out(write: Write, command: Command) -> None:
    write("a", "seed=3")
    write("b", "seed=3")
    out = command("compare", "a", "b").out
    assert cells(out, "sqn warmup_steps=40", "final")[0] == "1"
    assert "note: left out: b: the same as a, seed and all" in out


def test_unfinished_runs_are_named_and_left_out(write: Write, command: Command) -> None:
    several(write, "good", [1, 2])
    (write("killed", "seed=5") / "summary.json").unlink()
    write("stopped", "seed=6", status="stopped", env_steps=20)
    write("diverged", "seed=7", status="numerics", env_steps=44)
    write("failed", "seed=8", status="error", env_steps=0)
    out = command("compare", "good", "killed", "stopped", "diverged", "failed").out
    assert cells(out, "sqn warmup_steps=40", "final")[0] == "2"
    for note in (
        "killed: still running, killed, or a model of sqn-push: there is no summary.json",
        "stopped: stopped after 20 of 60 steps",
        "diverged: a number became NaN or infinite after 44 of 60 steps",
        "failed: failed after 0 of 60 steps",
    ):
        assert f"note: left out: {note}\n" in out
    done = command("compare", "killed")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "there is no finished run to compare",
        "left out: killed: still running, killed, or a model of sqn-push: there is no summary.json",
    ]


def test_runs_of_different_software_revisions_are_noted(write: Write, command: Command) -> None:
    write("a", git_revision="abcdef1234567")
    write("b", "seed=1", git_revision="1234567abcdef")
    out = command("compare", "a", "b").out
    assert "note: the runs were made by different software: sqn_rl 0.1.0 1234567, sqn_rl 0.1.0 abcdef1" in out


# --- several environments, and Atari -----------------------------------------------------------------------


def test_atari_scores_are_normalised_by_human_scores(write: Write, command: Command) -> None:
    several(write, "pong", [-20.7, 14.6], *ATARI)
    several(write, "breakout", [1.7, 1.7 + 2 * 28.8], *ATARI, "env.game=breakout")
    several(write, "cartpole", [100, 200])
    out = command("compare", "pong", "breakout", "cartpole").out
    variant = "sqn warmup_steps=40"
    assert cells(out.split("\npong-ram\n")[1], variant, "final (human = 1)")[:2] == ["2", "0.50 [0.00, 1.00]"]
    games = out.split("\n2 games")[1]
    # Pong 0 and 1, Breakout 0 and 2: mean of means (½ + 1) / 2, interquartile mean of 0 0 1 2.
    runs, mean, median, iqm = cells(games, variant, "final (human = 1)")
    assert (runs, mean[:4], median[:4], iqm[:4]) == ("4", "0.75", "0.75", "0.50")
    assert "human" not in out.split(f"\n{CART}\n")[1].split("\n\n")[0]


def test_variants_are_also_compared_over_all_environments_together(write: Write, command: Command) -> None:
    for name, scores in {"plain": [1, 2, 3], "dueling": [4, 5, 6]}.items():
        several(write, f"{name}/cart", scores, *(["head=dueling"] if name == "dueling" else []))
        several(write, f"{name}/pong", scores, *ATARI, *(["head=dueling"] if name == "dueling" else []))
    out = command("compare", ".").out
    assert cells(out, CART, "final")[-1] == "too few runs to tell"
    # Six runs are split into halves in 20 ways per environment: p = 2 / 20², so both together decide.
    assert cells(out, "2 environments", "final") == ["sqn head=dueling", "sqn", "1.00 [1.00, 1.00]", "better"]


def test_an_environment_that_lacks_a_variant_is_left_out_of_the_averages(
    write: Write, command: Command
) -> None:
    several(write, "plain", [1, 2])
    several(write, "dueling", [1, 2], "head=dueling")
    several(write, "pong", [1, 2], *ATARI)
    out = command("compare", ".").out
    assert "note: pong-ram: no run of sqn head=dueling, so it is in no average over environments" in out
    assert "2 environments" not in out


def test_a_game_without_a_human_score_is_noted_and_not_normalised(write: Write, command: Command) -> None:
    write("a", *ATARI, "env.game=tetris")
    out = command("compare", "a").out
    assert "human" not in out.split("In brackets")[0]
    assert "note: tetris-ram: no human score of tetris was published, so none is normalised by it" in out


def test_all_other_variants_are_compared_with_the_baseline(write: Write) -> None:
    several(write, "plain", [1, 2])
    several(write, "dueling", [1, 2], "head=dueling")
    several(write, "fast", [1, 2], "lr=0.1")
    runs, _ = read_runs(find_runs(["."]))
    baseline = next(run for run in runs if run.variant[-1] == "lr=0.1")
    pairs = [
        (pair.variant, pair.other)
        for pair in compare(runs, baseline=baseline).pairs
        if pair.measure == "final"
    ]
    assert pairs == [("sqn", "sqn lr=0.1"), ("sqn head=dueling", "sqn lr=0.1")]


def test_an_environment_without_a_baseline_run_has_rows_but_no_pairs(write: Write) -> None:
    several(write, "plain", [1, 2])
    several(write, "fast", [1, 2], "lr=0.1")
    several(write, "pong/plain", [1, 2], *ATARI)
    several(write, "pong/dueling", [1, 2], *ATARI, "head=dueling")
    runs, _ = read_runs(find_runs(["."]))
    baseline = next(run for run in runs if run.variant[-1] == "lr=0.1")
    comparison = compare(runs, baseline=baseline)
    assert {pair.environment for pair in comparison.pairs} == {baseline.environment}
    assert {row.environment for row in comparison.rows} > {baseline.environment}


# --- refused and left out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps=61"], "steps 60 (command line: steps=60) and 61 (command line: steps=61)"),
        (
            ["eval_episodes=3"],
            "eval_episodes 2 (command line: eval_episodes=2) and 3 (command line: eval_episodes=3)",
        ),
        (
            ["eval_every=30"],
            "eval_every 20 (command line: eval_every=20) and 30 (command line: eval_every=30)",
        ),
        (["env.sticky_actions=0"], "env.sticky_actions 0.25 (components/env/atari_ram.yaml:5) and 0 ("),
        (["env.frame_skip=5"], "env.frame_skip 4 (components/env/atari_ram.yaml:6) and 5 ("),
        (["env.life_loss=true"], "env.life_loss false (components/env/atari_ram.yaml:8) and true ("),
        (["env.max_frames=null"], "env.max_frames 108000 (components/env/atari_ram.yaml:9) and null ("),
    ],
)
def test_runs_with_different_evaluation_protocols_are_refused(
    overrides: list[str], message: str, write: Write, command: Command
) -> None:
    write("a", *ATARI)
    write("b", *ATARI, "head=dueling", *overrides)
    done = command("compare", "a", "b", "--output", "report")
    assert (done.code, done.out) == (2, "")
    first, difference, fix = done.err.splitlines()
    assert first == "a and b were evaluated differently on pong-ram:"
    assert message in difference
    assert "run one of them again" in fix
    assert not Path("report").exists()


def cut(run: Path, *lengths: int, cut: int | None) -> None:
    """Set the lengths and the number of cut episodes in a run's evaluations; None leaves out the number."""
    rows = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    rows = [row | {"lengths": [*lengths], "cut": cut} for row in rows]
    text = [json.dumps({key: value for key, value in row.items() if value is not None}) for row in rows]
    (run / "evaluations.jsonl").write_text("\n".join(text))


@pytest.mark.parametrize("other", [(90, 99, 0), (90, 100, 0), (100, 100, 2), (9, 100, None)])
def test_evaluation_episodes_cut_by_eval_max_steps_are_noted(
    other: tuple[int, int, int], write: Write, command: Command
) -> None:
    cut(write("a", "eval_max_steps=100"), 50, 100, cut=1)
    cut(
        write("b", "head=dueling", "eval_max_steps=1000" if other[2] == 0 else "eval_max_steps=100"),
        *other[:2],
        cut=other[2],
    )
    done = command("compare", "a", "b")
    assert (done.code, done.err) == (0, "")
    games, runs = 3 + 3 * (other[2] or 0), 2 if other[2] else 1
    note = f"note: {CART}: {games} evaluation episodes, in {runs} of 2 runs, were cut after 100 steps"
    assert note in done.out


@pytest.mark.parametrize("other", [(90, 101, 0), (50, 101, 1), (9, 101, None)])
def test_runs_whose_episodes_were_cut_at_different_lengths_are_refused(
    other: tuple[int, int, int], write: Write, command: Command
) -> None:
    cut(write("a", "head=dueling"), *other[:2], cut=other[2])
    cut(write("b"), 50, 100, cut=1)
    done = command("compare", "a", "b")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"b and a were evaluated differently on {CART}:",
        "  episodes were cut after 100 steps in one, and lasted 101 in the other (eval_max_steps)",
        "  compare them separately, or run one of them again",
    ]


@pytest.mark.parametrize("differ", [True, False])
def test_recipe_files_with_one_name_are_labelled_by_path_if_they_differ(
    differ: bool, write: Write, folder: Path, command: Command
) -> None:
    for name, lr in (("s1", 1e-3), ("s2", 1e-2 if differ else 1e-3)):
        (folder / name).mkdir()
        (folder / name / "best.yaml").write_text(f"defaults: [sqn, _self_]\noptimizer: {{lr: {lr}}}\n")
    write("a", "recipe=s1/best.yaml")
    write("b", "recipe=s2/best.yaml", "seed=1")
    write("c", "recipe=s2/best.yaml", "head=dueling", "seed=1")
    done = command("compare", "a", "b", "c")
    assert (done.code, done.err) == (0, "")
    names = ["s1/best.yaml", "s2/best.yaml", "s2/best.yaml head=dueling"] if differ else ["best"]
    runs = "1" if differ else "2"
    assert [cells(done.out, name, "final")[0] for name in names] == [runs] * len(names)


def test_runs_with_greedy_and_with_sampled_evaluations_are_refused(write: Write, command: Command) -> None:
    write("a")
    path = write("b", "seed=1") / "evaluations.jsonl"
    path.write_text(path.read_text().replace('"greedy": true', '"greedy": false'))
    assert "greedy true (evaluations.jsonl) and false (evaluations.jsonl)" in command("compare", "a", "b").err


def test_runs_that_differ_in_reward_clipping_are_compared(write: Write, command: Command) -> None:
    write("a", *ATARI)
    write("b", *ATARI, "env.clip_reward=false")
    out = command("compare", "a", "b").out
    assert cells(out, "sqn env.clip_reward=false", "final")[0] == "1"


def test_runs_with_one_label_but_different_values_are_refused(write: Write, command: Command) -> None:
    write("a")
    path = write("b", "seed=1") / "recipe.yaml"
    path.write_text(path.read_text().replace("tau: 0.05", "tau: 0.06"))
    done = command("compare", "a", "b")
    assert done.code == 2
    first, difference, _ = done.err.splitlines()
    assert first == f"a and b are both `sqn warmup_steps=40` on {CART}, but differ in parts or values:"
    assert difference.startswith(
        "  target_update.tau 0.05 (components/task/classic_control.yaml:9) and 0.06 ("
    )


def _no_evaluations(run: Path) -> None:
    (run / "evaluations.jsonl").unlink()


def _empty_evaluations(run: Path) -> None:
    (run / "evaluations.jsonl").write_text("")


def _truncated_evaluations(run: Path) -> None:
    path = run / "evaluations.jsonl"
    path.write_text(path.read_text()[:-20])


def _huge_evaluations(run: Path) -> None:
    path = run / "evaluations.jsonl"
    path.write_text(re.sub(r'"mean": [^,]+', '"mean": -1e308', path.read_text()))


def _truncated_summary(run: Path) -> None:
    path = run / "summary.json"
    path.write_text(path.read_text()[:-20])


def _summary_that_is_a_list(run: Path) -> None:
    (run / "summary.json").write_text('["done"]')


def _file_that_is_no_recipe(run: Path) -> None:
    (run / "recipe.yaml").write_text("cake: 3 eggs\n")


def _recipe_that_is_no_yaml(run: Path) -> None:
    (run / "recipe.yaml").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _no_evaluations,
            r"its summary.json or evaluations.jsonl is damaged \(.*no evaluation\)",
        ),
        (
            _empty_evaluations,
            r"its summary.json or evaluations.jsonl is damaged \(.*no evaluation\)",
        ),
        (_truncated_evaluations, r"a/evaluations.jsonl:\d+: not JSON: .*"),
        (
            _huge_evaluations,
            r"its summary.json or evaluations.jsonl is damaged \(.*no number of at most 1e\+100\)",
        ),
        (_truncated_summary, r"a/summary.json: not JSON: .*"),
        (_summary_that_is_a_list, r"a/summary.json: not a JSON object"),
        (_file_that_is_no_recipe, r"a/recipe.yaml: says nothing of the part in the slot `env`"),
        (_recipe_that_is_no_yaml, r"a/recipe.yaml:\d: not YAML: .*"),
    ],
)
def test_a_damaged_run_is_left_out_and_the_reason_is_noted(
    damage: Callable[[Path], None], message: str, write: Write, command: Command
) -> None:
    """If no other run is left, the command fails."""
    damage(write("a"))
    write("b", "seed=1")
    done = command("compare", "a", "b")
    assert (done.code, done.err) == (0, "")
    assert re.search(f"^note: left out: a: {message}$", done.out, re.MULTILINE)
    done = command("compare", "a")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(f"there is no finished run to compare\nleft out: a: {message}", done.err.strip())


def test_an_environment_without_a_majority_protocol_is_left_out(write: Write, command: Command) -> None:
    """Pong has two runs of different protocols; the runs on CartPole are compared."""
    write("a", *ATARI)
    write("b", *ATARI, "head=dueling", "env.sticky_actions=0")
    write("c")
    write("d", "head=dueling", "seed=1")
    done = command("compare", "a", "b", "c", "d")
    assert (done.code, done.err) == (0, "")
    assert "note: left out: a and b were evaluated differently on pong-ram:" in done.out
    assert f"{CART}: env=cartpole steps=60" in done.out
    assert "pong-ram: steps=" not in done.out


def test_paths_without_runs_are_refused_with_the_reason(folder: Path, command: Command) -> None:
    (folder / "empty").mkdir()
    (folder / "file").write_text("")
    for place, why in {
        "empty": "there is no run in it; a run has a recipe.yaml",
        "file": "not a directory; give that of a run, or one with runs in it",
        "nowhere": "there is no such directory",
        "no*": "there is no such directory",
    }.items():
        done = command("compare", place)
        assert (done.code, done.out, done.err) == (2, "", f"{place}: {why}\n")


def test_an_output_folder_that_is_a_file_is_refused(write: Write, command: Command) -> None:
    write("a")
    Path("file").write_text("")
    done = command("compare", "a", "--output", "file")
    assert done.code == 2
    assert done.err == "output = 'file': expected a folder that can be made (File exists)\n"


def test_runs_that_differ_from_the_majority_are_left_out_with_the_reason(
    write: Write, command: Command
) -> None:
    several(write, "sqn", [1, 2, 3])
    several(write, "dueling", [2, 3, 4], "head=dueling")
    write("longer", "steps=61")
    changed = write("changed", "head=dueling", "seed=9") / "recipe.yaml"
    changed.write_text(changed.read_text().replace("tau: 0.05", "tau: 0.06"))
    cut(write("short", "seed=7"), 5, 6, cut=1)
    done = command("compare", "sqn", "dueling", "longer", "changed", "short")
    assert (done.code, done.err) == (0, "")
    left_out = re.findall(r"left out: (\w+): (.*)", done.out)
    assert {name for name, _ in left_out} == {"longer", "changed", "short"}
    reasons = dict(left_out)
    assert re.search(r"steps 60 \(.*\) and 61 \(", reasons["longer"])
    assert "tau" in reasons["changed"]
    assert "episodes were cut after 6 steps" in reasons["short"]
    assert cells(done.out, "sqn", "final")[0] == "3"
    assert cells(done.out, "sqn head=dueling", "final")[0] == "3"


def test_a_left_out_run_with_braces_in_its_settings_is_noted(write: Write, command: Command) -> None:
    several(write, "sqn", [1, 2, 3])
    write("wrapped", "env.wrappers=[{TimeLimit: {max_episode_steps: 5}}]")
    done = command("compare", "sqn", "wrapped")
    assert (done.code, done.err) == (0, "")
    assert "note: left out: wrapped: sqn/s0 and wrapped were evaluated differently on" in done.out
    assert "{TimeLimit: {max_episode_steps: 5}}" in done.out
