"""Two runs of one recipe with the same seed write the same logs and weights, timings aside."""

from collections.abc import Callable, Iterator

import pytest
import torch

TIMINGS = ("wall_s",)
SHORT = ["warmup_steps=100", "log_every=100"]
CARTPOLE = ["env=cartpole", "steps=600", "eval_episodes=2"]
PONG = ["env.game=pong", "env.max_frames=160", "num_envs=2", "eval_episodes=1", "steps=160"]
TASKS = {
    "cartpole": [*CARTPOLE, "loss.backup=sampled", "eval_every=300"],
    "compiled": [*CARTPOLE, "compile=always", "hidden=[16]"],
    "pixels, two threads": [
        "env=atari",
        *PONG,
        "q_net=twin_shared",
        "threads=2",
        "env.threads=2",
        "batch_size=8",
    ],
}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.fixture
def results_of(command: Callable) -> Callable[..., list[object]]:
    """Train, and return the rows of the logs without timings and the bytes of the last weights."""

    def run(*settings: str) -> list[object]:
        done = command("run", *SHORT, *settings)
        assert done.code == 0
        files = done.runs[-1]
        logs = [files.rows(name, *TIMINGS) for name in ("metrics", "episodes", "evaluations")]
        assert all(logs)
        return [*logs, files.weights[-1].read_bytes()]

    return run


@pytest.mark.parametrize("task", TASKS)
def test_runs_with_the_same_seed_write_equal_logs_and_weights(
    task: str, results_of: Callable[..., list[object]]
) -> None:
    assert results_of(*TASKS[task], "seed=4") == results_of(*TASKS[task], "seed=4")


def test_atari_ram_runs_are_equal_with_and_without_worker_processes(
    results_of: Callable[..., list[object]],
) -> None:
    task = ["env=atari_ram", *PONG]
    assert results_of(*task, "env.workers=0") == results_of(*task, "env.workers=2")


def test_runs_with_different_seeds_write_different_logs_and_weights(
    results_of: Callable[..., list[object]],
) -> None:
    pairs = zip(results_of(*CARTPOLE, "seed=4"), results_of(*CARTPOLE, "seed=5"), strict=True)
    assert all(one != other for one, other in pairs)
