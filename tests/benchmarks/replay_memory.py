"""What a full replay of 84 by 84 pixels takes, and how long sampling from it does.

Eight environments show four frames each; their games last 800 steps. A million transitions take 7 GB.

    python tests/benchmarks/replay_memory.py --capacity 1000000
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

from sqn_rl import NStep, Step, UniformReplay

NUM_ENVS, STACK, SIDE, LENGTH = 8, 4, 84, 800
BATCH, N, DRAWS = 32, 3, 500


def resident_bytes() -> int:
    """What this process has in memory now; where the system does not tell, the most it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if platform.system() == "Darwin" else 1024
        )


def make_replay(capacity: int) -> UniformReplay:
    """An empty one."""
    return UniformReplay(
        capacity=capacity,
        num_envs=NUM_ENVS,
        observation_shape=(STACK, SIDE, SIDE),
        observation_dtype=torch.uint8,
        frame_stack=STACK,
        returns=NStep(gamma=0.99, n=N, soft=False),
        seed=0,
        device="cpu",
    )


def fill(replay: UniformReplay) -> float:
    """Store random frames until it is full and one row was overwritten; returns the seconds it took."""
    frames = torch.randint(256, (1000, NUM_ENVS, 1, SIDE, SIDE), dtype=torch.uint8)
    action, reward, no = (
        torch.zeros(NUM_ENVS, dtype=torch.int64),
        torch.ones(NUM_ENVS),
        torch.zeros(NUM_ENVS) > 0,
    )
    stacks = frames.expand(-1, -1, STACK, -1, -1)
    started = time.perf_counter()
    for t in range(replay.capacity // NUM_ENVS + 1):
        before, following = stacks[t % 1000], stacks[(t + 1) % 1000]
        over = torch.rand(NUM_ENVS) < 1 / LENGTH
        replay.store(before, action, Step(following, following, reward, over, no, over, reward))
    return time.perf_counter() - started


def milliseconds(act: Callable[[], Any]) -> str:
    """The quartiles of one call's time."""
    times = []
    for _ in range(DRAWS):
        started = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - started))
    low, middle, high = quantiles(times, n=4)
    return f"{middle:.2f} ms (quartiles {low:.2f} to {high:.2f}, of {DRAWS})"


def main() -> None:
    """Fill a replay, and print what it takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--capacity", type=int, default=1_000_000, help="transitions")
    capacity = parser.parse_args().capacity
    torch.set_num_threads(1)
    small = make_replay(1000)  # whatever is loaded at first use is loaded
    fill(small)
    small.draw(BATCH)
    before = resident_bytes()
    replay = make_replay(capacity)
    seconds = fill(replay)
    print(f"{len(replay):,} transitions: {(resident_bytes() - before) / 1e9:.3f} GB resident")
    print(f"storing {NUM_ENVS}: {1e6 * seconds / (capacity // NUM_ENVS):.0f} µs")
    print(f"drawing {BATCH} stacks of {STACK}, {N} steps: {milliseconds(lambda: replay.draw(BATCH))}")


if __name__ == "__main__":
    main()
