"""The arithmetic of the evidence: training curves, permutation tests, Holm's correction, the plan."""

import json
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from benchmarks.evidence import pictures, plan, quotes, report
from benchmarks.evidence.claims import spread, verdict, verdict_of_difference
from benchmarks.evidence.report import holm
from benchmarks.evidence.runs import BINS, _row, training_curve

from sqn_rl.analysis import statistics
from sqn_rl.analysis.statistics import Estimate


def test_a_training_curve_is_the_mean_return_of_each_part_of_the_budget() -> None:
    rows = [(2, 1.0), (20, 3.0), (21, 5.0), (22, 7.0), (100 * BINS, 9.0)]
    lines = [json.dumps({"env_steps": step, "return": each}) for step, each in rows]
    curve = training_curve(lines, 10 * BINS * 10)
    # parts of 100 steps: the first has four episodes, the last one; between, the part before
    assert curve.tolist() == [4.0] * (BINS - 1) + [9.0]
    late = training_curve(lines[-1:], 100 * BINS)
    assert late.tolist() == [9.0] * BINS


def test_the_row_of_a_peer_has_no_revision(tmp_path: Path) -> None:
    job = next(job for job in plan.report_jobs(["classic_control"]) if job.agent == plan.PPO)
    files = {
        "episodes.jsonl": {"env_steps": 9, "return": 2.0},
        "evaluations.jsonl": {"env_steps": 10, "mean": 3.0, "returns": [3.0]},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content) + "\n")
    row = _row(job, tmp_path, {"status": "done", "env_steps": 10, "updates": 5, "episodes": 1}, 1.0)
    assert (row["agent"], row["git_revision"], row["final"], row["area"]) == ("ppo", None, 3.0, 2.0)


def test_holm_by_hand() -> None:
    # sorted .01 · 4, .02 · 3, .03 · 2, .6 · 1; no smaller than the one before
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])


def test_every_agent_is_tuned_on_the_same_grid_and_seeds_apart_from_the_report() -> None:
    jobs = [*plan.tuning_jobs([*plan.FAMILIES])]
    assert len({(job.key, job.task) for job in jobs}) == len(jobs)
    for agent, task in product(plan.AGENTS, ("acrobot", "breakout", "space_invaders")):
        own = [job for job in jobs if (job.agent, job.task) == (agent, task)]
        assert len(own) == len(plan.GRID) * len(plan.TUNING_SEEDS)
        assert {job.seed for job in own} == {*plan.TUNING_SEEDS}
    others = [job for phase in ("additions", "weak") for job in plan.PHASES[phase]([*plan.FAMILIES])]
    assert max(job.seed for job in [*jobs, *others]) < 100
    assert min(min(task.seeds) for tasks in plan.FAMILIES.values() for task in tasks) >= 1000


@pytest.mark.parametrize(
    ("value", "low", "high", "least", "expected"),
    [
        (0.8, 0.55, 0.95, 0.75, "confirmed"),
        (0.8, 0.45, 0.95, 0.75, "undecided"),  # the interval reaches one half
        (0.7, 0.55, 0.85, 0.75, "undecided"),  # better, but not by as much as claimed
        (0.6, 0.52, 0.70, 0.75, "refuted"),
        (0.6, 0.52, 0.70, 0.5, "confirmed"),
        (0.3, 0.10, 0.49, 0.5, "refuted"),
        (0.3, 0.10, 0.50, 0.5, "undecided"),
    ],
)
def test_the_verdict_of_a_claim_follows_from_its_estimate_and_interval(
    value: float, low: float, high: float, least: float, expected: str
) -> None:
    assert verdict(Estimate(value, low, high), least) == expected


def test_spread_and_the_verdict_of_a_difference_of_spreads() -> None:
    assert spread([np.array([1.0, 3.0]), np.array([5.0, 5.0])]) == 0.5  # deviations of 1 and 0
    assert verdict_of_difference(Estimate(-2, -3, -1)) == "confirmed"
    assert verdict_of_difference(Estimate(0, -1, 1)) == "undecided"
    assert verdict_of_difference(Estimate(2, 1, 3)) == "refuted"


def made_up_rows() -> list[dict[str, object]]:
    """A row of each job of the report: of ``sqn_best`` a multiple of what the others have."""
    rng = np.random.default_rng(0)
    randoms = {task.name: task.random for tasks in plan.FAMILIES.values() for task in tasks}
    rows: list[dict[str, object]] = []
    for job in plan.report_jobs([*plan.FAMILIES]):
        score = randoms[job.task] + (30 if job.agent == "sqn_best" else 10) * rng.uniform(0.9, 1.1)
        own = {"agent": job.agent, "variant": "", "task": job.task, "seed": job.seed}
        rows.append({**own, "area": score, "final": score, "cpu_s": 100.0, "curve": [score] * BINS})
    return rows


