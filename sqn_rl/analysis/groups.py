"""Group runs by environment and variant, and check that they are comparable."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqn_rl.analysis.finished import ComparisonError, FinishedRun
from sqn_rl.recipe.resolved import Sourced, differences

Groups = Mapping[str, Mapping[str, Sequence[FinishedRun]]]
"""Environment → variant → its runs, by seed."""


class Labels:
    """Names of variants: the recipe, and the overrides that not all variants share.

    Args:
        runs: all runs to compare.
    """

    def __init__(self, runs: Iterable[FinishedRun]) -> None:
        variants = {run.variant for run in runs}
        overrides = [dict.fromkeys(variant[1:]) for variant in sorted(variants)]
        self.shared = [
            each for each in overrides[0] if len(overrides) > 1 and all(each in other for other in overrides)
        ]
        """The overrides that all variants share, if there are several variants."""

    def __call__(self, run: FinishedRun) -> str:
        """The variant of a run: ``sqn head=dueling``."""
        return " ".join(each for each in run.variant if each not in self.shared)


def group(runs: Iterable[FinishedRun], labels: Labels, first: str | None = None) -> tuple[Groups, list[str]]:
    """Group runs by environment and variant.

    Args:
        runs: in any order.
        labels: the names of the variants.
        first: the variant to name first; the others follow in alphabetical order.

    Returns:
        The groups; and a note for each run that is left out because it repeats a seed.

    Raises:
        ComparisonError: two runs on one environment were evaluated differently, or two of one variant
            differ in parts or values.
    """
    groups: dict[str, dict[str, list[FinishedRun]]] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: (labels(run) != first, labels(run), run.seed, run.resolved.name)):
        by_variant = groups.setdefault(run.environment, {})
        others = [other for runs in by_variant.values() for other in runs]
        for other in others[:1]:
            what = f"were evaluated differently on {run.environment}"
            _require_alike(other, run, what, other.protocol, run.protocol)
        same = by_variant.setdefault(labels(run), [])
        for other in same[:1]:
            what = f"are both `{labels(run)}` on {run.environment}, but differ in parts or values"
            _require_alike(other, run, what, other.ideas, run.ideas)
        if same and same[-1].seed == run.seed:
            repeated.append(
                f"left out: {run.resolved.name}: the same as {same[-1].resolved.name}, seed and all"
            )
        else:
            same.append(run)
    for environment, by_variant in groups.items():
        _require_cut_alike(environment, [run for runs in by_variant.values() for run in runs])
    return dict(sorted(groups.items())), repeated


def _require_alike(
    a: FinishedRun, b: FinishedRun, what: str, in_a: Mapping[str, Sourced], in_b: Mapping[str, Sourced]
) -> None:
    if different := differences(in_a, in_b):
        lines = [f"{a.resolved.name} and {b.resolved.name} {what}:", *(f"  {each}" for each in different)]
        raise ComparisonError("\n".join([*lines, "  compare them separately, or run one of them again"]))


def _require_cut_alike(environment: str, runs: Iterable[FinishedRun]) -> None:
    """Refuse a run whose evaluations cut episodes earlier than those of another run."""
    *others, longest = sorted(runs, key=lambda run: run.longest)
    for run in others:
        if run.cut and run.longest < longest.longest:
            raise ComparisonError(
                f"{run.resolved.name} and {longest.resolved.name} were evaluated differently on "
                f"{environment}:\n  episodes were cut after {run.longest:,} steps in one, and lasted "
                f"{longest.longest:,} in the "
                "other (eval_max_steps)\n  compare them separately, or run one of them again"
            )


def caveats(groups: Groups) -> Iterator[str]:
    """Notes on runs that are missing or differ, although they are comparable."""
    variants = {variant for by_variant in groups.values() for variant in by_variant}
    software = set()
    for environment, by_variant in groups.items():
        runs = [run for runs in by_variant.values() for run in runs]
        software |= {run.software for run in runs}
        if missing := sorted(variants - by_variant.keys()):
            yield f"{environment}: no run of {', '.join(missing)}, so it is in no average over environments"
        if cut := [run for run in runs if run.cut]:
            yield (
                f"{environment}: {sum(run.cut for run in cut)} evaluation episodes, in {len(cut)} of "
                f"{len(runs)} runs, were cut after {cut[0].longest:,} steps: their returns end there"
            )
        if any(len(run.steps) < 2 for run in runs):
            yield f"{environment}: evaluated once, so there is no curve and no area; set eval_every"
    if len(software) > 1:
        yield f"the runs were made by different software: {', '.join(sorted(software))}"
