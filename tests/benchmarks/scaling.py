"""How many actors are worth it: a simulation with measured costs, and what real actors do.

    python tests/benchmarks/scaling.py

A discrete-event simulation of the learner and its actors, whose costs are measured here: what a chunk costs
its actor, what it costs the learner, and what an update costs. It predicts transitions a second and the lag
for 1 to 256 actors with a processor each, and for 1, 2 and 4 actors on this machine's processors, which are
then raced. Pong from RAM. Writes ``docs/results/scaling.png`` and ``docs/results/raw/scaling.json``. Some ten
minutes, and nothing else should run meanwhile.
"""

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from actors import STILL, cpu_seconds
from machine import machine, revision
from matplotlib import pyplot

from sqn_rl import compose
from sqn_rl.training.agent import Agent
from sqn_rl.training.collecting.worker import Worker

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
ENVS, ROWS, DEPTH = 8, 20, 2
CHUNK = ENVS * ROWS
WORK = [
    f"num_envs={ENVS}",
    f"collect.rows={ROWS}",
    f"collect.depth={DEPTH}",
    "hidden=[400,300]",
]
WORK += [
    "replay_capacity=100000",
    "warmup_steps=2000",
    "checkpoint_every=0",
    "compile=never",
    "eval_episodes=1",
]
WORK += ["eval_max_steps=1", "log_every=1600"]
RATIOS = (1 / 4, 1 / 128)
"""Updates a transition: the task's, and one at which actors matter."""
REAL, SIMULATED = (1, 2, 4), (1, 2, 4, 8, 16, 32, 64, 128, 256)
SKIPPED, CHUNKS = 40, 160
"""Chunks before a measurement begins, and until it ends."""
SIMULATED_CHUNKS = 4_000


@dataclass(frozen=True)
class Costs:
    """Seconds of one processor."""

    collect: float
    """A chunk, for its actor."""
    take: float
    """A chunk, for the learner: to take it, store it and ask for another."""
    update: float
    """An update, with its batch."""


# --- the simulation ----------------------------------------------------------------------------------------

LEARNER = -1


