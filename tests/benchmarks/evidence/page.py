"""The page of the evidence, from the raw rows alone."""

from collections.abc import Iterator, Sequence

import numpy as np

from . import quotes
from .plan import FAMILIES, GRID, TUNING_SEEDS, TUNING_TASKS, Task, point, weak_jobs
from .report import sections
from .runs import ROOT, Row, rows_of
from .tables import Scores, cell, scores_of, table

INTRODUCTION = """# Evidence

This page shows what makes the soft Q-network strong, and how it compares with other agents.
`python -m tests.benchmarks.evidence PHASE` makes the runs, and `python -m tests.benchmarks.evidence page`
writes this page from the rows in `docs/results/raw/evidence_*.jsonl`: one row a run, with settings, seed,
revision, 30 greedy episodes of the last weights, the training curve and processor seconds. Precision is fp32,
one thread a run.

*Area* is the mean return of training episodes over the budget, exploration included; *final* the mean of the
greedy episodes. Averages over at least five seeds are followed by 95 % bootstrap intervals.
"""


def normalised(scores: Scores, tasks: Sequence[Task]) -> dict[str, float]:
    """The area of each variant, 0 for random play and 1 for the best variant, averaged over tasks.

    Only of variants that were run on all tasks.
    """
    complete = {
        variant: by_task for variant, by_task in scores.items() if all(task.name in by_task for task in tasks)
    }
    shares: dict[str, list[float]] = {variant: [] for variant in complete}
    for task in tasks:
        means = {variant: by_task[task.name].mean() for variant, by_task in complete.items()}
        best = max(means.values(), default=0.0)
        for variant, value in means.items():
            shares[variant].append((value - task.random) / (best - task.random))
    return {variant: float(np.mean(each)) for variant, each in shares.items()}


def tuning(family: str) -> Iterator[str]:
    """The grid of one family, and the point chosen for each agent."""
    tasks = [task for task in FAMILIES[family] if task.name in TUNING_TASKS.get(family, ())]
    names = [task.name for task in tasks]
    rows = [row for row in rows_of("tune") if row["task"] in names]
    if not rows:
        return
    scores = scores_of(rows, "area", lambda row: f"{row['agent']} | {row['variant']}")
    shares = normalised(scores, tasks)
    points = [point(lr, tau) for lr, tau in GRID]
    yield f"## Tuning: {family}"
    yield (
        f"Every agent at five points: the family's learning rate and τ before tuning, {tasks[0].lr:g} and "
        f"{tasks[0].tau:g}, times the factors. Seeds {', '.join(map(str, TUNING_SEEDS))}, half the budget, "
        f"on {' and '.join(names)}. Cells are areas: 0 is random play, 1 the best of all cells (averaged "
        "over tasks). The best point of each agent is bold."
    )
    lines = []
    for agent in dict.fromkeys(row["agent"] for row in rows):
        values = [shares.get(f"{agent} | {each}") for each in points]
        best = max((each for each in values if each is not None), default=None)
        cells = [
            "–" if each is None else f"**{each:.2f}**" if each == best else f"{each:.2f}" for each in values
        ]
        lines.append([f"`{agent}`", *cells])
    yield table(["agent", *points], lines)


def additions(family: str) -> Iterator[str]:
    """What each addition to ``sqn_tb`` is worth in one family."""
    tasks = [task for task in FAMILIES[family] if task.name in TUNING_TASKS.get(family, ())]
    names = [task.name for task in tasks]
    rows = [row for row in rows_of("additions") if row["task"] in names]
    if not rows:
        return
    areas, finals = (scores_of(rows, measure, lambda row: row["variant"]) for measure in ("area", "final"))
    shares = normalised(areas, tasks)
    yield f"## Additions to `sqn_tb`: {family}"
    seeds = ", ".join(map(str, TUNING_SEEDS))
    how = "One change at a time, then the best together"
    yield f"{how}; seeds {seeds}, half the budget. In parentheses each seed."
    heads = [
        "addition",
        "share of the best area",
        *(f"{what}, {name}" for name in names for what in ("area", "final")),
    ]
    lines = []
    for variant in sorted(areas, key=lambda each: -shares.get(each, -np.inf)):
        cells = [cell(each[variant].get(name)) for name in names for each in (areas, finals)]
        lines.append([variant, f"{shares[variant]:.2f}" if variant in shares else "–", *cells])
    yield table(heads, lines)


