"""Environments with a limit of open instances: how many a run opens, and that it closes them all."""

import json
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from sqn_rl import GymEnv, SettingError, cli, compose

Command = Callable[..., Any]

TINY = ["steps=120", "warmup_steps=60", "batch_size=8", "update_ratio=0.1", "hidden=[4]", "eval_episodes=3"]
RUN = ["run", "env=gym", "env.id=instances/Limited-v0", *TINY]


class Limited(gymnasium.Env):
    """Episodes of five steps; ``most`` instances can be open. Step ``at`` of them all calls ``happens``."""

    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": ["rgb_array"]}
    open: ClassVar[list[gymnasium.Env]] = []
    most, peak, steps, at = 1, 0, 0, -1
    happens: ClassVar[Callable[[], Any]] = staticmethod(lambda: None)

    def __init__(self, render_mode: str | None = None) -> None:
        if len(Limited.open) >= Limited.most:
            raise OSError("the port is in use")
        self.render_mode = render_mode
        Limited.open.append(self)
        Limited.peak = max(Limited.peak, len(Limited.open))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        self.length = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        Limited.steps, self.length = Limited.steps + 1, self.length + 1
        if Limited.steps == Limited.at:
            Limited.happens()
        return np.zeros(3, np.float32), 1.0, False, self.length == 5, {}

    def render(self) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)

    def close(self) -> None:
        Limited.open.remove(self)  # raises if it is closed twice


