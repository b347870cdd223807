"""Group runs by environment and variant, and check that they are comparable."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from sqn_rl.analysis.finished import ComparisonError, FinishedRun
from sqn_rl.recipe.resolved import Sourced, differences

Groups = Mapping[str, Mapping[str, Sequence[FinishedRun]]]
"""Environment → variant → its runs, by seed."""


class Labels:
    """Names of variants: the recipe, and the overrides that not all variants share.

    If different recipe files have the same file name, recipes are named by their paths.

    Args:
        runs: all runs to compare.
    """

    def __init__(self, runs: Iterable[FinishedRun]) -> None:
        runs = [*runs]
        variants = {run.variant for run in runs}
        self.ambiguous = _ambiguous(runs)
        """The names that several recipe files share."""
        overrides = [dict.fromkeys(variant[1:]) for variant in sorted(variants)]
        self.shared = [
            each for each in overrides[0] if len(overrides) > 1 and all(each in other for other in overrides)
        ]
        """The overrides that all variants share, if there are several variants."""

    def __call__(self, run: FinishedRun) -> str:
        """The variant of a run: ``sqn head=dueling``."""
        name, *overrides = run.variant
        name = run.recipe_file if name in self.ambiguous else name
        return " ".join([name, *(each for each in overrides if each not in self.shared)])


def _ambiguous(runs: Iterable[FinishedRun]) -> set[str]:
    """The names of recipes for which two files gave the same variant different parts or values."""
    names, first_runs = set[str](), dict[tuple[str, ...], FinishedRun]()
    for run in runs:
        first = first_runs.setdefault(run.variant, run)
        is_same_file = first.recipe_file == run.recipe_file
        if not is_same_file and differences(first.variant_values, run.variant_values):
            names.add(run.variant[0])
    return names


def group(runs: Iterable[FinishedRun], labels: Labels, first: str | None = None) -> tuple[Groups, list[str]]:
    """Group runs by environment and variant, and leave out those that do not fit the others.

    On each environment, the runs with the most common evaluation protocol stay; and of each variant, those
    with the most common parts and values.

    Args:
        runs: the runs, in any order.
        labels: the names of the variants.
        first: the variant to name first; the others follow in alphabetical order.

    Returns:
        The groups; and a note for each run that is left out, as it does not fit or repeats a seed. If two
        kinds of runs are equally common, both are left out.

    Raises:
        ComparisonError: nothing is left.
    """
    by_environment: dict[str, list[FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: (labels(run) != first, labels(run), run.seed, run.resolved.name)):
        by_environment.setdefault(run.environment, []).append(run)
    groups, notes, refused = dict[str, dict[str, list[FinishedRun]]](), list[str](), list[ComparisonError]()
    for environment, all_runs in sorted(by_environment.items()):
        what = f"were evaluated differently on {environment}"
        try:
            alike = _most_common(all_runs, lambda run: run.protocol, what, notes)
            alike = _cut_alike(environment, alike, notes)
        except ComparisonError as error:
            refused.append(error)
            continue
        for label in dict.fromkeys(map(labels, alike)):
            same = [run for run in alike if labels(run) == label]
            what = f"are both `{label}` on {environment}, but differ in parts or values"
            try:
                fitting = _most_common(same, lambda run: run.variant_values, what, notes)
            except ComparisonError as error:
                refused.append(error)
                continue
            groups.setdefault(environment, {})[label] = list(_without_repeated_seeds(fitting, notes))
    if not groups:
        raise refused[0]
    notes += [f"left out: {error}" for error in refused]
    return groups, notes


def _most_common(
    runs: Sequence[FinishedRun],
    aspect: Callable[[FinishedRun], Mapping[str, Sourced]],
    what: str,
    notes: list[str],
) -> Sequence[FinishedRun]:
    """The runs whose ``aspect`` is the most common; adds a note for each other run."""
    kinds: list[list[FinishedRun]] = []
    for run in runs:
        same = (kind for kind in kinds if not differences(aspect(kind[0]), aspect(run)))
        kind = next(same, None)
        if kind is None:
            kinds.append([run])
        else:
            kind.append(run)
    most, *others = sorted(kinds, key=len, reverse=True)
    for kind in others:
        a, b = most[0], kind[0]
        different = differences(aspect(a), aspect(b))
        if len(kind) == len(most):
            lines = [f"{a.resolved.name} and {b.resolved.name} {what}:", *(f"  {each}" for each in different)]
            raise ComparisonError("\n".join([*lines, "  compare them separately, or run one of them again"]))
        names = [run.resolved.name for run in kind]
        notes += [f"left out: {each}: {a.resolved.name} and {each} {what}: {different[0]}" for each in names]
    return most


def _cut_alike(environment: str, runs: Sequence[FinishedRun], notes: list[str]) -> Sequence[FinishedRun]:
    """The runs that do not cut episodes earlier than others; adds a note for each run that does."""
    longest = max(runs, key=lambda run: run.longest)
    cut = [run for run in runs if run.cut and run.longest < longest.longest]
    for run in cut:
        pair = f"{run.resolved.name} and {longest.resolved.name} were evaluated differently on {environment}:"
        limits = f"episodes were cut after {run.longest:,} steps in one, "
        limits += f"and lasted {longest.longest:,} in the other"
        if len(cut) >= len(runs) - len(cut):  # those that were cut are not fewer
            hint = "compare them separately, or run one of them again"
            raise ComparisonError(f"{pair}\n  {limits} (eval_max_steps)\n  {hint}")
        notes.append(f"left out: {run.resolved.name}: {pair} {limits}")
    return [run for run in runs if run not in cut]


def _without_repeated_seeds(runs: Iterable[FinishedRun], notes: list[str]) -> Iterator[FinishedRun]:
    """One run for each seed; adds a note for each repeated run."""
    seen: dict[int, FinishedRun] = {}
    for run in runs:
        if run.seed in seen:
            other = seen[run.seed].resolved.name
            notes.append(f"left out: {run.resolved.name}: the same as {other}, seed and all")
        else:
            seen[run.seed] = run
            yield run


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
