"""Memory and disk of runs, forecast and measured, on short runs with a replay small enough to be full.

    python tests/reliability/resources.py sqn:cartpole rainbow:atari:compile=always

Imports all modules once, and trains each run in a fork, whose memory is measured separately. Prints a line of
JSON for each run: bytes of memory of the run and its environment processes, and bytes of the checkpoint.
"""

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sqn_rl import compose
from sqn_rl.recipe.catalogue import RECIPE, Catalogue

RUN = ["compile=never", "eval_episodes=2", "threads=1", "checkpoint_keep=1"]
KINDS = {
    "cartpole": ["steps=2000", "warmup_steps=500", "update_ratio=0.1"],
    "atari_ram": ["steps=4000", "warmup_steps=3000", "update_ratio=0.1", "env.workers=2"],
    "atari": ["steps=4000", "warmup_steps=3800", "update_ratio=0.05"],
}
"""By environment, the settings of runs of a few seconds."""

INLINE = {"sqn_apex": ":collect=inline", "sqn_impala": ":collect=inline:encoder=mlp"}
"""The overrides with which a recipe with actors runs in one process."""
EVERYTHING = [
    f"{recipe}:{env}{INLINE.get(recipe, '')}" for env in KINDS for recipe in Catalogue().names(RECIPE)
]
COMPILED = [f"sqn_rainbow:{env}:compile=always" for env in KINDS]
WORKER = "sqn_rl.parts.env.ale.ram_worker"


def overrides(case: str) -> tuple[str, list[str]]:
    """The recipe and the overrides of a case such as ``sqn:atari:compile=always``."""
    recipe, env, *more = case.split(":")
    steps = KINDS[env][0].partition("=")[2]
    short = [] if env == "cartpole" else ["env.max_frames=400"]
    return recipe, [f"env={env}", *KINDS[env], f"replay_capacity={steps}", *short, *RUN, *more]


def train(case: str, folder: Path) -> dict[str, int]:
    """Train in this process; return the forecast and the measured bytes."""
    recipe, settings = overrides(case)
    experiment, forecast = compose(recipe, *settings, f"out={folder}"), {}
    preflight = experiment.preflight

    def asked(*where: Any) -> Any:
        graph = preflight(*where)
        assert graph.needs
        forecast.update(graph.needs._asdict())
        return graph

    experiment.preflight = asked  # type: ignore[method-assign]
    experiment.train()
    files = [path for path in (folder / "checkpoints").rglob("*") if path.is_file()]
    written = sum(path.stat().st_size for path in files)
    taken = {"memory": resident(os.getpid(), "VmHWM"), "checkpoint": written}
    return {f"{name}_forecast": forecast[name] for name in taken} | taken


def resident(process: int, what: str) -> int:
    """The resident memory of a process in bytes: now, ``VmRSS``, or its peak, ``VmHWM``."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(what)), 0)


def players(process: int) -> int:
    """The resident memory of the environment processes of a process."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        playing = [child for child in children if WORKER in Path(f"/proc/{child}/cmdline").read_text()]
        return sum(resident(int(child), "VmRSS") for child in playing)
    except OSError:  # a process has just ended
        return 0


def run(case: str) -> dict[str, Any]:
    """Train in a fork, and measure its environment processes from this process."""
    with TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        if not (child := os.fork()):
            code = 1
            try:
                answer.write_text(json.dumps(train(case, Path(folder, "run"))))
                code = 0
            finally:
                os._exit(code)
        beside = 0
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.05)
            beside = max(beside, players(child))
        taken = json.loads(answer.read_text()) if answer.exists() else {}
    if taken:
        taken["memory"] += beside
    return {"case": case, **taken}


def main() -> None:
    """Measure the cases given on the command line, by default all."""
    torch.set_num_threads(1)
    for case in sys.argv[1:] or EVERYTHING + COMPILED:
        print(json.dumps(run(case)), flush=True)


if __name__ == "__main__":
    main()
