"""What each part buys: trains every variant of a table with every seed, and writes the table.

    python tests/benchmarks/learning.py cartpole
    python tests/benchmarks/learning.py acrobot --seeds 5

Two runs at a time, one thread each. Runs lie in ``runs/learning/``; those that are done are not run again.
Writes ``docs/results/<table>.md`` and ``docs/results/raw/<table>.jsonl``, one line a run.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
KEPT = ("seed", "env_steps", "updates", "wall_s", "steps_per_s", "git_revision", "versions")


@dataclass(frozen=True)
class Table:
    """Variants that differ by one idea, on one task."""

    title: str
    task: tuple[str, ...]
    variants: dict[str, tuple[str, ...]]
    wanted: float
    """The greedy mean that counts as solved."""


def own_recipes() -> list[str]:
    """Every recipe that is not the paper's, which are for Atari."""
    return sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem != "sqn_paper")


TABLES = {
    "cartpole": Table(
        "CartPole-v1, 50,000 steps",
        ("env=cartpole", "steps=50000"),
        {name: (f"recipe={name}",) for name in own_recipes()},
        wanted=475,
    ),
    "acrobot": Table(
        "Acrobot-v1, 100,000 steps",
        ("env=acrobot", "steps=100000"),
        {
            "sqn": ("recipe=sqn",),
            "noisy layers": ("recipe=sqn_noisy",),
            "3-step returns": ("recipe=sqn_nstep",),
            "prioritized replay": ("recipe=sqn_per",),
            "categorical head": ("recipe=sqn_categorical",),
            "quantile head": ("recipe=sqn_quantile",),
            "annealed target entropy": ("recipe=sqn", "temperature=annealed"),
            "mean of the twins": ("recipe=sqn", "loss.backup=expected_mean"),
        },
        wanted=-100,
    ),
}


def train(table: str, variant: str, seed: int) -> Path:
    """One run, in its own process, unless it is done already; returns its directory."""
    out = ROOT / "runs" / "learning" / table / variant.replace(" ", "_") / f"s{seed}"
    if (
        not (out / "summary.json").exists()
        or json.loads((out / "summary.json").read_text())["status"] != "done"
    ):
        said = [*TABLES[table].task, *TABLES[table].variants[variant], f"seed={seed}", f"out={out}"]
        command = [sys.executable, "-c", "from sqn_rl.cli.run import main; raise SystemExit(main())", *said]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{variant}, seed {seed}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    print(f"{variant}, seed {seed}: {final(out)['mean']:.1f}", flush=True)
    return out


def final(out: Path) -> dict:
    """The last evaluation of a run."""
    return json.loads(out.joinpath("evaluations.jsonl").read_text().splitlines()[-1])


def row(variant: str, out: Path) -> dict:
    """What is kept of a run."""
    summary = json.loads(out.joinpath("summary.json").read_text())
    return {"variant": variant, **{name: summary[name] for name in KEPT}, "evaluation": final(out)}


def markdown(name: str, rows: list[dict]) -> str:
    """The table, the best first."""
    table = TABLES[name]
    seeds = sorted({each["seed"] for each in rows})
    lines = [
        "| variant | overrides | "
        + " | ".join(f"seed {seed}" for seed in seeds)
        + " | mean ± std | solved | steps/s |",
        "|---|---|" + "---:|" * (len(seeds) + 3),
    ]
    scores = {
        variant: {each["seed"]: each["evaluation"]["mean"] for each in rows if each["variant"] == variant}
        for variant in table.variants
    }
    for variant, by_seed in sorted(scores.items(), key=lambda item: -mean(item[1].values())):
        speed = median(each["steps_per_s"] for each in rows if each["variant"] == variant)
        values = list(by_seed.values())
        spread = f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"
        solved = sum(value >= table.wanted for value in values)
        said = " ".join(table.variants[variant])
        cells = [f"{by_seed[seed]:.1f}" for seed in seeds]
        ends = [spread, f"{solved} of {len(values)}", f"{speed:,.0f}"]
        lines.append("| " + " | ".join([variant, f"`{said}`", *cells, *ends]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, default=3, help="0 to this many")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    name, table = arguments.table, TABLES[arguments.table]
    jobs = [(variant, seed) for seed in range(arguments.seeds) for variant in table.variants]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        outs = list(pool.map(lambda job: train(name, *job), jobs))
    rows = [row(variant, out) for (variant, _), out in zip(jobs, outs, strict=True)]
    (RESULTS / "raw" / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    text = f"""# {table.title}

    python tests/benchmarks/learning.py {name} --seeds {arguments.seeds}

Common to all: `{" ".join(table.task)}`. Greedy mean of 20 full games with the last weights; ± is the standard
deviation over seeds; solved is {table.wanted:g} or more. steps/s is the median of runs that shared the
machine with others: it says little about speed.

"""
    (RESULTS / f"{name}.md").write_text(f"{text}{markdown(name, rows)}\n")
    print(markdown(name, rows))


if __name__ == "__main__":
    main()