def simulate(costs: Costs, actors: int, cores: float, ratio: float, chunks: int) -> tuple[float, float]:
    """Transitions a second, and the mean lag in updates, after the first tenth of the chunks.

    Everyone who has work runs, at the same speed: at full speed if there are as many processors.
    """
    asked = [deque([0] * DEPTH) for _ in range(actors)]  # the version of the weights of each request
    ready = [deque[int]() for _ in range(actors)]
    work = dict.fromkeys(range(actors), costs.collect)
    now, begun, stored, updates, lags = 0.0, 0.0, 0, 0, list[int]()
    learns = False  # else it takes a chunk, or waits for one
    while stored < chunks:
        actor = stored % actors
        if LEARNER not in work and ready[actor]:
            work[LEARNER], learns = costs.take, False
        speed = min(1.0, cores / len(work))
        elapsed = min(work.values()) / speed
        now += elapsed
        work = {who: left - elapsed * speed for who, left in work.items()}
        for who in [who for who, left in work.items() if left <= 1e-12]:
            del work[who]
            if who != LEARNER:
                ready[who].append(asked[who].popleft())
                if asked[who]:
                    work[who] = costs.collect
            elif not learns:
                lags.append(updates - ready[actor].popleft())
                asked[actor].append(updates)
                work.setdefault(actor, costs.collect)
                due = math.floor((stored + 1) * CHUNK * ratio) - updates
                work[LEARNER], learns, updates = due * costs.update, True, updates + due
            else:
                stored += 1
                if stored == chunks // 10:
                    begun, lags = now, []
    return (chunks - chunks // 10) * CHUNK / (now - begun), sum(lags) / len(lags)


# --- the costs ---------------------------------------------------------------------------------------------


@contextmanager
def timed(owner: type, *names: str) -> Iterator[list[float]]:
    """Seconds of this process in these methods, added up in one number."""
    total, methods = [0.0], {name: getattr(owner, name) for name in names}

    def around(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            began = time.process_time()
            result = method(*arguments, **keywords)
            total[0] += time.process_time() - began
            return result

        return run

    for name, method in methods.items():
        setattr(owner, name, around(method))
    try:
        yield total
    finally:
        for name, method in methods.items():
            setattr(owner, name, method)


def trained(chunks: int, *overrides: str) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """Train; what was spent until each chunk, and the rows of ``metrics.jsonl``."""
    seen: list[dict[str, float]] = []
    with (
        TemporaryDirectory() as folder,
        timed(Worker, "collect") as collect,
        timed(Agent, "update") as update,
    ):

        def should_stop() -> bool:
            own = {"own": time.process_time(), "all": cpu_seconds(), "wall": time.perf_counter()}
            seen.append(own | {"collect": collect[0], "update": update[0]})
            return len(seen) >= chunks

        settings = [*WORK, *overrides, f"steps={2 * chunks * CHUNK}", f"out={folder}/run"]
        compose("sqn_per", *settings, trust=[STILL]).train(should_stop=should_stop)
        metrics = Path(folder) / "run" / "metrics.jsonl"  # without updates there are none
        rows = [json.loads(line) for line in metrics.open()] if metrics.exists() else []
    return seen, rows


def per_chunk(seen: list[dict[str, float]]) -> dict[str, float]:
    """Of the chunks that are measured."""
    (first, last), count = (seen[SKIPPED], seen[-1]), len(seen) - 1 - SKIPPED
    return {name: (last[name] - first[name]) / count for name in first}


def measured_costs() -> Costs:
    """The costs in one process, and what handing over to other processes adds."""
    still = ["env=cartpole", "env._target_=still.StillEnv", "env.kind=ram", "warmup_steps=100000000"]
    real = per_chunk(trained(CHUNKS, "env=atari_ram", "collect=inline", f"update_ratio={RATIOS[0]}")[0])
    here, there = (per_chunk(trained(CHUNKS, f"collect={each}", *still)[0]) for each in ("inline", "ray"))
    in_learner = there["own"] - (here["own"] - here["collect"])
    in_actor = there["all"] - there["own"] - here["collect"]
    learner = real["own"] - real["collect"] - real["update"]
    games = real["all"] - real["own"]  # they are processes of their own
    return Costs(
        collect=real["collect"] + games + in_actor,
        take=learner + in_learner,
        update=real["update"] / (CHUNK * RATIOS[0]),
    )


def raced(actors: int, ratio: float) -> tuple[float, float]:
    """What real actors do: transitions a second, and the mean lag."""
    overrides = ["env=atari_ram", "collect=ray", f"collect.actors={actors}", f"update_ratio={ratio}"]
    seen, rows = trained(CHUNKS, *overrides)
    wall = seen[-1]["wall"] - seen[SKIPPED]["wall"]
    lags = [row["lag"] for row in rows if row["env_steps"] > SKIPPED * CHUNK]
    return (len(seen) - 1 - SKIPPED) * CHUNK / wall, sum(lags) / len(lags)


def main() -> None:
    """Measure, simulate, race, draw and write."""
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    costs = measured_costs()
    print({name: f"{1000 * value:.2f} ms" for name, value in asdict(costs).items()})
    rows: list[dict[str, Any]] = []
    for ratio in RATIOS:
        for actors in REAL:
            predicted, measured = (
                simulate(costs, actors, cores, ratio, SIMULATED_CHUNKS),
                raced(actors, ratio),
            )
            rows.append({"ratio": ratio, "actors": actors, "predicted": predicted, "measured": measured})
            print(f"{ratio:.4f} {actors:>3} actors: predicted {predicted}, measured {measured}")
    curves = {
        ratio: [simulate(costs, n, math.inf, ratio, SIMULATED_CHUNKS) for n in SIMULATED] for ratio in RATIOS
    }
    raw = {"machine": machine(), "revision": revision(), "cores": cores, "costs": asdict(costs), "here": rows}
    raw |= {"actors": SIMULATED, "curves": {f"{ratio:g}": curve for ratio, curve in curves.items()}}
    (RESULTS / "raw" / "scaling.json").write_text(json.dumps(raw, indent=1) + "\n")
    draw(curves, rows, cores)


def draw(curves: dict[float, list[tuple[float, float]]], rows: list[dict[str, Any]], cores: int) -> None:
    """Transitions a second and lag against actors; real ones as points."""
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    names = ("transitions a second", "lag, updates")
    for column, (panel, name) in enumerate(zip(panels, names, strict=True)):
        for ratio, color in zip(RATIOS, ("tab:blue", "tab:orange"), strict=True):
            label = f"update ratio 1/{1 / ratio:.0f}"
            panel.plot(SIMULATED, [point[column] for point in curves[ratio]], color=color, label=label)
            own = [row for row in rows if row["ratio"] == ratio]
            x = [row["actors"] for row in own]
            here, real = ([row[kind][column] for row in own] for kind in ("predicted", "measured"))
            panel.plot(x, here, "--", color=color, label=f"{label}, simulated on {cores} processors")
            panel.plot(x, real, "o", color=color, label=f"{label}, measured on them")
        panel.set(xscale="log", yscale="log", xlabel="actors", ylabel=name)
        panel.set_xticks(SIMULATED, [str(n) for n in SIMULATED])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylim(500, 16_000)
    panels[0].set_yticks([500, 1000, 2000, 4000, 8000, 16_000], ["500", "1k", "2k", "4k", "8k", "16k"])
    panels[0].legend(fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.28))
    figure.savefig(RESULTS / "scaling.png", dpi=100)


if __name__ == "__main__":
    main()
