"""Two runs of one recipe with one seed leave the same behind, timings aside."""

from collections.abc import Callable

import pytest

TIMINGS = ("wall_s",)
SHORT = ["steps=600", "warmup_steps=100", "log_every=100", "eval_every=300", "eval_episodes=2"]
TASKS = {
    "cartpole": ["env=cartpole", "loss.backup=sampled"],
    "pong": ["env=atari_ram", "env.game=pong", "env.max_frames=400", "num_envs=2"],
}


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_run(task: str, command: Callable) -> None:
    def run(out: str, seed: int) -> tuple[object, bytes]:
        done = command("run", *TASKS[task], *SHORT, f"seed={seed}", f"out={out}")
        assert done.code == 0
        files = done.runs[-1]
        logs = [files.rows(name, *TIMINGS) for name in ("metrics", "episodes", "evaluations")]
        assert all(logs)
        return logs, files.weights[-1].read_bytes()

    first, again, other = run("first", 4), run("again", 4), run("other", 5)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]
