"""The claims that are tested, fixed before the report's runs, and what the runs say of each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sqn_rl.analysis.statistics import Estimate, estimate, probability_of_improvement

from .plan import SOFT_MEAN, TUNED_MEAN
from .tables import enough, interval, table

Scores = Mapping[str, Sequence[np.ndarray]]
"""Agent → its scores on each task, of which double DQN's mean is 1 and random play 0."""

BASELINES = ("dqn", "dqn_n3", "double_dqn", "rainbow", "discrete_sac", "munchausen_dqn", "ppo")


class Claim(NamedTuple):
    """That ``agent`` is better than ``other`` on the tasks of a family."""

    what: str
    agent: str
    other: str
    family: str
    least: float = 0.5
    """What P(improvement) must be."""


PRIMARY = Claim("the primary claim", "sqn_best", "double_dqn", "minatar", 0.75)
ASKED = Claim("asked, not promised", "sqn_best", "rainbow", "minatar")
DEFAULTS = [
    Claim("the soft mean is better than the minimum", SOFT_MEAN, "sqn", "classic_control"),
    Claim("the soft mean is better with its own τ", TUNED_MEAN, SOFT_MEAN, "classic_control"),
]
ALPHA = [
    Claim("α is better learned than small", "sqn", "sqn, small α", "classic_control"),
    Claim("α is better learned than large", "sqn", "sqn, large α", "classic_control"),
    Claim("targets are better averaged than copied", "sqn", "sqn, periodic targets", "classic_control"),
]


def verdict(found: Estimate, least: float = 0.5) -> str:
    """What P(improvement), with its interval, says of the claim that it is at least ``least``.

    Confirmed: it is, and the interval is above one half. Refuted: the interval is below ``least``.
    """
    if found.value >= least and found.low > 0.5:
        return "confirmed"
    return "refuted" if found.high < least else "undecided"


def verdict_of_difference(found: Estimate) -> str:
    """What a difference of spreads says of the claim that it is negative."""
    return "confirmed" if found.high < 0 else "refuted" if found.low > 0 else "undecided"


def spread(scores: Sequence[np.ndarray]) -> np.ndarray:
    """The standard deviation over seeds, averaged over tasks."""
    return np.mean([each.std(-1) for each in scores], axis=0)


def more_spread(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> np.ndarray:
    """How much larger the spread of x is."""
    return spread(x) - spread(y)


def sections(areas: Mapping[str, Scores], finals: Mapping[str, Scores]) -> Iterator[str]:
    """What the runs say of each claim.

    Args:
        areas: by family, of every agent that was run on all its tasks.
        finals: the same, of the last weights' greedy episodes.
    """
    yield "## Claims"
    yield (
        "Fixed before the runs. Confirmed: P(improvement) is as large as claimed and its 95 % interval above "
        "one half; refuted: the interval is below what is claimed; else undecided. Of a spread: the interval "
        "of the difference is below, or above, 0."
    )
    lines = []
    for claim in (PRIMARY, ASKED, *DEFAULTS, *ALPHA):
        scores = areas.get(claim.family, {})
        if _can_compare(scores, claim.agent, claim.other):
            found = estimate(probability_of_improvement, scores[claim.agent], scores[claim.other])
            who = f"`{claim.agent}` against `{claim.other}`, {claim.family}"
            lines.append(
                [claim.what, who, f"≥ {claim.least:g}", interval(found), verdict(found, claim.least)]
            )
    yield table(["claim", "agents", "claimed", "P(improvement), area", "verdict"], lines)
    if any(_can_compare(each, "sqn", other) for each in areas.values() for other in BASELINES):
        yield from _of_the_paper(areas, finals)


def _can_compare(scores: Scores, agent: str, other: str) -> bool:
    return agent in scores and other in scores and enough(scores[agent], scores[other])


def _of_the_paper(areas: Mapping[str, Scores], finals: Mapping[str, Scores]) -> Iterator[str]:
    yield "### The paper's agent against each baseline"
    yield (
        "The paper claims that SQN, here `sqn`, learns faster (area), ends higher (final), and is steadier "
        "over seeds (spread: the standard deviation of final scores over seeds, double DQN's mean being 1)."
    )
    heads, lines = ["against"], {other: [f"`{other}`"] for other in BASELINES}
    for family in areas:
        if not any(_can_compare(areas[family], "sqn", other) for other in BASELINES):
            continue
        heads += [f"{family}: {what}" for what in ("area", "final", "spread")]
        for other, line in lines.items():
            for scores in (areas[family], finals[family]):
                line.append(_cell(scores, other))
            line.append(_cell_of_spread(finals[family], other))
    yield table(heads, list(lines.values()))


def _cell(scores: Scores, other: str) -> str:
    if not _can_compare(scores, "sqn", other):
        return "–"
    found = estimate(probability_of_improvement, scores["sqn"], scores[other])
    return f"{interval(found)} {verdict(found)}"


def _cell_of_spread(scores: Scores, other: str) -> str:
    if not _can_compare(scores, "sqn", other):
        return "–"
    found = estimate(more_spread, scores["sqn"], scores[other])
    return f"{interval(found)} {verdict_of_difference(found)}"
