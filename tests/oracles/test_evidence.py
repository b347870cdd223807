"""The arithmetic of the evidence: training curves, permutation tests, Holm's correction, the plan."""

import json
from itertools import product

import numpy as np
import pytest
from benchmarks.evidence import plan
from benchmarks.evidence.report import holm, permutation_p
from benchmarks.evidence.runs import BINS, training_curve
from scipy.stats import mannwhitneyu


def test_a_training_curve_is_the_mean_return_of_each_part_of_the_budget() -> None:
    rows = [(2, 1.0), (20, 3.0), (21, 5.0), (22, 7.0), (100 * BINS, 9.0)]
    lines = [json.dumps({"env_steps": step, "return": each}) for step, each in rows]
    curve = training_curve(lines, 10 * BINS * 10)
    # parts of 100 steps: the first has four episodes, the last one; between, the part before
    assert curve.tolist() == [4.0] * (BINS - 1) + [9.0]
    late = training_curve(lines[-1:], 100 * BINS)
    assert late.tolist() == [9.0] * BINS


def test_the_permutation_test_is_exact_mann_whitney_for_one_task() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 1.0, 2.0):
        x, y = rng.normal(size=7) + shift, rng.normal(size=6)
        exact = mannwhitneyu(x, y, method="exact").pvalue
        assert permutation_p([x], [y]) == pytest.approx(exact, abs=0.012)  # four deviations of 20,000 draws


def test_tasks_are_not_mixed() -> None:
    """The second task is worth more; equal agents stay equal."""
    x, y = [np.arange(5.0), 100 + np.arange(5.0)], [np.arange(5.0), 100 + np.arange(5.0)]
    assert permutation_p(x, y) == 1.0
    better = [each + 10 for each in x]
    assert permutation_p(better, y) < 0.001


def test_holm_by_hand() -> None:
    # sorted .01 · 4, .02 · 3, .03 · 2, .6 · 1; no smaller than the one before
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])


def test_every_agent_is_tuned_alike_and_no_report_seed_is_used() -> None:
    jobs = [*plan.tuning_jobs([*plan.FAMILIES])]
    assert len({(job.key, job.task) for job in jobs}) == len(jobs)
    for agent, task in product(plan.AGENTS, ("acrobot", "breakout", "space_invaders")):
        own = [job for job in jobs if (job.agent, job.task) == (agent, task)]
        assert len(own) == len(plan.GRID) * len(plan.TUNING_SEEDS)
        assert {job.seed for job in own} == {*plan.TUNING_SEEDS}
    others = [job for phase in ("additions", "weak") for job in plan.PHASES[phase]([*plan.FAMILIES])]
    assert max(job.seed for job in [*jobs, *others]) < 100
    assert min(min(task.seeds) for tasks in plan.FAMILIES.values() for task in tasks) >= 1000
