"""The effect of each part: trains every variant of a table with every seed, and writes the table.

    python tests/benchmarks/learning.py cartpole
    python tests/benchmarks/learning.py acrobot --seeds 5

Two runs at a time, one thread each. Every finished run adds a line to ``docs/results/raw/<table>.jsonl`` and
rewrites ``docs/results/<table>.md``. Runs that have a line are not run again:
delete the file to start over.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

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
    note: str = ""
    """What else a reader must know."""


def own_recipes() -> list[str]:
    """All recipes but those of the paper, which are for Atari."""
    return sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem != "sqn_paper")


BEFORE_THE_MEAN = (
    "\nThe runs of SQN precede [decision 61](../decisions/0061-soft-mean.md): their default was the minimum"
    "\nof the twins, `loss.backup=expected loss.policy_source=q1 actor.policy=q1`.\n"
)

TABLES = {
    "cartpole": Table(
        "CartPole-v1, 50,000 steps",
        ("env=cartpole", "steps=50000"),
        {name: (f"recipe={name}",) for name in own_recipes()},
        wanted=475,
        note=BEFORE_THE_MEAN,
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
        note=BEFORE_THE_MEAN,
    ),
    "levers": Table(
        "Do faster updates learn the same? CartPole-v1, 25,000 steps, MLP 400-300",
        ("recipe=sqn", "env=cartpole", "steps=25000", "hidden=[400,300]"),
        {
            "plain": ("compile=never", "precision=fp32"),
            "compiled": ("compile=always", "precision=fp32"),
            "bfloat16 encoders": ("compile=never", "precision=bf16"),
        },
        wanted=475,
        note=BEFORE_THE_MEAN,
    ),
    "retrace": Table(
        "Five-step targets with four actors and old weights: Acrobot-v1, 50,000 steps",
        (
            *("env=acrobot", "steps=50000", "loss.backup=expected_mean", "loss.policy_source=target_mean"),
            *("actor.policy=mean", "collect=inline", "collect.actors=4", "collect.rows=50", "num_envs=2"),
            "collect.ladder=4",
        ),
        {
            "one step": ("returns=one_step",),
            "n-step, not corrected": ("returns=n_step", "returns.n=5", "returns.soft=false"),
            "tree backup": ("returns=tree_backup", "returns.n=5"),
            "Retrace": ("returns=retrace", "returns.n=5"),
        },
        wanted=-100,
    ),
}


def train(table: str, variant: str, seed: int) -> dict[str, Any]:
    """Make one run, in its own process, and return the numbers that are kept."""
    with TemporaryDirectory() as folder:
        out = Path(folder, "run")
        overrides = [*TABLES[table].task, *TABLES[table].variants[variant], f"seed={seed}", f"out={out}"]
        code = "from sqn_rl.cli.run import main; raise SystemExit(main())"
        command = [sys.executable, "-c", code, *overrides]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{variant}, seed {seed}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        summary = json.loads(out.joinpath("summary.json").read_text())
        evaluation = json.loads(out.joinpath("evaluations.jsonl").read_text().splitlines()[-1])
    print(f"{variant}, seed {seed}: {evaluation['mean']:.1f}", flush=True)
    return {"variant": variant, **{name: summary[name] for name in KEPT}, "evaluation": evaluation}


def markdown(name: str, rows: list[dict[str, Any]]) -> str:
    """The table of the finished runs, the best first."""
    table = TABLES[name]
    seeds = sorted({row["seed"] for row in rows})
    heads = ["variant", "overrides", *(f"seed {seed}" for seed in seeds), "mean ± std", "solved", "steps/s"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(seeds) + 3)]
    runs = {variant: [row for row in rows if row["variant"] == variant] for variant in table.variants}
    runs = {variant: finished for variant, finished in runs.items() if finished}
    scores = {
        variant: {row["seed"]: row["evaluation"]["mean"] for row in finished}
        for variant, finished in runs.items()
    }
    for variant, by_seed in sorted(scores.items(), key=lambda item: -mean(item[1].values())):
        values = list(by_seed.values())
        spread = f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
        solved = sum(value >= table.wanted for value in values)
        speed = median(row["steps_per_s"] for row in runs[variant])
        cells = [f"{by_seed[seed]:.1f}" if seed in by_seed else "–" for seed in seeds]
        ends = [spread, f"{solved} of {len(values)}", f"{speed:,.0f}"]
        lines.append(
            "| " + " | ".join([variant, f"`{' '.join(table.variants[variant])}`", *cells, *ends]) + " |"
        )
    return "\n".join(lines)


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write the page."""
    table = TABLES[name]
    text = f"""# {table.title}

    python tests/benchmarks/learning.py {name}

All runs have `{" ".join(table.task)}`. Scores are greedy means of 20 full episodes with the last weights;
± is the standard deviation over seeds; solved is {table.wanted:g} or more; – was not run. steps/s is the
median of runs that shared the machine with others, and no measure of speed.
{table.note}
"""
    (RESULTS / f"{name}.md").write_text(f"{text}{markdown(name, rows)}\n")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, default=3, help="0 to this many")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    name, raw = arguments.table, RESULTS / "raw" / f"{arguments.table}.jsonl"
    rows = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []
    done = {(row["variant"], row["seed"]) for row in rows}
    jobs = [(variant, seed) for seed in range(arguments.seeds) for variant in TABLES[name].variants]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        running = [pool.submit(train, name, *job) for job in jobs if job not in done]
        for run in as_completed(running):
            rows.append(run.result())
            with raw.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            write(name, rows)
    write(name, rows)
    print(markdown(name, rows))


if __name__ == "__main__":
    main()
