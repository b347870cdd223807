"""The tables and figures of the report phase, and what they say of each claim."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sqn_rl.analysis.statistics import (
    Estimate,
    estimate,
    iqm,
    permutation_p,
    probability_of_improvement,
)

from . import claims
from .pictures import curves, standings
from .plan import ABLATIONS, AGENTS, CHOSEN, FAMILIES, PPO, SOFT_MEAN, SUPPLEMENT, Task, report_jobs
from .runs import Row, rows_of
from .tables import (
    ENOUGH,
    Scores,
    area_within,
    cell,
    enough,
    interval,
    least_seconds,
    number,
    scores_of,
    table,
)

REFERENCE, BEST = "double_dqn", "sqn_best"
"""Whose mean is 1 where scores of several tasks are averaged; and whom the primary claim is about."""
OURS = (BEST, "sqn_tb", "sqn")
Shares = dict[str, list[np.ndarray]]
"""Agent → its scores on each task, of which double DQN's mean is 1 and random play 0."""


class Pair(NamedTuple):
    """One agent against another over the tasks of a family."""

    agent: str
    other: str
    probability: Estimate
    p: float
    """Of a permutation test, not corrected."""


def stratified(scores: Scores, agent: str, tasks: Sequence[str]) -> list[np.ndarray]:
    """The scores of an agent, an array for each task."""
    return [scores[agent][task] for task in tasks]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979): p-values that may be compared with 5 % all together."""
    order = np.argsort(p_values)
    adjusted, largest = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted.tolist()


def pairs_of(scores: Scores, agent: str, others: Sequence[str], tasks: Sequence[str]) -> list[Pair]:
    """``agent`` against each of the others."""
    x = stratified(scores, agent, tasks)
    found = []
    for other in others:
        y = stratified(scores, other, tasks)
        found.append(Pair(agent, other, estimate(probability_of_improvement, x, y), permutation_p(x, y)))
    return found


def complete(scores: Scores, tasks: Sequence[Task]) -> list[str]:
    """The agents with at least two runs on each task: of one run there is no interval."""
    return [
        agent
        for agent, by_task in scores.items()
        if all(len(by_task.get(task.name, ())) >= 2 for task in tasks)
    ]


def relative(scores: Scores, tasks: Sequence[Task]) -> dict[str, list[np.ndarray]]:
    """Scores of which 0 is random play and 1 the mean of double DQN, an array for each task."""
    found = {}
    for agent in complete(scores, tasks):
        found[agent] = [
            (scores[agent][task.name] - task.random) / (scores[REFERENCE][task.name].mean() - task.random)
            for task in tasks
        ]
    return found


def in_equal_time(rows: Sequence[Row], tasks: Sequence[Task]) -> list[Row]:
    """Rows of runs, their area that within the processor seconds of double DQN's whole run."""
    found = []
    for task in tasks:
        of_task = [row for row in rows if row["task"] == task.name]
        of_agent = {
            row["agent"]: [each for each in of_task if each["agent"] == row["agent"]] for row in of_task
        }
        seconds = {agent: least_seconds(own) for agent, own in of_agent.items()}
        for row in of_task:
            area = area_within(row, seconds[row["agent"]], seconds[REFERENCE])
            found.append({**row, "area": area})
    return found


def agents() -> Iterator[str]:
    """What each agent is, and the settings that were chosen for it."""
    yield "## Agents"
    yield (
        "By name, the words after `sqn-run`, and the settings that tuning chose for each family of tasks. "
        "`ppo` is PPO of Stable-Baselines3 with the settings of RL Baselines3 Zoo. Here `sqn` is what "
        f"the recipe was when the report was frozen, with the minimum of the twins; now it is `{SOFT_MEAN}` "
        "([decision 61](../decisions/0061-soft-mean.md))."
    )
    lines = [
        [
            f"`{name}`",
            f"`{' '.join(words)}`",
            *(f"`{' '.join(CHOSEN.get(family, {}).get(name, ()))}`" for family in CHOSEN),
        ]
        for name, words in AGENTS.items()
    ]
    yield table(["agent", "command", *CHOSEN], lines)


