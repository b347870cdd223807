"""What prioritized replay costs: drawing and answering 64 transitions, and storing a row, by capacity.

    python tests/benchmarks/prioritized.py [capacity ...]

The replays are filled to the brim and take turns, so that none has the caches to itself; medians, in µs.
"""

import sys
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch

from sqn_rl import OneStep, PrioritizedReplay, Step, UniformReplay

BATCH, ENVS, ROUNDS, CALLS = 64, 8, 100, 20
RAM = {"observation_shape": (128,), "observation_dtype": torch.uint8, "frame_stack": 1, "device": "cpu"}
PRIORITIZED = partial(PrioritizedReplay, omega=0.6, beta=0.4, epsilon=1e-6, td_error="mean", steps=100)


class Timed:
    """A full replay, and how long what is done with it takes."""

    def __init__(self, name: str, make: Any, capacity: int) -> None:
        self.name, self.seconds = name, {"draw": [], "update": [], "store": []}
        self.replay = make(capacity=capacity, num_envs=ENVS, returns=OneStep(gamma=0.99), seed=0, **RAM)
        no = torch.zeros(ENVS, dtype=torch.bool)
        seen = torch.randint(256, (ENVS, 128), dtype=torch.uint8)
        self.row = (
            seen,
            torch.zeros(ENVS, dtype=torch.int64),
            Step(seen, seen, no.float(), no, no, no, no.float()),
        )
        for _ in range(capacity // ENVS):
            self.replay.store(*self.row)
        for start in range(0, capacity, 5000):
            place = self.replay.ring.place(torch.arange(start, min(start + 5000, capacity)))
            self.replay.update_priority(place, torch.randn(len(place)))

    def run(self, error_NB: torch.Tensor) -> None:
        for _ in range(CALLS):
            start = perf_counter()
            batch = self.replay.draw(BATCH)
            drawn = perf_counter()
            self.replay.update_priority(batch.place, error_NB)
            updated = perf_counter()
            self.replay.store(*self.row)
            spans = (drawn - start, updated - drawn, perf_counter() - updated)
            for name, span in zip(self.seconds, spans, strict=True):
                self.seconds[name].append(span * 1e6)


def main(capacities: list[int]) -> None:
    torch.set_num_threads(1)
    kinds = {"uniform": UniformReplay, "prioritized": PRIORITIZED}
    replays = [Timed(name, make, capacity) for capacity in capacities for name, make in kinds.items()]
    for _ in range(ROUNDS):
        for replay in replays:
            replay.run(torch.randn(2, BATCH))
    print(f"{'':24}{'draw 64':>10}{'update 64':>11}{'both':>8}{f'store {ENVS}':>10}")
    for replay in replays:
        draw, update, store = (median(spans) for spans in replay.seconds.values())
        name = f"{replay.name} {replay.replay.capacity:,}"
        print(f"{name:24}{draw:10.1f}{update:11.1f}{draw + update:8.1f}{store:10.1f}")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [10_000, 1_000_000])
