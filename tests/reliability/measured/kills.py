"""Exact resume, of every recipe."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reliability.score import Line, Section
from reliability.trials import TASKS, TINY, Trial, killed_and_resumed

from sqn_rl.catalogue import RECIPE, Catalogue

PIXELS = ("dqn", "sqn_rainbow")
OF_A_GAME = ("paper/breakout", "paper/pong", "paper/qbert")
"""Recipes that are of a game of Atari's from RAM, and not of CartPole."""


def measure(folder: Path) -> list[Line]:
    """A line for each task, of all recipes."""
    recipes = Catalogue().names(RECIPE)
    of_any = [name for name in recipes if name not in OF_A_GAME]
    return [
        _line(folder, "CartPole", of_any, 9),
        _line(folder, "Pong from RAM", recipes, 3),
        _line(folder, "Pong from pixels", PIXELS, 3),
    ]


def _line(folder: Path, task: str, recipes: Sequence[str], kills: int) -> Line:
    trials: dict[str, Trial] = {}
    for seed, recipe in enumerate(recipes):
        run = folder / task / recipe
        run.mkdir(parents=True)
        settings = (f"recipe={recipe}", *TASKS[task], *TINY, "steps=200")
        trials[recipe] = killed_and_resumed(run, kills, seed, *settings)
        print(task, recipe, trials[recipe], flush=True)
    total: Counter[str] = sum((trial.kills for trial in trials.values()), Counter())
    differ = {recipe: trial.differ for recipe, trial in trials.items() if trial.differ}
    ways = ", ".join(f"{count} {WHEN[way]}" for way, count in total.items())
    return Line(
        f"{task}: {len(trials)} recipes killed {total.total()} times: {ways}",
        "every byte as without",
        f"{len(trials) - len(differ)} of {len(trials)} recipes",
        not differ,
        {recipe: {"kills": dict(trial.kills), "differ": trial.differ} for recipe, trial in trials.items()},
    )


WHEN = {"disk": "in an operation on the disk", "turn": "in the loop", "time": "at a random time"}

SECTION = Section(
    "kills",
    "1. Exact resume",
    """Processes are killed with SIGKILL and resumed until the run is done. Then weights, optimizer,
temperature, replay, priorities, generators, environments and logs are compared with those of a run left
alone.""",
    measure,
)
