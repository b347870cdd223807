"""A worker process that plays Atari games from RAM. It does not import torch, in order to start fast.

It reads one-byte commands from standard input, exchanges data with its parent in shared memory, and replies
with one byte. It exits at the end of its input, so it never outlives its parent.
"""

import json
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from sqn_rl.parts.env.ale.atari_games import actions, console
from sqn_rl.parts.env.played import Played

PLAY, RESTART, DONE = b"p", b"r", b"."
POLL_SECONDS = 0.001
"""Seconds for which a worker polls for its next command before it sleeps: waking up can take as long."""


def layout(num_envs: int) -> np.dtype:
    """Layout of the shared memory: the inputs of each game, and the results, with the fields of ``Step``."""
    return np.dtype(
        [
            ("action", np.int32, num_envs),
            ("restart", np.bool_, num_envs),  # whether to reset it
            ("seed", np.int64, num_envs),  # of its next reset; -1: keep the random state
            ("observation", np.uint8, (num_envs, 128)),
            ("next_observation", np.uint8, (num_envs, 128)),
            ("reward", np.float32, num_envs),
            ("score", np.float64, num_envs),
            ("terminated", np.bool_, num_envs),
            ("truncated", np.bool_, num_envs),
            ("ended", np.bool_, num_envs),
        ],
        align=True,
    )


class RamGame:
    """One console playing one game; arguments as of :class:`~sqn_rl.parts.env.atari_ram.AtariRamEnv`."""

    def __init__(self, *, frame_skip: int, clip_reward: bool, life_loss: bool, **settings: Any) -> None:
        self._settings, self._actions = settings, actions(settings["game"])
        self._frame_skip, self._clip_reward, self._life_loss = frame_skip, clip_reward, life_loss
        self._lives = 0

    def restart(self, seed: int | None) -> np.ndarray:
        """Reset, with ``seed`` unless that is None; return the first observation."""
        if seed is not None:
            self.console = console(**self._settings, seed=seed)
        self.console.reset_game()
        self._lives = self.console.lives()
        return self.console.getRAM()

    def play(self, action: int) -> Played:
        """Take one action, without resetting."""
        console, ale_action = self.console, self._actions[action]
        score = sum(console.act(ale_action) for _ in range(self._frame_skip))
        over, late = console.game_over(with_truncation=False), console.game_truncated()
        lives, before = console.lives(), self._lives
        self._lives = lives
        return Played(
            observation=console.getRAM(),
            reward=(score > 0) - (score < 0) if self._clip_reward else score,
            score=score,
            terminated=over or (self._life_loss and lives < before),
            truncated=late,
            ended=over or late,
        )


def serve(games: Mapping[int, RamGame], shared: np.void, commands: int, answers: int) -> None:
    """Execute commands on these games until the end of the input."""
    columns = {name: shared[name] for name in shared.dtype.names or ()}

    def restart(i: int) -> None:
        seed = int(columns["seed"][i])
        columns["observation"][i] = games[i].restart(seed if seed >= 0 else None)

    def play(i: int) -> None:
        played = games[i].play(int(columns["action"][i]))
        columns["observation"][i] = columns["next_observation"][i] = played.observation
        for name in Played._fields[1:]:
            columns[name][i] = getattr(played, name)
        if played.ended:
            restart(i)

    poller = select.poll()
    poller.register(commands, select.POLLIN)

    def next_command() -> bytes:
        until = time.monotonic() + POLL_SECONDS
        while not poller.poll(0) and time.monotonic() < until:
            os.sched_yield()  # let other processes run first
        return os.read(commands, 1)

    while command := next_command():
        for i in games:
            if command == PLAY:
                play(i)
            elif columns["restart"][i]:
                restart(i)
        os.write(answers, DONE)


def main() -> None:
    """The worker's main function; its argument has the settings, the shared memory, and its games."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"):  # the parent handles these
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    settings, descriptor, num_envs, first, end = json.loads(sys.argv[1])
    shared = np.frombuffer(mmap.mmap(descriptor, 0), layout(num_envs), count=1)[0]
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # ALE prints there, not into the replies
    serve({i: RamGame(**settings) for i in range(first, end)}, shared, sys.stdin.fileno(), answers)
