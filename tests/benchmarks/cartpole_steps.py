"""Environment steps per second on CartPole, ours beside a hand-written script's and Stable-Baselines3's.

One environment, one update a step, batch 128, an MLP of 120 and 84, one thread. Every round runs each once,
in a process of its own, so that a slow minute of the machine slows all. Needs the extra ``bench``.

    python tests/benchmarks/cartpole_steps.py --steps 5000 --rounds 5
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

STEPS, ROUNDS = 5000, 5
SETTINGS = ["num_envs=1", "update_ratio=1", "batch_size=128", "warmup_steps=128", "encoder.hidden=[120,84]"]


def ours(steps: int, seed: int) -> dict[str, Any]:
    """The recipe ``sqn`` as ``sqn-run`` trains it, with its logs and weights; evaluations are not timed."""
    from sqn_rl import compose

    with tempfile.TemporaryDirectory() as folder:
        run = [f"steps={steps}", f"seed={seed}", "threads=1", "eval_episodes=1", f"out={folder}/run"]
        summary = compose("sqn", "env=cartpole", *SETTINGS, *run).train()
        episodes = Path(folder, "run", "episodes.jsonl").read_text().splitlines()[-20:]
    score = mean(json.loads(line)["return"] for line in episodes)
    return {"steps_per_s": summary["steps_per_s"], "updates": summary["updates"], "return": score}


def hand_written(steps: int, seed: int) -> dict[str, Any]:
    """The same arithmetic without the toolkit."""
    from hand_written_sqn import learn

    return learn(steps, seed)


def sb3(steps: int, seed: int) -> dict[str, Any]:
    """Stable-Baselines3's DQN: one network, ε-greedy, no α to learn."""
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=2e-3,
        buffer_size=50_000,
        learning_starts=128,
        batch_size=128,
        train_freq=1,
        gradient_steps=1,
        target_update_interval=100,
        policy_kwargs={"net_arch": [120, 84]},
        seed=seed,
        device="cpu",
    )
    started = time.perf_counter()
    model.learn(steps, log_interval=None)
    speed = steps / (time.perf_counter() - started)
    scores = [episode["r"] for episode in model.ep_info_buffer][-20:]
    return {"steps_per_s": speed, "updates": model._n_updates, "return": mean(scores)}


CONTENDERS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "sqn_rl": ours,
    "hand-written SQN": hand_written,
    "SB3 DQN": sb3,
}


FIRST_STEP = """
import os, sys, time
from sqn_rl.cli.run import main
from sqn_rl.envs.games import GamesEnv

def send(self, action):
    os.write(2, str(time.time()).encode())
    os._exit(0)

GamesEnv.send = send
main(sys.argv[1:])
"""


def first_step_seconds() -> float:
    """From the start of a process that does what ``sqn-run`` does, to its first environment step."""
    with tempfile.TemporaryDirectory() as folder:
        command, started = [sys.executable, "-c", FIRST_STEP, f"out={folder}/run"], time.time()
        done = subprocess.run(command, capture_output=True, text=True)
        return float(done.stderr.splitlines()[-1]) - started


def measure(name: str, steps: int, seed: int) -> dict[str, Any]:
    """One contender's run in a process of its own."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--steps", str(steps), "--seed", str(seed), "--only", name]
    done = subprocess.run(command, env=os.environ | one_thread, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Medians over the rounds, and of the ratios within a round, as Markdown."""
    lines = [
        "| | steps/s | ours ÷ this, within a round | updates | return, last 20 games |",
        "|---|---|---|---|---|",
    ]
    own = [row["steps_per_s"] for row in results["sqn_rl"]]
    for name, rows in results.items():
        speeds = [row["steps_per_s"] for row in rows]
        ratios = sorted(ours / speed for ours, speed in zip(own, speeds, strict=True))
        lines.append(
            f"| {name} | {median(speeds):,.0f} ({min(speeds):,.0f}–{max(speeds):,.0f}) "
            f"| {median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) "
            f"| {median(row['updates'] for row in rows):,.0f} | {mean(row['return'] for row in rows):.0f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What this ran on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "gymnasium", "stable-baselines3"))
    return f"{processor}, {os.cpu_count()} cores, one used; Python {platform.python_version()}, {packages}"


def main() -> None:
    """Run the rounds and print the table, or one contender's numbers as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="environment steps of one run")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=CONTENDERS, help="run this one here and print its numbers as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of --only; a round uses its own number")
    parser.add_argument("--first-step", action="store_true", help="also time `sqn-run` to its first step")
    arguments = parser.parse_args()
    if arguments.only:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(CONTENDERS[arguments.only](arguments.steps, arguments.seed)))
        return
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for round_number in range(arguments.rounds):
        for name, rows in results.items():
            rows.append(measure(name, arguments.steps, round_number))
            print(
                f"round {round_number + 1}: {name}: {rows[-1]['steps_per_s']:,.0f} steps/s", file=sys.stderr
            )
    print(f"{arguments.steps:,} steps, {arguments.rounds} rounds, median (range). {machine()}.\n")
    print(table(results))
    if arguments.first_step:
        seconds = [first_step_seconds() for _ in range(arguments.rounds)]
        print(
            f"\n`sqn-run` to its first environment step: {median(seconds):.1f} s (median of {len(seconds)})."
        )


if __name__ == "__main__":
    main()
