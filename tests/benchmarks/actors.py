"""What actors cost: µs of CPU a transition, of all processes, above those in one process; ms for weights.

    python tests/benchmarks/actors.py > docs/results/raw/actors.json

Environments cost nothing, actions are random, and there are no updates: what is left is the handing over.
"""

import json
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from sqn_rl import compose
from sqn_rl.parts.collect.ray import RayEngine
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.types import Request

STILL = Path(__file__).parent / "still.py"
ENVS, ROWS, ACTORS = 8, 200, 2
TURNS = {"ram": (10, 130), "pixels": (4, 40)}
"""Chunks before the measurement begins, and until it ends."""
NUMBERS, TIMES = 3_400_000, 20


def cpu_seconds() -> float:
    """Of this process and its descendants."""
    stats = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stats[int(folder.name)] = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
    ours, found = {os.getpid()}, True
    while found:
        found = {pid for pid, stat in stats.items() if int(stat[1]) in ours} - ours
        ours |= found
    ticks = sum(int(stats[pid][11]) + int(stats[pid][12]) for pid in ours if pid in stats)
    return ticks / os.sysconf("SC_CLK_TCK")


def per_transition(kind: str, collect: str) -> dict[str, float]:
    """µs of CPU a transition, and transitions a second."""
    first, last = TURNS[kind]
    chunk, seen = ENVS * ROWS, list[tuple[float, float]]()
    overrides = ["env=cartpole", "env._target_=still.StillEnv", f"env.kind={kind}", f"num_envs={ENVS}"]
    overrides += ["encoder=nature_cnn"] if kind == "pixels" else []
    overrides += [f"collect={collect}", f"collect.actors={ACTORS}", f"collect.rows={ROWS}", "hidden=[32]"]
    overrides += ["replay_capacity=20000", f"steps={last * chunk}", "warmup_steps=100000000"]
    overrides += ["checkpoint_every=0", "eval_episodes=1", "eval_max_steps=1", "compile=never"]

    def should_stop() -> bool:
        seen.append((cpu_seconds(), time.perf_counter()))
        return len(seen) >= last

    with TemporaryDirectory() as folder:
        catalogue = Catalogue(trust=[str(STILL)])
        compose("sqn", *overrides, f"out={folder}/run", catalogue=catalogue).train(should_stop=should_stop)
    (cpu, wall), (cpu_end, wall_end) = seen[first], seen[-1]
    transitions = (len(seen) - 1 - first) * chunk
    return {"us": 1e6 * (cpu_end - cpu) / transitions, "per_s": transitions / (wall_end - wall)}


class Holder:
    """A worker that does nothing but hold the weights."""

    def collect(self, weights: np.ndarray, request: Request) -> Any:
        return int(weights[0]) + int(weights[-1]), None

    def restore(self, state: Any) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Nothing to close."""


def weights_ms() -> float:
    """From publishing until two actors hold the weights, median."""
    engine, weights, taken = RayEngine(None), np.ones(4 * NUMBERS, np.uint8), list[float]()
    engine.start(lambda actor: Holder(), ACTORS)
    try:
        for serial in range(TIMES):
            began = time.perf_counter()
            published = engine.publish(weights)
            request = Request(serial, serial, 0, False, False)
            for ticket in [engine.ask(actor, published, request) for actor in range(ACTORS)]:
                engine.result(ticket)
            taken.append(1000 * (time.perf_counter() - began))
    finally:
        engine.close()
    return statistics.median(taken)


def main() -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {"rows": ROWS, "envs": ENVS, "actors": ACTORS}
    for kind in TURNS:
        found = {collect: per_transition(kind, collect) for collect in ("inline", "ray")}
        results[kind] = {
            **{
                collect: {name: round(value, 1) for name, value in row.items()}
                for collect, row in found.items()
            },
            "above_inline_us": round(found["ray"]["us"] - found["inline"]["us"], 1),
        }
    results["weights"] = {"numbers": NUMBERS, "ms": round(weights_ms(), 1)}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
