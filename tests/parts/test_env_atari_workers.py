"""Atari RAM games in worker processes: the same games, and workers that end when they should."""

import errno
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from sqn_rl import AtariRamEnv, EnvError, SettingError

SETTINGS = {
    "game": "breakout",
    "sticky_actions": 0.25,
    "frame_skip": 8,
    "clip_reward": True,
    "life_loss": True,
    "max_frames": 240,
    "seed": 3,
}


def make(workers: int | None, num_envs: int = 3) -> AtariRamEnv:
    return AtariRamEnv(**SETTINGS, workers=workers, num_envs=num_envs)


@pytest.fixture
def env() -> Iterator[AtariRamEnv]:
    env = make(2)
    env.begin()
    yield env
    env.close()


def processes(env: AtariRamEnv) -> list[Any]:
    return env._workers._processes


def play(env: AtariRamEnv, steps: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        env.send(torch.randint(env.n_actions, (env.num_envs,), generator=generator))
        yield from env.receive()


@pytest.mark.parametrize("workers", [2, 7])
def test_games_in_workers_equal_games_in_the_main_process(workers: int) -> None:
    here, there = make(0), make(workers)
    here.seed_every = there.seed_every = 40  # a game has 30 steps: a new seed after every second game
    assert torch.equal(here.begin(), there.begin())
    assert len(processes(there)) == min(workers, 3)
    for one, other in zip(play(here, 80), play(there, 80), strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and torch.equal(one, other))
    assert torch.equal(here.load_state_dict(there.state_dict()), there.load_state_dict(here.state_dict()))
    for one, other in zip(play(here, 30), play(there, 30), strict=True):
        assert one is other or torch.equal(one, other)
    there.close()


def test_a_partial_torchrl_reset_is_the_same_with_and_without_workers(env: AtariRamEnv) -> None:
    def states(env: AtariRamEnv) -> Iterator[torch.Tensor]:
        actions = TensorDict({"action": torch.ones(3, dtype=torch.int64)}, [3])
        yield env.reset()["observation"]
        yield env.step(actions)["next", "observation"]
        which = torch.tensor([[False], [True], [True]])
        yield env.reset(actions.clone().set("_reset", which))["observation"]
        yield env.step(actions)["next", "observation"]

    here = make(0)
    here.begin()
    assert all(map(torch.equal, states(here), states(env)))


def test_workers_default_to_one_per_cpu_and_to_zero_for_a_single_game() -> None:
    one, many = make(None, num_envs=1), make(None, num_envs=3)
    one.begin()
    many.begin()
    assert one._workers is None
    assert len(processes(many)) == min(3, len(os.sched_getaffinity(0)))
    many.close()


@pytest.mark.parametrize("workers", [-1, 1.5])
def test_an_invalid_number_of_workers_is_refused(workers: Any) -> None:
    with pytest.raises(SettingError, match="workers = "):
        make(workers)


def test_workers_survive_signals_sent_to_the_whole_process_group(env: AtariRamEnv) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        for process in processes(env):
            process.send_signal(signum)
    list(play(env, 3))
    assert os.getpgid(processes(env)[0].pid) != os.getpgid(0)  # so a terminal's signals do not reach them


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_worker_that_died_is_named_with_its_games_and_exit_code(env: AtariRamEnv, when: str) -> None:
    other, victim = processes(env)
    list(play(env, 3))
    if when == "while":
        env.send(torch.zeros(3, dtype=torch.int64))
    victim.kill()
    if when == "before":
        victim.wait()
        env.send(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(EnvError, match=r"breakout-ram, step 4: .*process of games 1 to 2 ended with code -9"):
        env.receive()
    env.close()
    assert other.returncode == 0


@pytest.mark.parametrize("how", ["close", "forget", "close at play"])
def test_no_worker_outlives_its_environment(how: str) -> None:
    env = make(2)
    env.begin()
    ours = list(processes(env))
    if how == "close at play":
        env.send(torch.zeros(3, dtype=torch.int64))
    if how != "forget":
        env.close()
    del env
    gc.collect()
    assert [process.returncode for process in ours] == [0, 0]  # waited for: no zombies


SCRIPT = """
import time
from sqn_rl.parts.env.ale.ram_workers import RamWorkers
game = {"game": "pong", "sticky_actions": 0, "frame_skip": 4, "max_frames": None}
workers = RamWorkers({**game, "clip_reward": False, "life_loss": False}, num_envs=2, workers=2)
print(*(process.pid for process in workers._processes), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_when_a_signal_ends_the_main_process(signum: int) -> None:
    command = [sys.executable, "-c", SCRIPT]
    main = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert main.stdout is not None
    with main:
        pids = [int(pid) for pid in main.stdout.readline().split()]
        main.send_signal(signum)
    assert len(pids) == 2
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.1)
    pytest.fail("still there after 10 s")


def test_workers_need_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    env = make(2)
    env.begin()
    list(play(env, 3))
    env.close()


def test_a_lack_of_shared_memory_raises_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EnvError, match="No space left on device"):
        make(2).begin()


def test_workers_play_without_posix_fallocate_as_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    env = make(2)
    env.begin()
    list(play(env, 3))
    env.close()


def test_workers_start_if_sys_path_contains_a_path_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [Path("somewhere"), *sys.path])
    env = make(2)
    env.begin()
    env.close()
