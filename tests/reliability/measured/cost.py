"""What a checkpoint of a large replay of screens costs."""

import time
from pathlib import Path

import torch
from reliability.score import Line, Section

from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.replay.ring_state import ring_state
from sqn_rl.runs.checkpoint import Checkpoints
from sqn_rl.types import Step

N, FEW, MANY, NEW = 8, 20_000, 200_000, 10_000
SHAPE = (4, 84, 84)


def measure(folder: Path) -> list[Line]:
    """Bytes and seconds of a checkpoint of new frames, when there are few and when there are many."""
    ring = Ring(
        capacity=MANY + 2 * NEW,
        num_envs=N,
        observation_shape=SHAPE,
        observation_dtype=torch.uint8,
        frame_stack=SHAPE[0],
        device="cpu",
    )
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    costs = {}
    for frames in (FEW, FEW + NEW, MANY, MANY + NEW):
        _play(ring, frames)
        costs[frames] = _save(checkpoints, ring, frames)
    few, many = costs[FEW + NEW], costs[MANY + NEW]
    new = NEW * (SHAPE[1] * SHAPE[2] + 23)
    return [
        Line(
            f"bytes of a checkpoint of {NEW:,} new frames, when there are {MANY:,}",
            "at most a tenth more than the frames",
            f"{_mb(many['bytes'])}, the frames {_mb(new)}; with {FEW:,} {_mb(few['bytes'])}",
            many["bytes"] <= 1.1 * new,
            costs,
        ),
        Line(
            "seconds of the processor for it",
            f"at most twice those when there are {FEW:,}",
            f"{many['processor']:.2f} s; with {FEW:,} {few['processor']:.2f} s",
            many["processor"] <= 2 * few["processor"],
        ),
    ]


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _play(ring: Ring, frames: int) -> None:
    """Fill the ring until it has had so many frames; all games end every 500 rows."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randint(0, 256, (32, N, *SHAPE), dtype=torch.uint8, generator=generator)
    no, zero, action = torch.zeros(N, dtype=torch.bool), torch.zeros(N), torch.zeros(N, dtype=torch.int64)
    while ring.row_count * N < frames:
        now, then = (pool[(ring.row_count + later) % len(pool)] for later in (0, 1))
        ended = no if ring.row_count % 500 else ~no
        ring.append(now, action, Step(then, then, zero, ended, no, ended, zero))


def _save(checkpoints: Checkpoints, ring: Ring, frames: int) -> dict[str, float]:
    folder = checkpoints.folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    began, processor = time.monotonic(), time.process_time()
    checkpoints.save(frames, {}, {"replay": ring_state(ring)}, {})
    took = {"clock": time.monotonic() - began, "processor": time.process_time() - processor}
    new = [path for path in folder.rglob("*.*") if path.is_file() and path not in before]
    return took | {"bytes": sum(path.stat().st_size for path in new)}


SECTION = Section(
    "cost",
    "2. What a checkpoint costs",
    f"A replay of random screens from {N} games, each of which ends every 500 steps.",
    measure,
)
