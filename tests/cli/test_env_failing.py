"""Environments that fail during a run: its error message, the checkpoint it keeps, and how it resumes."""

import re
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from sqn_rl.parts.env.ale.ram_workers import RamWorkers
from sqn_rl.runs.checkpoint import Checkpoints

Command = Callable[..., Any]

TINY = ["steps=300", "warmup_steps=60", "batch_size=8", "num_envs=3", "update_ratio=0.3", "eval_episodes=2"]
NAN = float("nan")


class Failing(gymnasium.Env):
    """Episodes of ten steps that return ``answer()`` once: at step ``at``, counted over all instances."""

    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    at, steps, answer = 0, 0, staticmethod(lambda: (np.zeros(3, np.float32), 1.0))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.length = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        Failing.steps, self.length = Failing.steps + 1, self.length + 1
        seen, reward = Failing.answer() if Failing.steps == Failing.at else (np.zeros(3, np.float32), 1.0)
        return seen, reward, False, self.length == 10, {}


gymnasium.register("misbehaving/Failing-v0", Failing)


def fail() -> Any:
    raise RuntimeError("boom\n\n  joint 3 is at its limit")


ANSWERS: dict[str, tuple[Callable[[], Any], int, str, str]] = {
    "raises": (fail, 1, "error", "RuntimeError: boom | joint 3 is at its limit ("),
    "exits": (lambda: exit(0), 1, "error", "SystemExit: 0"),
    "another shape": (
        lambda: (np.zeros(2, np.float32), 1.0),
        1,
        "error",
        "[2] float32; expected [3] float32",
    ),
    "nan": (lambda: (np.array([0, NAN, 0], np.float32), 1.0), 4, "numerics", "next_observation[1] = nan"),
    "a reward of nan": (lambda: (np.zeros(3, np.float32), NAN), 4, "numerics", "reward = nan"),
}


@pytest.mark.parametrize(
    ("name", "at", "every"),
    [("raises", 101, 99), *[(name, at, 0) for name in ANSWERS for at in (101, 2)]],
)
def test_a_run_whose_environment_fails_keeps_a_checkpoint_and_resumes(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, at: int, every: int
) -> None:
    """The 101st step is the 34th of the second environment, so 33 steps of all three are complete."""
    answer, code, status, message = ANSWERS[name]
    monkeypatch.setattr(Failing, "answer", answer)
    monkeypatch.setattr(Failing, "at", at)
    monkeypatch.setattr(Failing, "steps", 0)
    whole = (at - 1) // 3 * 3
    done = command("run", "env=gym", "env.id=misbehaving/Failing-v0", *TINY, f"checkpoint_every={every}")
    assert done.code == code
    assert f"misbehaving/Failing-v0, environment 1, step {whole // 3 + 1}: " in done.err
    assert message in done.err
    assert "Traceback" not in done.err
    (run,) = done.runs
    assert (run.summary["status"], run.summary["env_steps"]) == (status, whole)
    kept = Checkpoints(run.path / "checkpoints", 1).load()
    assert kept
    assert kept.env_steps == whole
    assert kept.state["counters"]["env_steps"] == whole
    assert kept.state["env"] is None
    assert (f"{whole} steps are kept" in done.out) == (whole > 0)

    done = command("resume", str(run.path))
    assert done.code == 0
    assert "new ones begin" in done.out
    assert (run.summary["status"], run.summary["env_steps"]) == ("done", 300)
    assert run.summary["updates"] == 72


def test_a_failed_evaluation_is_repeated_by_resume(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "answer", fail)
    monkeypatch.setattr(Failing, "at", 305)
    monkeypatch.setattr(Failing, "steps", 0)
    done = command("run", "env=gym", "env.id=misbehaving/Failing-v0", *TINY)
    assert done.code == 1
    assert "misbehaving/Failing-v0, environment 0, step 3: RuntimeError: boom" in done.err
    (run,) = done.runs
    assert [path.parent.name for path in run.weights] == ["0000000300"]
    assert command("resume", str(run.path)).code == 0
    assert run.summary["status"] == "done"


def test_a_killed_worker_process_ends_the_run_with_a_checkpoint_that_resumes(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, send = 0, RamWorkers.send

    def killing(self: RamWorkers, *what: Any) -> None:
        nonlocal sent
        sent += 1
        send(self, *what)
        if sent == 30:
            self._processes[1].kill()

    monkeypatch.setattr(RamWorkers, "send", killing)
    atari = ["env=atari_ram", "env.game=breakout", "env.workers=2", "env.max_frames=400"]
    done = command("run", *atari, *TINY)
    assert done.code == 1
    killed = r"breakout-ram, step (30|31): ChildProcessError: the process of games 1 to 2 ended with code -9"
    step = int(re.search(killed, done.err)[1])  # the killed process may have answered once more
    (run,) = done.runs
    assert run.summary["env_steps"] == 3 * (step - 1)
    assert [path.parent.name for path in run.weights] == [f"{3 * (step - 1):010d}"]
    assert command("resume", str(run.path)).code == 0
    assert run.summary["updates"] == 72
