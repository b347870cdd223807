"""How the cost grows: steps a second against environments, width, batch and replay.

    python tests/benchmarks/growth.py

The recipe ``sqn`` on CartPole with 8 environments, an update for every four steps, batch 64 and two layers of
128; one thread, compiled. One of these changes at a time, and all points of a curve take turns. Writes
``docs/results/growth.png`` and ``docs/results/raw/growth.json``. Some minutes.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine, revision
from matplotlib import pyplot
from race import Contender, race
from works import ours

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
WORK = "env=cartpole num_envs=8 update_ratio=0.25 batch_size=64 warmup_steps=256 hidden=[128,128]"
CURVES: dict[str, dict[int, list[str]]] = {
    "environments": {n: [f"num_envs={n}"] for n in (1, 2, 4, 8, 16, 32, 64)},
    "width of both layers": {width: [f"hidden=[{width},{width}]"] for width in (32, 64, 128, 256, 512, 1024)},
    "batch": {batch: [f"batch_size={batch}"] for batch in (16, 32, 64, 128, 256, 512)},
    "transitions in the replay": {
        capacity: ["replay._target_=filled_replay.FilledReplay", f"replay.capacity={capacity}"]
        for capacity in (1_000, 10_000, 100_000, 1_000_000)
    },
}
LEG = 1024
"""Environment steps, a multiple of every number of environments."""


def curve(points: dict[int, list[str]], rounds: int) -> dict[int, Contender]:
    """Race the points of a curve."""
    contenders = {point: ours(WORK, *overrides) for point, overrides in points.items()}
    race({str(point): each for point, each in contenders.items()}, leg=LEG, rounds=rounds, threads=1)
    return contenders


def draw(raw: dict[str, Any]) -> None:
    """A panel each: the median of the rounds, and their range."""
    figure, panels = pyplot.subplots(1, len(CURVES), figsize=(14, 3.4), sharey=True, layout="constrained")
    for panel, (name, points) in zip(panels, raw["curves"].items(), strict=True):
        x = [int(point) for point in points]
        low, middle, high = zip(*[(min(s), median(s), max(s)) for s in points.values()], strict=True)
        panel.fill_between(x, low, high, alpha=0.2, linewidth=0)
        panel.plot(x, middle, marker="o")
        panel.set(
            xscale="log", yscale="log", xlabel=name, xticks=x, xticklabels=[f"{point:,}" for point in x]
        )
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    speeds = [100, 200, 500, 1000, 2000, 5000, 10000]
    low, high = panels[0].get_ylim()
    panels[0].set(yticks=speeds, yticklabels=[f"{speed:,}" for speed in speeds], ylim=(low, high))
    panels[0].set_ylabel("environment steps a second")
    figure.savefig(RESULTS / "growth.png", dpi=100)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    raw: dict[str, Any] = {"machine": machine(), "revision": revision(), "work": WORK, "curves": {}}
    for name, points in CURVES.items():
        raced = curve(points, rounds)
        raw["curves"][name] = {
            str(point): [round(speed) for speed in each.speeds] for point, each in raced.items()
        }
    (RESULTS / "raw" / "growth.json").write_text(json.dumps(raw, indent=1) + "\n")
    draw(raw)


if __name__ == "__main__":
    main()
