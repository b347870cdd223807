"""What actors cost: µs of CPU a transition, of all processes, above those in one process; ms for weights.

And what a replay in shards costs: ms for a batch and its priorities, where one in this process takes less.

    python tests/benchmarks/actors.py > docs/results/raw/actors.json

Environments cost nothing, actions are random, and there are no updates: what is left is the handing over.
"""

import json
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from sqn_rl import OneStep, PrioritizedReplay, ShardedReplay, compose
from sqn_rl.parts.collect.ray import RayEngine
from sqn_rl.types import Chunk, Request

STILL = Path(__file__).parent / "still.py"
ENVS, ROWS, ACTORS = 8, 200, 2
TURNS = {"ram": (10, 130), "pixels": (4, 40)}
"""Chunks before the measurement begins, and until it ends."""
NUMBERS, TIMES = 3_400_000, 20
SHAPES: dict[str, tuple[tuple[int, ...], torch.dtype, int]] = {
    "ram": ((128,), torch.uint8, 1),
    "pixels": ((4, 84, 84), torch.uint8, 4),
}
BATCHES = 200


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
        compose("sqn", *overrides, f"out={folder}/run", trust=[STILL]).train(should_stop=should_stop)
    (cpu, wall), (cpu_end, wall_end) = seen[first], seen[-1]
    transitions = (len(seen) - 1 - first) * chunk
    return {"us": 1e6 * (cpu_end - cpu) / transitions, "per_s": transitions / (wall_end - wall)}


class Held(NamedTuple):
    """A chunk of nothing."""

    summary: int


class Holder:
    """A worker that does nothing but hold the weights."""

    def collect(self, weights: np.ndarray, request: Request) -> Any:
        return Held(int(weights[0]) + int(weights[-1])), None

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


def batch_ms(kind: str, batch_size: int) -> dict[str, float]:
    """To draw a batch and to set its priorities, medians: by two shards, and by a replay in this process."""
    shape, dtype, stack = SHAPES[kind]
    facts: dict[str, Any] = {
        **{"capacity": 4 * ROWS * ENVS * ACTORS, "num_envs": ENVS * ACTORS, "lanes": ACTORS, "steps": 1},
        **{"omega": 0.6, "beta": 0.4, "epsilon": 1e-6, "td_error": "mean", "seed": 0, "device": "cpu"},
        **{"observation_shape": shape, "observation_dtype": dtype, "frame_stack": stack},
        "returns": OneStep(gamma=0.99),
    }
    rows, zero = (ROWS, ENVS), np.zeros((ROWS, ENVS), np.float32)
    frame = shape[1:] if stack > 1 else shape
    over = zero.astype(bool)
    columns = {"reward": zero, "terminated": over, "truncated": over, "ended": over, "score": zero}
    observation = np.zeros((ROWS + 1, ENVS, *frame), torch.empty(0, dtype=dtype).numpy().dtype)
    chunk = Chunk(0, 0, True, observation, np.zeros(rows, np.int64), columns, observation[0, :0], None)
    sharded, plain = ShardedReplay(shards=2, **facts), PrioritizedReplay(**facts)
    engine, found = RayEngine(None), dict[str, float]()
    engine.start(lambda actor: Holder(), 1)
    try:
        sharded.use_host(engine.host(sharded.make_shard, 2))
        for name, replay in {"shards": sharded, "here": plain}.items():
            for serial in range(4 * ACTORS):
                replay.store_chunk(chunk._replace(begins=serial < ACTORS), lane=serial % ACTORS)
            taken = []
            for _ in range(BATCHES):
                began = time.perf_counter()
                batch = replay.draw(batch_size)
                replay.update_priority(batch.place, torch.rand(2, batch_size))
                taken.append(1000 * (time.perf_counter() - began))
            found[name] = round(statistics.median(taken[BATCHES // 4 :]), 2)
    finally:
        engine.close()
    return found


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
    results["batches_ms"] = {f"{kind} {size}": batch_ms(kind, size) for kind in SHAPES for size in (64, 512)}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