def test_the_report_shows_the_results_of_its_rows_and_the_missing_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "CHOSEN", {"minatar": {"sqn_best": ["lr=1"]}})
    rows = made_up_rows()
    assert {row["agent"] for row in rows if row["task"] == "pong_ram"} == {"sqn_best", "double_dqn"}
    seeds = Counter(row["agent"] for row in rows if row["task"] == "acrobot")
    assert (seeds["rainbow"], seeds["dqn"]) == (10, 5)
    assert {*seeds} == {*plan.AGENTS, plan.PPO, *plan.ABLATIONS}
    monkeypatch.setattr(report, "rows_of", lambda phase: rows)
    monkeypatch.setattr(pictures, "RESULTS", tmp_path)
    monkeypatch.setattr(statistics, "PERMUTATIONS", 100)
    page = "\n".join(report.sections())
    primary, asked = ("`sqn_best` against `double_dqn`, minatar", "`sqn_best` against `rainbow`, minatar")
    for claim in (primary, asked):
        assert f"| {claim} |" in page
    assert "1.00 [1.00, 1.00] | confirmed |" in next(line for line in page.splitlines() if primary in line)
    assert "## Runs so far" not in page
    assert {each.name for each in tmp_path.iterdir()} == {
        "evidence.png",
        "evidence_classic_control.png",
        "evidence_minatar.png",
        "evidence_atari_ram.png",
    }
    two = [row for row in rows if row["agent"] in ("sqn_best", "double_dqn")]
    for seeds_each, cells in ((5, "15 of 30 | 25 of 25 | 9 of 9"), (2, "6 of 30 | 10 of 25 | 6 of 9")):
        some = [row for row in two if row["seed"] < 1000 + seeds_each]
        monkeypatch.setattr(report, "rows_of", lambda phase, rows=some: rows)
        page = "\n".join(report.sections())
        assert f"{len(some)} of the {len(rows)} runs that are planned" in page
        assert f"| `double_dqn` | {cells} |" in page
        assert "### minatar: Final greedy mean" in page
        assert [each in page for each in (primary, "### P(improvement)")] == [seeds_each == 5] * 2
        assert not any(each in page for each in (asked, "each baseline"))
    for too_few in ([row for row in two if row["seed"] == 1000], []):
        monkeypatch.setattr(report, "rows_of", lambda phase, rows=too_few: rows)
        assert not [*report.sections()]


def test_algorithm_pages_quote_agents_with_enough_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in made_up_rows() if row["agent"] != "rainbow" or row["seed"] < 1004]
    monkeypatch.setattr(report, "rows_of", lambda phase: rows)
    families = report.of_families([*plan.FAMILIES])
    lines = quotes.quote(("sqn_best", "rainbow", "dqn"), families).splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| `")] == ["| `sqn_best`", "| `dqn`"]
    assert lines[-1].count("–") == 2  # there is no `dqn` in the supplement
    assert quotes.quote(("rainbow", "dqn"), families) == ""


def test_quotes_in_the_algorithm_pages_are_up_to_date() -> None:
    families = report.of_families([*plan.FAMILIES])
    for name, agents in quotes.PAGES.items():
        page = (quotes.ROOT / "docs" / "algorithms" / f"{name}.md").read_text()
        assert page.count(quotes.BEGIN) == page.count(quotes.END) == 1
        assert page == quotes.quoted(page, quotes.quote(agents, families)), name


def test_the_area_in_equal_time_ends_at_the_time_of_double_dqn() -> None:
    """An agent of twice the time has half of its curve; one of half the time has all of it."""
    curve = [1.0, 1.0, 3.0, 3.0]
    seconds = {"double_dqn": 10.0, "slow": 20.0, "fast": 5.0}
    rows = [
        {"agent": agent, "task": "breakout", "area": 2.0, "cpu_s": cpu_s + extra, "curve": curve}
        for agent, cpu_s in seconds.items()
        for extra in (0.0, 7.0)  # on a busy machine
    ]
    task = next(task for task in plan.FAMILIES["minatar"] if task.name == "breakout")
    areas = {row["agent"]: row["area"] for row in report.in_equal_time(rows, [task])}
    assert areas == {"double_dqn": 2.0, "slow": 1.0, "fast": 2.0}
