"""Two runs of one recipe with one seed leave the same behind, timings aside."""

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
def left_by(command: Callable) -> Callable[..., list[object]]:
    """What a run leaves: the rows of its logs without timings, and the bytes of its weights."""

    def run(*settings: str) -> list[object]:
        done = command("run", *SHORT, *settings)
        assert done.code == 0
        files = done.runs[-1]
        logs = [files.rows(name, *TIMINGS) for name in ("metrics", "episodes", "evaluations")]
        assert all(logs)
        return [*logs, files.weights[-1].read_bytes()]

    return run


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_run(task: str, left_by: Callable[..., list[object]]) -> None:
    assert left_by(*TASKS[task], "seed=4") == left_by(*TASKS[task], "seed=4")


def test_same_seed_same_run_wherever_games_are_played(left_by: Callable[..., list[object]]) -> None:
    task = ["env=atari_ram", *PONG]
    assert left_by(*task, "env.workers=0") == left_by(*task, "env.workers=2")


def test_another_seed_another_run(left_by: Callable[..., list[object]]) -> None:
    pairs = zip(left_by(*CARTPOLE, "seed=4"), left_by(*CARTPOLE, "seed=5"), strict=True)
    assert all(one != other for one, other in pairs)
