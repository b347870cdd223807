"""Which runs belong together, and whether they may be compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqn_rl.analysis.finished import ComparisonError, FinishedRun
from sqn_rl.recipe.resolved import Sourced, differences

Groups = Mapping[str, Mapping[str, Sequence[FinishedRun]]]
"""Environment → variant → its runs, by seed."""


class Labels:
    """What the variants are called: the recipe, and what was said over it that was not said of all alike.

    Args:
        runs: all that are compared.
    """

    def __init__(self, runs: Iterable[FinishedRun]) -> None:
        variants = {run.variant for run in runs}
        said = [dict.fromkeys(variant[1:]) for variant in sorted(variants)]
        self.shared = [each for each in said[0] if len(said) > 1 and all(each in other for other in said)]
        """What was said of all alike, if there are several."""

    def __call__(self, run: FinishedRun) -> str:
        """The variant of a run: ``sqn head=dueling``."""
        return " ".join(each for each in run.variant if each not in self.shared)


def group(runs: Iterable[FinishedRun], labels: Labels, first: str | None = None) -> tuple[Groups, list[str]]:
    """Group runs by environment and variant.

    Args:
        runs: in any order.
        labels: what the variants are called.
        first: the variant to name first; the others follow in alphabetical order.

    Returns:
        The groups; and of runs that repeat a seed, which say nothing new and are left out, a note.

    Raises:
        ComparisonError: two runs on one environment were not measured alike, or two of one variant are not
            made of the same parts and values.
    """
    groups: dict[str, dict[str, list[FinishedRun]]] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: (labels(run) != first, labels(run), run.seed, run.settled.name)):
        by_variant = groups.setdefault(run.environment, {})
        others = [other for runs in by_variant.values() for other in runs]
        for other in others[:1]:
            what = f"were not measured alike on {run.environment}"
            _require_alike(other, run, what, other.protocol, run.protocol)
        same = by_variant.setdefault(labels(run), [])
        for other in same[:1]:
            what = f"are both `{labels(run)}` on {run.environment}, but not made alike"
            _require_alike(other, run, what, other.ideas, run.ideas)
        if same and same[-1].seed == run.seed:
            repeated.append(
                f"left out: {run.settled.name}: the same as {same[-1].settled.name}, seed and all"
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
        lines = [f"{a.settled.name} and {b.settled.name} {what}:", *(f"  {each}" for each in different)]
        raise ComparisonError("\n".join([*lines, "  compare them apart, or run one of them again"]))


def _require_cut_alike(environment: str, runs: Iterable[FinishedRun]) -> None:
    """Refuse a run whose evaluations cut games that another run's evaluations would have let go on."""
    *others, longest = sorted(runs, key=lambda run: run.longest)
    for run in others:
        if run.cut and run.longest < longest.longest:
            raise ComparisonError(
                f"{run.settled.name} and {longest.settled.name} were not measured alike on {environment}:\n"
                f"  games were cut after {run.longest:,} steps in one, and lasted {longest.longest:,} in the "
                "other (eval_max_steps)\n  compare them apart, or run one of them again"
            )


def caveats(groups: Groups) -> Iterator[str]:
    """What is missing, or was not the same, although the runs may be compared."""
    variants = {variant for by_variant in groups.values() for variant in by_variant}
    software = set()
    for environment, by_variant in groups.items():
        runs = [run for runs in by_variant.values() for run in runs]
        software |= {run.software for run in runs}
        if missing := sorted(variants - by_variant.keys()):
            yield f"{environment}: no run of {', '.join(missing)}, so it is in no average over environments"
        if cut := [run for run in runs if run.cut]:
            yield (
                f"{environment}: {sum(run.cut for run in cut)} games of evaluations, in {len(cut)} of "
                f"{len(runs)} runs, were cut after {cut[0].longest:,} steps: their returns end there"
            )
        if any(len(run.steps) < 2 for run in runs):
            yield f"{environment}: evaluated once, so there is no curve and no area; set eval_every"
    if len(software) > 1:
        yield f"the runs were made by different software: {', '.join(sorted(software))}"
