"""One contender of a race, which :mod:`race` starts.

python tests/benchmarks/contenders.py LEG LEGS THREADS WHO [argument ...]
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from race import Baton


def ours(baton: Baton, recipe: str, *overrides: str) -> None:
    """What ``sqn-run`` does with these overrides, logs and weights and all."""
    from sqn_rl import compose
    from sqn_rl.parts.logger.base import Reporter

    class Turns(Reporter):
        def episode(self, row: dict[str, Any]) -> None:
            baton.returns.append(row["return"])

        def metrics(self, row: dict[str, Any]) -> None:
            baton.tick(row["env_steps"])

    run = [f"steps={baton.steps + baton.leg}", f"log_every={baton.leg}", f"out=run-{os.getpid()}"]
    experiment = compose(recipe, *run, f"threads={torch.get_num_threads()}", *overrides)
    experiment.train(reporters=[Turns()], should_stop=lambda: baton.over)


def hand_written(baton: Baton, algorithm: str) -> None:
    """A script without a toolkit: the same arithmetic as ours on CartPole, or a compiled DQN on MinAtar."""
    import_module(f"hand_written_{algorithm}").learn(baton)


def sb3(baton: Baton, work: str, device: str = "cpu") -> None:
    """Stable-Baselines3's DQN: one network, ε-greedy."""
    import sb3_dqn

    sb3_dqn.COMMON["device"] = device
    getattr(sb3_dqn, work)(baton)


def cleanrl(baton: Baton, folder: str, script: str) -> None:
    """CleanRL's DQN: one network, ε-greedy."""
    import cleanrl_dqn

    cleanrl_dqn.run(baton, folder, script)


def play(baton: Baton, *player: str) -> None:
    """Environments alone: ale-py's own, by the name of what makes them, or those of these overrides."""
    import collecting

    raw = getattr(collecting, player[0], None)
    playing = raw() if raw else collecting.ours(collecting.env_of(*player))
    steps = 0
    while baton.tick(steps):
        playing(baton.leg)
        steps += baton.leg


WHO: dict[str, Callable[..., None]] = {
    each.__name__: each for each in (ours, hand_written, sb3, cleanrl, play)
}

if __name__ == "__main__":
    leg, legs, threads, who, *arguments = sys.argv[1:]
    torch.set_num_threads(int(threads))
    WHO[who](Baton(int(leg), int(legs)), *arguments)
