"""Speed on a GPU: updates a second, recorded as CUDA graphs or not, and whole runs in turns with their peer.

    python tests/benchmarks/gpu.py [--rounds 5] [--only updates]

Five minutes and the extra ``bench``. Results are added to ``docs/results/raw/gpu.json``, and
``docs/results/gpu.md`` is made anew from it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from filled_replay import fill
from machine import machine, revision
from page import NOTES, by_hand
from race import Contender, race
from works import CARTPOLE, MINATAR, PIXELS, ours

from sqn_rl import Agent, compose
from sqn_rl.training.agent import AGENT_PARTS

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PAGE, RAW = RESULTS / "gpu.md", RESULTS / "raw" / "gpu.json"

LEG = 50
"""Updates of a round."""
THREADS = 4
"""Of the processor, for each program."""
WORKS = {
    "CartPole, batch 128, MLP 120-84": ("sqn", f"{CARTPOLE} replay_capacity=10000"),
    "MinAtar, batch 32": ("sqn", f"{MINATAR} replay_capacity=10000"),
    "Pong pixels, batch 32": ("sqn", PIXELS),
    "Pong pixels, batch 256": ("sqn", f"{PIXELS} batch_size=256"),
    "Pong pixels, `sqn_rainbow`, batch 32": ("sqn_rainbow", PIXELS),
}
"""Recipe and settings of each."""
WAYS = {
    "CPU": "device=cpu compile=never",
    "GPU": "device=cuda compile=never",
    "GPU, recorded": "device=cuda compile=always",
    "GPU, recorded, bf16": "device=cuda compile=always precision=bf16",
}
"""How an update is computed."""
GPU = "device=cuda"
RACES: dict[str, dict[str, Contender]] = {
    "Pong pixels, 8 envs, update ratio ¼, batch 32": {
        "sqn": ours(PIXELS, GPU),
        "sqn, not recorded": ours(PIXELS, GPU, compiled=False),
        "sqn, `q_net=twin_shared`": ours(PIXELS, "q_net=twin_shared", GPU),
        "SB3 DQN": Contender(["sb3", "pong_pixels", "cuda"]),
    },
    "MinAtar Breakout, 8 envs, update ratio ¼, batch 32": {
        "sqn": ours(MINATAR, GPU),
        "sqn, not recorded": ours(MINATAR, GPU, compiled=False),
        "SB3 DQN": Contender(["sb3", "minatar", "cuda"]),
    },
}
"""Whole runs."""


def updating(recipe: str, *settings: str) -> Callable[[], float]:
    """What makes :data:`LEG` updates from a full replay, and returns how many it makes a second."""
    experiment = compose(recipe, *settings)
    run, parts = experiment.run, experiment.recipe.build()
    agent = Agent(**{name: parts[name] for name in AGENT_PARTS}, compiled=run.compile == "always")
    fill(agent.replay)

    def leg() -> float:
        started = time.perf_counter()
        for batch in agent.draw(run.batch_size, LEG):
            agent.update(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return LEG / (time.perf_counter() - started)

    return leg


def updates(rounds: int, found: dict[str, dict[str, list[float]]]) -> None:
    """Updates a second of every work in every way, in turns; the first round does not count."""
    for work, (recipe, settings) in WORKS.items():
        legs = {way: updating(recipe, *settings.split(), *more.split()) for way, more in WAYS.items()}
        speeds = [{way: leg() for way, leg in legs.items()} for _ in range(1 + rounds)][1:]
        found[work] = {way: [each[way] for each in speeds] for way in WAYS}
        line = ", ".join(f"{way} {median(each):,.0f}" for way, each in found[work].items())
        print(f"{work}: {line} updates/s", file=sys.stderr, flush=True)


def races(rounds: int, leg: int, found: dict[str, dict[str, list[float]]]) -> None:
    """The steps a second of whole runs, by race and program, into ``found``."""
    for name, contenders in RACES.items():
        race(contenders, leg=leg, rounds=rounds, threads=THREADS)
        found[name] = {who: contender.speeds for who, contender in contenders.items()}


def page(raw: dict[str, Any], notes: str) -> str:
    """The whole page; ``notes`` is its end, written by hand."""
    ways = list(WAYS)
    lines = [f"| work | {' | '.join(ways)} | recorded / not |", f"|---|{'---:|' * (len(ways) + 1)}"]
    for work, found in raw.get("updates", {}).items():
        cells = [f"{median(found[way]):,.0f}" for way in ways]
        lines.append(f"| {work} | {' | '.join(cells)} | {_ratio(found, 'GPU, recorded', 'GPU')} |")
    runs = ["| run | program | steps/s | / SB3 DQN |", "|---|---|---:|---:|"]
    for work, found in raw.get("races", {}).items():
        for who, speeds in found.items():
            runs.append(f"| {work} | {who} | {median(speeds):,.0f} | {_ratio(found, who, 'SB3 DQN')} |")
    table, whole = "\n".join(lines), "\n".join(runs)
    return f"""# Speed on a GPU

What `python tests/benchmarks/gpu.py` measured. Medians over {raw["rounds"]} rounds in turns; ratios with
their range. Raw numbers: [`raw/gpu.json`](raw/gpu.json).

## Updates a second

From a full replay on the device of the networks, drawing included.

{table}

## Whole runs

Environments on the CPU, each program in its own process, in turns.

{whole}

{raw["date"]}, `{raw["revision"]}`: {raw["gpu"]}; {raw["machine"]}.

{NOTES}{notes}"""


def _ratio(found: dict[str, list[float]], one: str, other: str) -> str:
    ratios = sorted(a / b for a, b in zip(found[one], found[other], strict=True))
    return f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--leg", type=int, default=1600, help="environment steps of a leg")
    parser.add_argument("--only", choices=["updates", "races"])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here that PyTorch can use")
    raw = json.loads(RAW.read_text()) if RAW.exists() else {}
    raw |= {
        "rounds": arguments.rounds,
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision(),
        "machine": machine(),
        "gpu": f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}",
    }
    torch.set_num_threads(THREADS)
    try:
        if arguments.only != "races":
            updates(arguments.rounds, raw.setdefault("updates", {}))
        if arguments.only != "updates":
            races(arguments.rounds, arguments.leg, raw.setdefault("races", {}))
    finally:
        RAW.write_text(json.dumps(raw, indent=1) + "\n")
    PAGE.write_text(page(raw, by_hand(PAGE)))


if __name__ == "__main__":
    main()
