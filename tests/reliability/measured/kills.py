"""Exact resume, of every recipe."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flat import FLAT
from reliability.score import Line, Section
from reliability.trials import TASKS, TINY, Trial, killed_and_resumed
from torch._inductor import config

from sqn_rl.recipe.catalogue import RECIPE, Catalogue

PIXELS = ("dqn", "sqn_rainbow")
OF_A_GAME = ("paper/breakout", "paper/pong", "paper/qbert")
"""Recipes for an Atari game from RAM, which do not run on CartPole."""


_INLINE = ("collect=inline", "collect.rows=5")
ACTORS = {"sqn_apex": _INLINE, "sqn_impala": (*_INLINE, *FLAT["sqn_impala"])}
"""The overrides with which a recipe with actors runs in one process; tests/scale kills actors on Ray."""

COMPILED = {
    "dqn": 54,
    "double_dqn": 54,
    "sqn": 54,
    "munchausen_dqn": 54,
    "discrete_sac": 54,
    "paper/update_periodic": 54,
}
"""Recipes that compile within seconds, and how often they are killed."""


ALWAYS = ("compile=always", "warmup_steps=10", "checkpoint_keep=1")
"""For compiled runs. Only the last checkpoint is kept: those saved before compiling depend on the kills."""


def measure(folder: Path) -> list[Line]:
    """A line for each task, of all recipes."""
    recipes = Catalogue().names(RECIPE)
    of_any = [name for name in recipes if name not in OF_A_GAME]
    return [
        _line(folder, "CartPole", dict.fromkeys(of_any, 27)),
        _line(folder, "Pong from RAM", dict.fromkeys(recipes, 6)),
        _line(folder, "Pong from pixels", dict.fromkeys(PIXELS, 15)),
    ]


def measure_compiled(folder: Path) -> list[Line]:
    """A line for kills of compiled runs, and one for whether they had compiled when they were killed."""
    config.compile_threads = 1  # else worker processes compile, which do not survive a fork
    with patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(folder / "compiled")):
        line = _line(folder, "CartPole", COMPILED, *ALWAYS)
    at: Counter[str] = sum((Counter(each["compiled"]) for each in line.raw.values()), Counter())
    least = line.cases // 2
    wrong = [recipe for recipe, each in line.raw.items() if not each["runs compiled"]]
    found = f"{at['after']}; {at['while']} while it was being compiled, {at['before']} before"
    when = Line(
        "kills when compiled code was there, of runs whose summary says `compiled`",
        f"at least {least}, all recipes",
        found,
        at["after"] >= least and not wrong,
        wrong,
    )
    return [line, when]


def _line(folder: Path, task: str, recipes: Mapping[str, int], *settings: str) -> Line:
    trials: dict[str, Trial] = {}
    compiled: dict[str, bool] = {}
    for seed, (recipe, kills) in enumerate(recipes.items()):
        run = folder / task / recipe
        run.mkdir(parents=True)
        asked = (f"recipe={recipe}", *TASKS[task], *TINY, "steps=200", *ACTORS.get(recipe, ()), *settings)
        trials[recipe] = killed_and_resumed(run, kills, seed, *asked)
        compiled[recipe] = json.loads((run / "alone" / "summary.json").read_text())["compiled"]
        print(task, recipe, trials[recipe], flush=True)
    total: Counter[str] = sum((trial.kills for trial in trials.values()), Counter())
    faults: Counter[str] = sum((trial.faults for trial in trials.values()), Counter())
    wrong = [recipe for recipe, trial in trials.items() if trial.differ or trial.faults]
    ways = ", ".join(f"{count} {WHEN[way]}" for way, count in total.items())
    return Line(
        f"{task}: {len(trials)} recipes killed {total.total()} times: {ways}",
        "every byte as without",
        f"{len(trials) - len(wrong)} of {len(trials)} recipes",
        not wrong,
        {recipe: _plain(trial) | {"runs compiled": compiled[recipe]} for recipe, trial in trials.items()},
        total.total(),
        {"tracebacks": faults["tracebacks"], "hangs": faults["hangs"]},
    )


def _plain(trial: Trial) -> dict[str, Any]:
    """A trial for a JSON file: :func:`dataclasses.asdict` cannot copy a Counter."""
    return {name: dict(each) if isinstance(each, Counter) else each for name, each in trial._asdict().items()}


WHEN = {"disk": "in an operation on the disk", "turn": "in the loop", "time": "at a random time"}

SECTION = Section(
    "kills",
    "1. Exact resume",
    """Processes are killed with SIGKILL and resumed until the run is done. Then weights, optimizer,
temperature, replay, priorities, generators, environments and logs are compared with those of a run left
alone.""",
    measure,
)

COMPILED_SECTION = Section(
    "compiled",
    "1. Exact resume of compiled runs",
    """As above, with `compile=always`. One process in ten compiles anew; the others are forked from that of
the run left alone and take its code, where its guards say that it fits.""",
    measure_compiled,
)