def progress(rows: Sequence[Row]) -> Iterator[str]:
    """How many runs of the plan are there, as long as some are missing."""
    planned = [(job.agent, job.task, job.seed) for job in report_jobs([*FAMILIES])]
    done = {(row["agent"], row["task"], row["seed"]) for row in rows}
    if done.issuperset(planned):
        return
    yield "## Runs so far"
    yield (
        f"{len(done):,} of the {len(planned):,} runs that are planned. An agent appears below once it has "
        f"two runs on every task of a family. Intervals, comparisons and claims need {ENOUGH} of each task."
    )
    cells = {agent: list[str]() for agent in (*AGENTS, PPO, *ABLATIONS)}
    for tasks in FAMILIES.values():
        names = {task.name for task in tasks}
        for agent, line in cells.items():
            of_agent = [key for key in planned if key[0] == agent and key[1] in names]
            line.append(f"{len(done.intersection(of_agent))} of {len(of_agent)}" if of_agent else "–")
    yield table(["agent", *FAMILIES], [[f"`{agent}`", *line] for agent, line in cells.items()])


def of_families(families: Sequence[str]) -> dict[str, tuple[Shares, Shares]]:
    """Areas and finals relative to double DQN, by family, of those that double DQN has played enough."""
    rows, found = rows_of("report"), {}
    for family in families:
        areas, finals = _scores(rows, family)
        if REFERENCE in complete(areas, FAMILIES[family]):
            found[family] = relative(areas, FAMILIES[family]), relative(finals, FAMILIES[family])
    return found


def _scores(rows: Sequence[Row], family: str) -> tuple[Scores, Scores]:
    """Areas and finals of the runs of a family."""
    names = [task.name for task in FAMILIES[family]]
    own = [row for row in rows if row["task"] in names]
    areas, finals = (scores_of(own, measure, lambda row: row["agent"]) for measure in ("area", "final"))
    return areas, finals


def sections() -> Iterator[str]:
    """The report; nothing until there are runs of every task of a family."""
    rows, shares = rows_of("report"), of_families([*FAMILIES])
    if not shares:
        return
    parts = [part for family in shares for part in _of_family(family, rows, shares[family])]
    areas, finals = ({family: both[i] for family, both in shares.items()} for i in (0, 1))
    yield from progress(rows)
    main = {
        family: {agent: scores for agent, scores in each.items() if enough(scores)}
        for family, each in areas.items()
        if family not in SUPPLEMENT and BEST in each and enough(each[BEST])
    }
    if main:
        yield standings(main)
    yield from claims.sections(areas, finals)
    yield from agents()
    yield from parts


def _of_family(family: str, rows: Sequence[Row], shares: tuple[Shares, Shares]) -> Iterator[str]:
    tasks = FAMILIES[family]
    names, agents, raw = [task.name for task in tasks], [*shares[0]], _scores(rows, family)
    rows = [row for row in rows if row["task"] in names]
    yield f"## Report: {family}"
    for what, scores in zip(("Area under the training curve", "Final greedy mean"), raw, strict=True):
        yield f"### {family}: {what}"
        lines = [[f"`{agent}`", *(cell(scores[agent][name]) for name in names)] for agent in agents]
        yield table(["agent", *names], lines)
    yield f"### {family}: over all tasks"
    yield (
        "IQM of scores of which 0 is random play and 1 the mean of double DQN, with 95 % stratified "
        "bootstrap intervals. In equal time: area within the processor seconds of double DQN's whole run. "
        "Processor seconds of a run: of each task the least of its runs, averaged."
    )
    timed = relative(scores_of(in_equal_time(rows, tasks), "area", lambda row: row["agent"]), tasks)
    lines = []
    for agent in sorted(agents, key=lambda agent: -float(iqm(shares[0][agent]))):
        cells = [average(each[agent]) for each in (*shares, timed)]
        own = [row for row in rows if row["agent"] == agent]
        seconds = np.mean([least_seconds([row for row in own if row["task"] == name]) for name in names])
        lines.append([f"`{agent}`", *cells, f"{seconds:.0f}"])
    yield table(["agent", "area", "final", "area in equal time", "processor s"], lines)
    compared = [agent for agent in agents if enough(shares[0][agent])]
    for agent in OURS:
        if agent in compared and len(compared) > 1:
            yield from _of_pairs(raw[0], agent, compared, names)
    yield curves(family, rows, shares[0])


def average(scores: Sequence[np.ndarray]) -> str:
    """The interquartile mean over all runs, with its interval if there are enough."""
    return interval(estimate(iqm, scores)) if enough(scores) else number(float(iqm(scores)))


def _of_pairs(areas: Scores, agent: str, agents: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    pairs = pairs_of(areas, agent, [other for other in agents if other != agent], names)
    yield f"### P(improvement) of `{agent}`, by area"
    yield "The p-values are of permutation tests within tasks, with Holm's correction over the lines."
    adjusted = holm([pair.p for pair in pairs])
    lines = [
        [f"`{pair.other}`", interval(pair.probability), f"{p:.4f}" if p >= 1e-4 else "< 0.0001"]
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
    yield table(["against", "P(improvement)", "p"], lines)