gymnasium.register("instances/Limited-v0", Limited)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set how many can be open, and what happens at which step; at the end of the test none may be open."""

    def set_to(most: int, at: int = -1, happens: Callable[[], Any] = lambda: None) -> None:
        settings = {"most": most, "at": at, "happens": staticmethod(happens), "peak": 0, "steps": 0}
        for name, value in settings.items():
            monkeypatch.setattr(Limited, name, value)

    Limited.open.clear()
    yield set_to
    assert Limited.open == []


@pytest.mark.parametrize(("most", "num_envs", "eval_every"), [(1, 1, 0), (2, 2, 120), (9, 2, 0)])
def test_evaluating_only_after_training_needs_no_extra_environment(
    command: Command, limit: Callable, most: int, num_envs: int, eval_every: int
) -> None:
    limit(most)
    done = command(*RUN, f"num_envs={num_envs}", f"eval_every={eval_every}")
    assert (done.code, done.err) == (0, "")
    assert ("in 1 environment, as 3 of instances/Limited-v0 do not open" in done.out) == (most < 3)
    assert done.runs[0].rows("evaluations")[0]["returns"] == [5.0] * 3
    assert max(num_envs, min(most, 3)) == Limited.peak

    evaluated = command("evaluate", str(done.runs[0].path))
    assert (evaluated.code, evaluated.out.splitlines()[-1]) == (0, "returns 5 5 5")
    filmed = command("evaluate", str(done.runs[0].path), "--video", "game.gif")
    assert (filmed.code, filmed.err) == (0, "")


@pytest.mark.parametrize(("most", "num_envs", "peak"), [(2, 1, 2), (5, 2, 5)])
def test_evaluating_during_training_needs_one_extra_environment(
    command: Command, limit: Callable, most: int, num_envs: int, peak: int
) -> None:
    limit(most)
    done = command(*RUN, f"num_envs={num_envs}", "eval_every=60")
    assert (done.code, len(done.runs[0].rows("evaluations"))) == (0, 2)
    assert ("in 1 environment" in done.out) == (most < num_envs + 3)
    assert peak == Limited.peak


def test_a_missing_evaluation_environment_is_reported_before_the_first_step(
    command: Command, limit: Callable
) -> None:
    limit(2)
    done = command(*RUN, "num_envs=2", "eval_every=60")
    assert (done.code, done.runs, Limited.steps) == (2, [], 0)
    assert done.err.startswith(
        "command line: eval_every=60: expected 0, as no other instances/Limited-v0 opens "
        "while the 2 of the training are open ("
    )
    assert "OSError: the port is in use" in done.err
    assert "set eval_every=0, which evaluates after training, or lower num_envs" in done.err


def test_more_environments_than_can_be_opened_are_refused(command: Command, limit: Callable) -> None:
    limit(2)
    done = command(*RUN, "num_envs=4")
    assert (done.code, done.runs) == (2, [])
    assert done.err.startswith(
        "command line: num_envs=4: expected at most 2; instances/Limited-v0 cannot be opened "
        "once more: OSError: the port is in use ("
    )
    assert len(done.err.splitlines()) == 1


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise RuntimeError("boom")


FAILING: dict[str, tuple[list[str], int, Callable[[], Any], int]] = {
    "preflight fails": (["actor.policy=q7"], -1, fail, 2),
    "a part fails to be built": (["loss.backup=no"], -1, fail, 2),
    "the run directory is no directory": (["out=/dev/null"], -1, fail, 2),
    "training fails": ([], 31, fail, 1),
    "training is stopped": ([], 31, lambda: signal.raise_signal(signal.SIGINT), 3),
    "training is interrupted": ([], 31, interrupt, 1),
    "an evaluation during training fails": (["eval_every=60"], 61, fail, 1),
    "an evaluation during training is interrupted": (["eval_every=60"], 61, interrupt, 1),
    "the last evaluation fails": ([], 121, fail, 1),
    "the last evaluation is stopped": ([], 121, lambda: signal.raise_signal(signal.SIGTERM), 3),
    "the last evaluation is interrupted": ([], 121, interrupt, 1),
}


@pytest.mark.parametrize("name", FAILING)
def test_every_way_a_run_ends_closes_all_environments(command: Command, limit: Callable, name: str) -> None:
    overrides, at, happens, code = FAILING[name]
    limit(9, at, happens)
    done = command(*RUN, "num_envs=2", *overrides)
    assert done.code == code
    assert "Traceback" not in done.err
    assert Limited.steps >= at


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("number", [1, 3])
def test_a_failing_constructor_closes_the_environments_opened_before(
    limit: Callable, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], number: int
) -> None:
    limit(9)
    make = Limited.__init__

    def failing(self: Limited, **how: Any) -> None:
        if len(Limited.open) == number - 1:
            raise error("no more")
        make(self, **how)

    monkeypatch.setattr(Limited, "__init__", failing)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else SettingError, match="no more"):
        GymEnv(id="instances/Limited-v0", num_envs=4, seed=0)


@pytest.mark.parametrize("settings", [{"num_envs": 0}, {"seed": -1}])
def test_an_invalid_setting_of_gym_env_leaves_no_environment_open(
    limit: Callable, settings: dict[str, int]
) -> None:
    limit(9)
    with pytest.raises(SettingError):
        GymEnv(**{"id": "instances/Limited-v0", "num_envs": 1, "seed": 0} | settings)


def test_a_run_whose_evaluation_environment_does_not_open_fails_and_resumes(
    command: Command, limit: Callable
) -> None:
    limit(1, 31, lambda: setattr(Limited, "most", 0))
    done = command(*RUN, "num_envs=1")
    assert done.code == 1
    assert "instances/Limited-v0: cannot be opened for the evaluation: " in done.err
    (run,) = done.runs
    assert (run.summary["status"], run.summary["env_steps"]) == ("error", 120)
    Limited.most = 1
    assert command("resume", str(run.path)).code == 0
    assert json.loads((run.path / "summary.json").read_text())["evaluation"]["returns"] == [5.0] * 3


def test_an_environment_that_fails_to_close_is_a_warning(
    limit: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(9)
    close = Limited.close

    def closed(self: Limited) -> None:
        close(self)
        raise RuntimeError("stuck")

    monkeypatch.setattr(Limited, "close", closed)
    overrides = ["env=gym", "env.id=instances/Limited-v0", *TINY, "num_envs=2", "out=run"]
    with pytest.warns(UserWarning, match="instances/Limited-v0, when it was closed: RuntimeError: stuck"):
        summary = compose("sqn", *overrides).train()
    assert summary["status"] == "done"


def test_warnings_of_sqn_rl_are_printed_without_their_source_location(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Control characters are escaped; warnings of a library keep their file and line."""

    places = [str(cli.PACKAGE / "parts/env/base.py"), "/library/module.py"]

    @cli.command
    def main(argv: Sequence[str] | None) -> int:
        print(*(warnings.formatwarning("stuck\x1b[1m", UserWarning, place, 7) for place in places), sep="")
        return 0

    shown = warnings.formatwarning
    assert main([]) == 0
    assert warnings.formatwarning is shown
    assert capsys.readouterr().out == (
        "warning: stuck\\x1b[1m\n/library/module.py:7: UserWarning: stuck\x1b[1m\n\n"
    )
