"""Two runs of one recipe with one seed leave the same behind, timings aside."""

from collections.abc import Callable

import pytest

TIMINGS = ("wall_s",)
SHORT = ["steps=600", "warmup_steps=100", "log_every=100", "eval_episodes=2"]
TASKS = {
    "cartpole": ["env=cartpole", "loss.backup=sampled", "eval_every=300"],
    "compiled": ["env=cartpole", "compile=always", "hidden=[16]"],
    "pong": ["env=atari_ram", "env.game=pong", "env.max_frames=400", "num_envs=2", "eval_episodes=1"],
}


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


def test_another_seed_another_run(left_by: Callable[..., list[object]]) -> None:
    pairs = zip(left_by("seed=4"), left_by("seed=5"), strict=True)
    assert all(one != other for one, other in pairs)