def weak() -> Iterator[str]:
    """The variants that were weak in trials, once all their runs are there."""
    rows = rows_of("weak")
    there = {(row["agent"], row["task"], row["seed"]) for row in rows}
    if {(job.agent, job.task, job.seed) for job in weak_jobs([*FAMILIES])} - there:
        return
    names = list(dict.fromkeys(row["task"] for row in rows))
    finals, areas = (scores_of(rows, measure, lambda row: row["agent"]) for measure in ("final", "area"))
    yield "## n-step returns and double DQN"
    yield (
        "CartPole with 50,000 steps and seeds 10 to 19; variants of `sqn` also on Acrobot, with 50,000 steps "
        "and seeds 10 to 14. Settings are those of the task family."
    )
    heads = ["variant", *(f"{what}, {name}" for name in names for what in ("final", "solved", "area"))]
    solved = {"cartpole": 475, "acrobot": -100}
    lines = []
    for variant in finals:
        cells: list[str] = []
        for name in names:
            values = finals[variant].get(name, np.array([]))
            cells += [
                cell(values),
                f"{(values >= solved[name]).sum()} of {len(values)}" if len(values) else "–",
                cell(areas[variant].get(name)),
            ]
        lines.append([variant, *cells])
    yield table(heads, lines)
    yield from _why_weak(finals, [row for row in rows if row["task"] == "cartpole"], solved["cartpole"])


def _why_weak(finals: Scores, rows: Sequence[Row], solved: float) -> Iterator[str]:
    """What the table says of n-step returns and of double DQN, on CartPole."""

    def of_ten(variant: str) -> str:
        values = finals[variant]["cartpole"]
        return f"{(values >= solved).sum()} of {len(values)}"

    forms = [(finals[name]["cartpole"] >= solved).sum() for name in finals if "n-step" in name]
    yield (
        f"*n-step returns.* On CartPole {of_ten('sqn, soft mean')} runs of `sqn` with one step end above "
        f"{solved}; with n = 3 {min(forms)} to {max(forms)} of 10, whatever the backup and the bonuses. They "
        "lack the correction for actions that the policy would no longer take: `sqn_tb`, of the same n, has "
        f"it, and {of_ten('sqn_tb')} end there. An n-step return is that of the actions in the replay, most "
        "of which an older and worse policy took. Here this costs more than is gained by rewards that arrive "
        "faster. So `returns=tree_backup` is the better choice on long episodes."
    )
    best = [max(row["curve"]) for row in rows if row["agent"] == "double_dqn"]
    others = [(name.partition(", ")[2], of_ten(name)) for name in finals if name.startswith("double_dqn,")]
    tried = ", ".join(f"{change} ({count})" for change, count in others)
    yield (
        f"*Double DQN.* In {sum(each >= solved for each in best)} of {len(best)} runs a part of the training "
        f"curve is above {solved}, but only {of_ten('double_dqn')} end there: the greedy policy falls and "
        f"recovers, and the last weights are of either time. Other settings do not change that: {tried}. The "
        f"soft policy of the same networks stays there ({of_ten('sqn, soft mean')})."
    )


def write() -> None:
    """Write the page, and what the algorithm pages quote of it."""
    parts: list[str] = [INTRODUCTION, *sections()]
    for family in FAMILIES:
        parts += [*tuning(family), *additions(family)]
    parts += weak()
    (ROOT / "docs" / "results" / "evidence.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")
    quotes.write()
