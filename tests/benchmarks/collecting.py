"""The speed of environment steps without learning: ours against ale-py's own, in turns.

    python tests/benchmarks/collecting.py

Random actions, Pong with sticky actions. One step is one decision of one game, four frames.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from statistics import median

import numpy as np
import torch
from ale_py.env import AtariEnv as RawEnv
from ale_py.vector_env import AtariVectorEnv

from sqn_rl import BatchedEnv, compose

GAMES, ACTIONS = 16, 6
Player = Callable[[int], None]
"""Plays at least so many steps."""


def raw_ram() -> Player:
    """One of ale-py's environments, stepped alone."""
    env = RawEnv("pong", obs_type="ram", frameskip=4, repeat_action_probability=0.25)
    env.reset(seed=0)

    def play(steps: int) -> None:
        for action in np.random.default_rng(0).integers(ACTIONS, size=steps).tolist():
            *_, over, late, _ = env.step(action)
            if over or late:
                env.reset()

    return play


def raw_ram_twice() -> Player:
    """Two independent processes: the most that both cores can do."""
    here, there = raw_ram(), ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def play(steps: int) -> None:
        other = there.submit(_play_there, steps - steps // 2)
        here(steps // 2)
        other.result()

    play(2)
    return play


_there = cache(raw_ram)


def _play_there(steps: int) -> None:
    _there()(steps)


def raw_pixels() -> Player:
    """ale-py's vector environment, with the settings of ours."""
    env = AtariVectorEnv(
        "pong", num_envs=GAMES, repeat_action_probability=0.25, noop_max=0, use_fire_reset=False,
        reward_clipping=False, autoreset_mode="SameStep",
    )  # fmt: skip
    env.reset(seed=0)

    def play(steps: int) -> None:
        for action in np.random.default_rng(0).integers(ACTIONS, size=(steps // GAMES, GAMES)):
            env.step(action)

    return play


def ours(env: BatchedEnv) -> Player:
    """An environment of a recipe."""
    env.begin()

    def play(steps: int) -> None:
        for action in torch.randint(ACTIONS, (steps // env.num_envs, env.num_envs)):
            env.advance(action)

    return play


def env_of(*overrides: str) -> BatchedEnv:
    """What ``sqn-run`` would train on."""
    return compose("sqn", *overrides).recipe.build()["env"]


def seconds(play: Player, steps: int) -> float:
    """How long so many steps take."""
    started = time.perf_counter()
    play(steps)
    return time.perf_counter() - started


def main() -> None:
    """Play the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4000, help="of one contender in one round")
    arguments = parser.parse_args()
    pairs = {
        f"RAM, {GAMES} games, against one of `AtariEnv`": (
            ours(env_of("env=atari_ram", f"num_envs={GAMES}")),
            raw_ram(),
        ),
        f"pixels, {GAMES} games, against `AtariVectorEnv`": (
            ours(env_of("env=atari", f"num_envs={GAMES}")),
            raw_pixels(),
        ),
    }
    print("| | ours, steps/s | theirs, steps/s | ours ÷ theirs, within a round |\n|---|---|---|---|")
    for name, (own, raw) in pairs.items():
        speeds = []
        for _ in range(arguments.rounds):
            speeds.append([arguments.steps / seconds(play, arguments.steps) for play in (own, raw)])
            print(f"{name}: {speeds[-1][0]:,.0f} and {speeds[-1][1]:,.0f}", file=sys.stderr)
        ratios = sorted(one / other for one, other in speeds)
        own_speed, raw_speed = (f"{median(column):,.0f}" for column in zip(*speeds, strict=True))
        ratio = f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        print(f"| {name} | {own_speed} | {raw_speed} | {ratio} |")
    print(
        f"\nMedians of {arguments.rounds} rounds of {arguments.steps:,} steps; {os.cpu_count()} processors."
    )


if __name__ == "__main__":
    main()
