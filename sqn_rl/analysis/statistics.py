"""Statistics of a few runs: averages, probability of improvement, profiles, areas, and bootstrap intervals.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Shapes: N
runs of a variant, M of another, R resamples, T thresholds or evaluations. The scores of a variant are a list
with an array ``[..., N]`` for each environment, as runs are resampled only within an environment.
"""

from collections.abc import Callable, Sequence
from math import comb, prod
from typing import Any, NamedTuple

import numpy as np

from sqn_rl.training.evaluation import interquartile_mean

Scores = Sequence[np.ndarray]

RESAMPLES = 10_000
PERMUTATIONS = 20_000
AT_ONCE = 2**20
"""The most resampled numbers that are in memory at once."""
SEED = 0
"""The seed of every bootstrap, so that the same scores always have the same interval."""


class Estimate(NamedTuple):
    """A statistic of the runs, and its 95 % bootstrap interval."""

    value: Any
    low: Any
    high: Any


def mean(scores: Scores) -> np.ndarray:
    """The mean over environments of the mean over runs. Shape ``[...]``."""
    return np.mean([each.mean(-1) for each in scores], axis=0)


def median(scores: Scores) -> np.ndarray:
    """The median over environments of the mean over runs; with one environment, the median over runs."""
    if len(scores) == 1:
        return np.median(scores[0], axis=-1)
    return np.median([each.mean(-1) for each in scores], axis=0)


def iqm(scores: Scores) -> np.ndarray:
    """The interquartile mean: the mean of the middle half of the runs of all environments."""
    return interquartile_mean(np.concatenate(scores, axis=-1))


def profile(scores: Scores, thresholds_T: np.ndarray) -> np.ndarray:
    """The fraction of runs that score more than each threshold. Shape ``[..., T]``."""
    runs = np.concatenate(scores, axis=-1)
    return np.stack([(runs > threshold).mean(-1) for threshold in thresholds_T], axis=-1)


def probability_of_improvement(x: Scores, y: Scores) -> np.ndarray:
    """P(X > Y) + ½ P(X = Y) for a run of each in the same environment, averaged over environments."""
    return np.mean([_chance_of_more(a, b) for a, b in zip(x, y, strict=True)], axis=0)


def _chance_of_more(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P(X > Y) + ½ P(X = Y) for numbers of x and y. ``[..., N]``, ``[..., M]`` → ``[...]``.

    The numbers of y are sorted, as all pairs of some hundred resampled runs would fill the memory.
    """
    shape = x.shape[:-1]
    rows = np.arange(prod(shape))[:, None]
    ranks = np.unique(np.concatenate([x.ravel(), y.ravel()]), return_inverse=True)[1]
    ranks = ranks.reshape(-1)
    x_RN, y_RM = (each.reshape(len(rows), -1) for each in (ranks[: x.size], ranks[x.size :]))
    above = rows * (ranks.max() + 1)  # puts the numbers of each row above those of the row before
    sorted_y = np.sort(y_RM + above).ravel()
    below, up_to = (np.searchsorted(sorted_y, x_RN + above, side) for side in ("left", "right"))
    wins = (below + up_to) / 2 - rows * y_RM.shape[1]
    return (wins.mean(-1) / y_RM.shape[1]).reshape(shape)


def area_under_curve(steps_T: np.ndarray, values_T: np.ndarray) -> float:
    """The area under straight lines between the points, divided by its width: an average of the values.

    Args:
        steps_T: increasing; at least two.
        values_T: the value at each.
    """
    return float(np.trapezoid(values_T, steps_T) / (steps_T[-1] - steps_T[0]))


def chance_of_separation(x: Scores, y: Scores) -> float:
    """The probability that all runs of one of two equal variants beat all of the other, in all environments.

    2 / Π C(N + M, N): of all ways to assign N + M ranks to the two, two separate them. If it is above 5 %, no
    result can tell the two apart.
    """
    return 2 / prod(comb(a.shape[-1] + b.shape[-1], a.shape[-1]) for a, b in zip(x, y, strict=True))


def permutation_p(x: Scores, y: Scores) -> float:
    """How often P(improvement) is as far from one half if the runs of each environment are dealt out anew.

    The p-value of a two-sided permutation test of :data:`PERMUTATIONS` random deals, with the usual one added
    to both counts, so that it is never 0. It is valid for any number of runs, as :func:`estimate` is not.

    Args:
        x: the scores ``[N]`` of a variant in each environment.
        y: those ``[M]`` of the other.
    """
    generator = np.random.default_rng(SEED)
    sizes = [(len(a), len(b)) for a, b in zip(x, y, strict=True)]
    ranks = [_midranks(np.concatenate([a, b])) for a, b in zip(x, y, strict=True)]

    def distances(ranks: Scores) -> np.ndarray:
        pairs = zip(ranks, sizes, strict=True)
        wins = [(each[..., :n].sum(-1) - n * (n + 1) / 2) / (n * m) for each, (n, m) in pairs]
        return np.abs(np.mean(wins, axis=0) - 0.5)

    observed = distances(ranks) - 1e-12
    step, as_far = max(1, AT_ONCE // sum(map(len, ranks))), 0
    for begin in range(0, PERMUTATIONS, step):
        deals = min(step, PERMUTATIONS - begin)
        dealt = [generator.permuted(np.tile(each, (deals, 1)), axis=1) for each in ranks]
        as_far += int((distances(dealt) >= observed).sum())
    return (1 + as_far) / (1 + PERMUTATIONS)


def _midranks(scores: np.ndarray) -> np.ndarray:
    """The rank of each score, from 1 on; equal scores have the mean of theirs. Shape ``[N]``.

    The ranks of N of N + M runs add up to NM (P(X > Y) + ½ P(X = Y)) + N (N + 1) / 2 (Mann and Whitney 1947).
    """
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def estimate(statistic: Callable[..., np.ndarray], *samples: Scores, resamples: int = RESAMPLES) -> Estimate:
    """A statistic with its 95 % stratified percentile bootstrap interval.

    A resample draws as many runs as there are, with replacement, from each environment of each sample. If a
    sample has a single run in an environment, the interval is NaN: resampling cannot show how much it varies.

    Args:
        statistic: a function of the scores of all ``samples``; it supports leading axes.
        samples: the scores ``[N]`` of each variant.
        resamples: R, the number of resamples.
    """
    if any(len(each) < 2 for scores in samples for each in scores):
        return Estimate(value := statistic(*samples), value * np.nan, value * np.nan)
    generator = np.random.default_rng(SEED)
    indices = [[generator.integers(len(x), size=(resamples, len(x))) for x in scores] for scores in samples]

    def of_resamples(rows: slice) -> np.ndarray:
        resampled = (
            [x[index_RN[rows]] for x, index_RN in zip(scores, own_indices, strict=True)]
            for scores, own_indices in zip(samples, indices, strict=True)
        )
        return statistic(*resampled)

    step = max(1, AT_ONCE // sum(len(x) for scores in samples for x in scores))
    drawn = np.concatenate([of_resamples(slice(i, i + step)) for i in range(0, resamples, step)])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return Estimate(statistic(*samples), low, high)
