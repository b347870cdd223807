"""The page of speeds, made from the measured numbers."""

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from race import Contender
from works import KINDS, ROWS

NOTES = "## Reading it\n"
"""The heading after which the page is written by hand."""
LIMITS = {
    "memory": 9,
    "`sqn-list`": 1,
    "`sqn-run` to its first environment step": 3,
    "`sqn-run` to its first compiled update, where one was compiled before": 6,
}
"""GB and seconds."""
BIG_LIMITS = {"sqn-compare of 1,000 runs": (20, 1000)}
"""Seconds and MB."""
TWO_JOBS = 1.8
"""How many times as fast two jobs at once are to be."""

Races = dict[tuple[str, str], dict[str, Contender]]
"""By name and kind of processor, those measured last at the end."""


def by_hand(path: Path) -> str:
    """The part of the page that is written by hand."""
    return path.read_text().partition(NOTES)[2] if path.exists() else ""


def page(raw: dict[str, Any], big: dict[str, Any], notes: str) -> str:
    """The whole page.

    Args:
        raw: as in ``speed.json``.
        big: the rows of ``big.json``.
        notes: its end.
    """
    machines = list(dict.fromkeys(each["machine"] for each in raw.values()))
    measured = [
        f"- {', '.join(split(name))}: {each['date']}, {each['rounds']} rounds, `{each['revision']}`"
        f", machine {1 + machines.index(each['machine'])}"
        for name, each in raw.items()
    ]
    return f"""# Speed

Speed compared with other programs and with the minimum of work, as `make bench` measures it. Ratios are
medians over rounds, with their range; speeds of different machines cannot be compared.

{tables(raw, big)}

## How it was measured

Each program runs in its own process, and the programs take turns: in every round each runs a leg of a
fixed number of environment steps, so that a slow minute of the machine affects all. The first leg of each,
with warm-up and compilation, does not count. Speeds are medians over rounds; ratios are medians over rounds
of legs of the same round. The raw numbers are in [`raw/speed.json`](raw/speed.json):

{_lines(measured)}

{_lines(f"{number}. {each}." for number, each in enumerate(machines, 1))}

{NOTES}{notes}"""


def split(name: str) -> tuple[str, str]:
    """The name of a race, and the kind of processor, of what ``speed.json`` calls it."""
    race, _, kind = name.rpartition(" | ")
    return race, kind


def _newest(races: Races, name: str) -> dict[str, Contender] | None:
    return next((each for (race, _), each in reversed(races.items()) if race == name), None)


def _lines(each: Iterable[str]) -> str:
    return "\n".join(each)


def tables(raw: dict[str, Any], big: dict[str, Any]) -> str:
    """The tables of all that was measured."""
    newest_last = sorted(raw.items(), key=lambda item: item[1]["date"])
    races = {
        split(name): {who: Contender(**each) for who, each in race["contenders"].items()}
        for name, race in newest_last
        if "contenders" in race
    }
    limits = _of_memory(races)
    for name, each in newest_last:
        kind = split(name)[1]
        limits += _of_starts(each.get("seconds", {}), kind)
        limits += [_of_sweeps(each["sweeps"], kind)] if "sweeps" in each else []
    limits += _of_big(big)
    of_limits = _table("|measured|wanted|met", limits)
    parts = [_ratios(races), of_limits, _checks(races), _compiling(races)]
    return "\n\n".join(part for part in parts if part)


def _ratios(races: Races) -> str:
    rows = []
    for row in ROWS:
        if isinstance(row.wanted, tuple):
            rows += [row.cells(races.get((row.race, kind)), kind) for kind in KINDS]
        elif newest := _newest(races, row.race):
            rows.append(row.cells(newest))
    return _table("work|ours|steps/s|peer|steps/s|ours ÷ peer|wanted|met", rows)


def _of_memory(races: Races) -> list[list[str]]:
    if not (memory := _newest(races, "memory")):
        return []
    peak = max(leg["memory"] for leg in memory["pixels, 1,000,000"].legs) / 1e9
    name = "memory of Pong pixels with a full replay of 1,000,000"
    return [[name, f"{peak:.2f} GB", *_verdict(peak, LIMITS["memory"], "GB")]]


def _of_starts(seconds: dict[str, list[float]], kind: str) -> list[list[str]]:
    rows = []
    for name, times in seconds.items():
        spread = f"{median(times):.2f} s ({min(times):.2f}–{max(times):.2f})"
        verdict = _verdict(median(times), LIMITS[name], "s") if name in LIMITS else ["", ""]
        rows.append([f"{name}, {kind}", spread, *verdict])
    return rows


def _of_sweeps(seconds: dict[str, list[float]], kind: str) -> list[str]:
    one, two = seconds["1"], seconds["2"]
    ratios = sorted(a / b for a, b in zip(one, two, strict=True))
    spread = (
        f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}); {median(one):.0f} and {median(two):.0f} s"
    )
    met = "yes" if median(ratios) >= TWO_JOBS else "**no**"
    name = f"ten runs of CartPole by `sqn-ablate`, two at once or one, {kind}"
    return [name, spread, f"≥ {TWO_JOBS:.2f}", met]


def _of_big(big: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, row in big.items():
        limits = BIG_LIMITS.get(name)
        wanted = f"≤ {limits[0]} s, ≤ {limits[1]:,} MB" if limits else ""
        met = limits and row["seconds"] <= limits[0] and row["MB"] <= limits[1]
        rows.append(
            [
                name,
                f"{row['seconds']} s, {row['MB']:,} MB",
                wanted,
                "yes" if met else "**no**" if limits else "",
            ]
        )
    return rows


def _verdict(value: float, wanted: float, unit: str) -> list[str]:
    return [f"≤ {wanted:g} {unit}", "yes" if value <= wanted else "**no**"]


def _checks(races: Races) -> str:
    """The speed of each program, and the counts that show that all do the same work."""
    rows = []
    for (name, kind), race in races.items():
        for who, contender in race.items():
            legs, speeds = contender.legs[1:], contender.speeds
            updates = sum(leg["updates"] for leg in legs) / sum(leg["steps"] for leg in legs)
            spread = f"{contender.speed:,.0f} ({min(speeds):,.0f}–{max(speeds):,.0f})"
            score = legs[-1]["return"]
            rows.append(
                [f"{name}, {kind}", who, spread, f"{updates:.3f}", "" if score is None else f"{score:.0f}"]
            )
    return _table("race|contender|steps/s (range)|updates per step|return, last 20 episodes", rows)


def _compiling(races: Races) -> str:
    """Seconds of compilation, from the first legs, and the steps after which it is faster in total."""
    rows = []
    for (name, kind), race in races.items():
        for who, compiled in race.items():
            if eager := race.get(f"{who}, eager"):
                saved = 1 / eager.speed - 1 / compiled.speed
                first, other = compiled.legs[0], eager.legs[0]
                seconds = first["seconds"] - other["seconds"] + first["steps"] * saved
                steps = f"{seconds / saved:,.0f}" if saved > 0 else "never"
                rows.append([f"{name}, {kind}", who, f"{seconds:.0f} s", steps])
    return _table("race|contender|compilation|faster in total after steps", rows)


def _table(heads: str, rows: list[list[str]]) -> str:
    """A Markdown table; empty if there are no rows."""
    cells = [heads.split("|"), ["---"] * (1 + heads.count("|")), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) if rows else ""
