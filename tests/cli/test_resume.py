"""``sqn-resume`` and ``resume=auto``: a run resumes from its last checkpoint, or is refused with a reason."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from reliability.trials import Killed, differences, train

from sqn_rl import RecipeError, compose, disk
from sqn_rl.parts.env.games import GamesEnv
from sqn_rl.runs.directory import RunDirectory
from sqn_rl.runs.manifest import extended
from sqn_rl.training.stopping import StopRequest, signals_to

Command = Callable[..., Any]

TINY = ["steps=240", "warmup_steps=60", "num_envs=2", "update_ratio=0.25", "batch_size=8", "hidden=[8]"]
TINY += ["log_every=40", "checkpoint_every=80", "eval_every=120", "eval_episodes=2"]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, Callable[[], Any]], None]:
    """``at("metrics", 2, act)`` calls ``act`` after the run directory received its second metrics row."""

    def have(event: str, number: int, act: Callable[[], Any]) -> None:
        seen, hear = [], getattr(RunDirectory, event)

        def listen(self: RunDirectory, *what: Any) -> None:
            hear(self, *what)
            seen.append(what)
            if len(seen) == number:
                act()

        monkeypatch.setattr(RunDirectory, event, listen)

    return have


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(run, *TINY) == "done"
    return run


def send(name: str) -> Callable[[], None]:
    return lambda: signal.raise_signal(signal.Signals[name])


# --- signals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_a_run_stopped_by_a_signal_resumes_and_equals_an_uninterrupted_run(
    name: str, uninterrupted: Path, command: Command, at: Callable
) -> None:
    at("metrics", 2, send(name))
    stopped = command("run", *TINY, "out=stopped")
    assert stopped.code == 3
    assert f"stopped by {name} after 120 steps; resume with `sqn-resume stopped`" in stopped.out
    done = command("resume", "stopped")
    assert (done.code, done.err) == (0, "")
    assert "resuming from stopped/checkpoints/0000000120" in done.out
    assert differences(uninterrupted, Path("stopped")) == []
    summary = json.loads(Path("stopped/summary.json").read_text())
    assert (summary["status"], summary["env_steps"]) == ("done", 240)


@pytest.mark.parametrize("number", [2, 3])
def test_an_evaluation_stopped_by_a_signal_is_repeated_by_the_resumed_run(
    number: int, uninterrupted: Path, command: Command, at: Callable
) -> None:
    at("checkpoint", number, send("SIGTERM"))  # before the evaluation at 120 or 240, which has no row yet
    stopped = command("run", *TINY, "out=stopped", "checkpoint_every=60")
    assert stopped.code == 3
    rows = Path("stopped/evaluations.jsonl")
    assert not rows.exists() or len(rows.read_text().splitlines()) == number - 2
    assert command("resume", "stopped").code == 0
    for name in ("metrics", "episodes", "evaluations"):
        lines = [(run / f"{name}.jsonl").read_text() for run in (uninterrupted, Path("stopped"))]
        without_times = [re.sub(r'"wall_s": [\d.]+', "", text) for text in lines]
        assert without_times[0] == without_times[1]


def test_a_second_signal_stops_the_run_at_once_without_another_checkpoint(
    command: Command, at: Callable
) -> None:
    def twice() -> None:
        send("SIGTERM")()
        send("SIGINT")()

    at("metrics", 3, twice)
    done = command("run", *TINY, "out=run")
    assert (done.code, done.err.splitlines()[-1]) == (1, "interrupted")
    assert [path.parent.name for path in done.runs[0].weights] == ["0000000080"]
    assert command("resume", "run").code == 0


def test_ctrl_c_in_python_stops_with_a_checkpoint_that_resumes_exactly(
    uninterrupted: Path, command: Command, at: Callable
) -> None:
    at("metrics", 2, send("SIGINT"))
    with pytest.raises(
        KeyboardInterrupt, match=r"^stopped after 120 steps; resume with `sqn-resume stopped`$"
    ):
        compose("sqn", *TINY, "out=stopped").train()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert json.loads(Path("stopped/summary.json").read_text())["status"] == "stopped"
    assert command("resume", "stopped").code == 0
    assert differences(uninterrupted, Path("stopped")) == []


def test_train_leaves_sigint_to_an_installed_handler_and_works_in_a_thread(
    at: Callable, folder: Path
) -> None:
    stop = StopRequest()
    with signals_to(stop.receive):
        at("metrics", 2, send("SIGINT"))
        assert compose("sqn", *TINY, "out=stopped").train(should_stop=stop)["status"] == "stopped"
    with ThreadPoolExecutor() as threads:  # a thread receives no signals
        run = threads.submit(compose("sqn", *TINY, "out=thread").train)
    assert run.result()["status"] == "done"


@pytest.mark.parametrize("checkpoint_every", [80, 120])
@pytest.mark.parametrize("happens", ["an_error, at: 121", "SIGTERM, at: 120", "SIGTERM+SIGINT, at: 121"])
def test_each_step_is_evaluated_once_if_a_run_is_interrupted_near_an_evaluation(
    happens: str, checkpoint_every: int, command: Command, trusting: list[str]
) -> None:
    task = ["env=gym", "env.id=users/Task-v0", f"env.kwargs={{happens: {happens}}}", "num_envs=1"]
    ended = command("run", *trusting, *TINY, *task, f"checkpoint_every={checkpoint_every}", "out=run")
    assert ended.code in (1, 3)
    done = command("resume", *trusting, "run")
    while done.code:  # the resumed run is interrupted again
        done = command("resume", *trusting, "run")
    assert [row["env_steps"] for row in done.runs[0].rows("evaluations")] == [120, 240]


def test_a_run_resumed_from_step_0_is_not_evaluated_there(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fails in its first step resumes from step 0, which no uninterrupted run evaluates."""
    with monkeypatch.context() as once:
        once.setattr(GamesEnv, "_receive", None)
        assert command("run", *TINY, "out=run").code == 1
    assert Path("run/checkpoints/0000000000").is_dir()
    assert [row["env_steps"] for row in command("resume", "run").runs[0].rows("evaluations")] == [120, 240]


def test_a_signal_repeated_at_once_counts_as_one(command: Command, at: Callable) -> None:
    def to_a_group_and_passed_on() -> None:
        for _ in range(2):
            send("SIGTERM")()

    at("metrics", 2, to_a_group_and_passed_on)
    assert command("run", *TINY, "out=run").code == 3
    assert [path.name for path in Path("run/checkpoints").glob("0*")] != []


def test_a_signal_repeated_later_counts_as_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    received = list[str]()
    monkeypatch.setattr("sqn_rl.training.stopping.REPEAT_SECONDS", 0.0)
    with signals_to(lambda number, _: received.append(number.name) or True):
        for _ in range(2):
            send("SIGTERM")()
    assert received == ["SIGTERM"] * 2


# --- a larger budget ---------------------------------------------------------------------------------------


def test_an_extended_run_equals_a_run_with_the_larger_budget(command: Command, uninterrupted: Path) -> None:
    short = [each for each in TINY if not each.startswith("steps=")]
    assert command("run", *short, "steps=120", "out=run").code == 0
    done = command("resume", "run", "steps=160")
    assert (done.code, "resuming from run/checkpoints/0000000120" in done.out) == (0, True)
    assert command("resume", "run", "steps=240").code == 0
    files = done.runs[-1]
    assert (
        files.weights[-1].read_bytes()
        == (uninterrupted / "checkpoints/0000000240/weights.safetensors").read_bytes()
    )
    for name in ("metrics", "episodes", "evaluations"):
        there = [json.loads(line) for line in (uninterrupted / f"{name}.jsonl").read_text().splitlines()]
        for row in there:
            row.pop("wall_s", None)
        assert files.rows(name, "wall_s") == there
    line = (files.path / "recipe.yaml").read_text().splitlines()[0]
    first = "before: 120 <- command line: steps=120"
    assert line == f"steps: 240  # command line: steps=240, before: 160 <- command line: steps=160, {first}"


@pytest.mark.parametrize(
    "kind",
    [
        ["env=cartpole_masked"],
        ["recipe=sqn_r2d2", "env=recall", "returns.n=2", "q_net.units=8", "replay.beta=1.0"],
        ["collect=inline", "collect.actors=2", "collect.rows=5"],
        ["env=minatar", "returns=tree_backup"],
    ],
    ids=["masks", "memory", "actors", "frames"],
)
def test_an_extended_run_of_each_kind_equals_a_run_with_the_larger_budget(
    kind: list[str], command: Command
) -> None:
    settings = [*kind, *[each for each in TINY if not each.startswith("steps=")], "compile=never"]
    assert command("run", *settings, "steps=240", "out=whole").code == 0
    assert command("run", *settings, "steps=160", "out=run").code == 0
    assert command("resume", "run", "steps=240").code == 0
    assert [name for name in differences(Path("whole"), Path("run")) if "recipe" not in name] == []


def test_a_run_killed_just_after_its_extension_resumes_to_the_new_budget(command: Command) -> None:
    command("run", *TINY, "out=run")
    recipe = Path("run/recipe.yaml")
    longer = extended(recipe.read_text(), 280)
    recipe.write_text(longer)
    assert command("resume", "run").code == 0
    assert json.loads(Path("run/summary.json").read_text())["env_steps"] == 240  # done, by its summary
    Path("run/summary.json").unlink()
    assert command("resume", "run").code == 0
    assert json.loads(Path("run/summary.json").read_text())["env_steps"] == 280
    recipe.write_text(longer.replace("batch_size: 8", "batch_size: 9"))
    done = command("resume", "run", "steps=300")
    assert (done.code, "recipe.yaml: damaged" in done.err) == (2, True)


def test_an_extension_notes_the_schedules_that_span_the_new_budget(command: Command) -> None:
    command("run", *TINY, "replay=prioritized", "temperature=annealed", "out=run")
    out = command("resume", "run", "steps=280").out
    notes = re.findall(r"the schedule of (\w+) \(\w+\) now spans 280 steps", out)
    assert notes == ["temperature", "replay"]
    assert "schedule" not in command("resume", "run").out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps=100", "expected at least 240, the budget that the run has"),
        ("steps=abc", "expected a whole number of environment steps"),
        ("lr=1", "only steps=N can be changed"),
        ("head=dueling", "only steps=N can be changed"),
    ],
)
def test_resume_refuses_any_change_but_a_larger_budget(
    change: str, message: str, command: Command, uninterrupted: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    done = command("resume", str(uninterrupted), change)
    assert (done.code, message in done.err) == (2, True)
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before


def test_run_with_another_budget_is_refused_with_the_command_that_resumes(command: Command) -> None:
    command("run", *TINY, "out=run")
    longer = [each for each in TINY if not each.startswith("steps=")]
    done = command("run", *longer, "steps=280", "out=run", "resume=auto")
    assert (done.code, "`sqn-resume run steps=280`" in done.err) == (2, True)
    assert "`sqn-resume run steps=N` extends it" in command("resume", "run").out
    assert "the run is extended to 280 steps" in command("resume", "run", "steps=280").out
    done = command("run", *TINY, "out=run", "resume=auto")  # whose budget is smaller than the run's by now
    assert (done.code, "resume it with `sqn-resume run`, or" in done.err) == (2, True)


def test_train_refuses_to_resume_a_run_with_other_settings(uninterrupted: Path) -> None:
    other = compose("sqn", *[each for each in TINY if not each.startswith("steps=")], steps=400, gamma=0.5)
    recipe = (uninterrupted / "recipe.yaml").read_text()
    with pytest.raises(RecipeError, match=r"gamma=0.5: the run in .* has 0.99"):
        other.train(resume=uninterrupted)
    assert (uninterrupted / "recipe.yaml").read_text() == recipe


# --- auto --------------------------------------------------------------------------------------------------


def test_auto_starts_a_run_resumes_it_and_leaves_a_finished_run_unchanged(
    command: Command, at: Callable
) -> None:
    auto = [*TINY, "out=run", "resume=auto"]
    at("metrics", 2, send("SIGUSR1"))
    assert command("run", *auto).code == 3
    done = command("run", *auto)
    assert (done.code, "resuming from run/checkpoints/0000000120" in done.out) == (0, True)
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    again = command("run", *auto)
    assert (again.code, "run is done already" in again.out) == (0, True)
    assert command("resume", "run").code == 0
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


def test_auto_without_an_out_directory_is_refused(command: Command) -> None:
    done = command("run", *TINY, "resume=auto")
    assert done.code == 2
    assert done.err.startswith("command line: resume=auto: expected `never`, as no out=DIR says")


def test_auto_refuses_a_setting_that_differs_from_the_run(command: Command, at: Callable) -> None:
    at("metrics", 2, send("SIGTERM"))
    assert command("run", *TINY, "out=run", "resume=auto").code == 3
    done = command("run", *TINY, "out=run", "resume=auto", "tau=0.5")
    assert done.code == 2
    message = (
        r"command line: tau=0.5: .* = 0.5: the run in run has 0.05 \(run/recipe.yaml:\d+\)\n.*sqn-resume run"
    )
    assert re.match(message, done.err)


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        (
            ["optimizer.weight_decay=0.1"],
            [],
            r"weight_decay is not set: the run in .* has 0.1 \(.*:\d+\)",
        ),
        (
            [],
            ["optimizer.weight_decay=0.1"],
            r"weight_decay=0.1: the run in .* has no such value\n",
        ),
    ],
    ids=["only the run's", "only the recipe's"],
)
def test_auto_refuses_a_setting_that_only_the_run_or_the_recipe_has(
    own: list[str], other: list[str], message: str, tmp_path: Path
) -> None:
    auto = [*TINY, f"out={tmp_path / 'run'}", "resume=auto"]
    stop = iter([False] * 10 + [True])
    compose("sqn", *auto, *own).train(should_stop=lambda: next(stop, True))
    with pytest.raises(RecipeError, match=message):
        compose("sqn", *auto, *other).train()


def test_a_run_killed_before_its_first_checkpoint_restarts_from_step_0(
    uninterrupted: Path, command: Command
) -> None:
    left_out = shutil.ignore_patterns("0*", "summary.json")
    killed = shutil.copytree(uninterrupted, "killed", ignore=left_out)
    assert {path.name for path in Path("killed/checkpoints").iterdir()} == {"replay"}
    Path("killed/checkpoints/0000000080.partial").mkdir()
    assert command("resume", killed).code == 0
    assert differences(uninterrupted, Path("killed")) == []


# --- refusals and messages ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints after 80 and 160 of 240 steps, killed after the second."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Killed):
        train(run, *TINY, die=(run / "checkpoints" / "0000000160").exists)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"0000000080", "0000000160", "replay"}
    return run


@pytest.fixture
def run(stopped: Path, folder: Path) -> Path:
    """A copy of ``stopped``, to be changed."""
    return Path(shutil.copytree(stopped, folder / "run"))


def test_a_damaged_checkpoint_is_skipped_with_a_message(run: Path, command: Command) -> None:
    path = run / "checkpoints" / "0000000160" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    done = command("resume", str(run))
    assert done.code == 0
    assert re.search(rf"^{path}: damaged: [\d,]+ bytes instead of [\d,]+; skipped$", done.out, re.MULTILINE)
    assert f"resuming from {run}/checkpoints/0000000080" in done.out


def _both_damaged(run: Path) -> None:
    for path in run.glob("checkpoints/*/weights.safetensors"):
        path.write_bytes(b"")


def _other_recipe(run: Path) -> None:
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))


def _log_lost(run: Path) -> None:
    (run / "metrics.jsonl").unlink()


def _no_run(run: Path) -> None:
    (run / "recipe.yaml").unlink()


def _secrets(run: Path) -> None:
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: ${oc.env:HOME}"))


LONGER = pytest.mark.parametrize("budget", [(), ("steps=1000",)], ids=["resumed", "extended"])


@LONGER
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _both_damaged,
            r"{run}/checkpoints: no checkpoint is whole:\n{run}/.*160/weights.*\n{run}/.*080/weights",
        ),
        (
            _other_recipe,
            r"{run}/checkpoints: no checkpoint is whole:\n{run}/recipe.yaml: damaged: its contents[^\n]*\n"
            r"  bring the files back as they were, or start again",
        ),
        (_log_lost, r"{run}/checkpoints: no checkpoint is whole:\n{run}/metrics.jsonl: cannot be read"),
        (_no_run, r"{run}: not a run directory: there is no recipe.yaml in it"),
        (_secrets, r"{run}/recipe.yaml:\d+: seed = \${oc.env:HOME}: `\${…}` takes the name of a value"),
    ],
)
def test_a_run_without_a_usable_checkpoint_or_recipe_is_refused_unchanged(
    damage: Callable, message: str, budget: tuple[str, ...], run: Path, command: Command
) -> None:
    damage(run)
    files = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    done = command("resume", str(run), *budget)
    assert done.code == 2
    assert re.match(message.replace("{run}", str(run)), done.err)
    left = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file() and path.name != ".lock"}
    assert left == {path: text for path, text in files.items() if path.name != ".lock"}


def _unreadable(run: Path) -> str:
    path = run / "checkpoints" / "0000000160" / "state.safetensors"
    return f"{path}: cannot be read (Input/output error)"


def _newer_format(run: Path) -> str:
    path = run / "checkpoints" / "0000000160" / "manifest.json"
    _resigned(path, format=99)
    return f"{path}: format 99; this version of sqn_rl reads 2"


def _checkpoints_gone(run: Path) -> str:
    shutil.rmtree(run / "checkpoints")
    return f"{run}/checkpoints: no checkpoint is there, but metrics.jsonl has rows; nothing was changed"


def _not_mounted(run: Path) -> str:
    message = _checkpoints_gone(run)
    (run / "checkpoints").mkdir()
    return message


@LONGER
@pytest.mark.parametrize("happens", [_unreadable, _newer_format, _checkpoints_gone, _not_mounted])
def test_resume_refuses_unreadable_or_missing_checkpoints_and_changes_no_file(
    happens: Callable[[Path], str],
    budget: tuple[str, ...],
    run: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = happens(run)
    files = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    digest_of = disk.digest_of

    def fail(path: Path, size: int) -> Any:
        if path.match("0000000160/state.safetensors"):
            raise disk.read_error(path, OSError(errno.EIO, os.strerror(errno.EIO)))
        return digest_of(path, size)

    with monkeypatch.context() as patch:
        if happens is _unreadable:
            patch.setattr(disk, "digest_of", fail)
        done = command("resume", str(run), *budget)
    assert done.code == 2
    assert done.err.startswith(message)
    assert {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()} == files


def _resigned(path: Path, **changes: Any) -> None:
    """Change a manifest, and sign it."""
    content = json.loads(path.read_text()) | changes
    del content["sha256"]
    digest = sha256(json.dumps(content, indent=1).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": digest}, indent=1))


def test_resume_notes_versions_and_threads_that_differ_from_the_checkpoint(
    run: Path, command: Command
) -> None:
    path = run / "checkpoints" / "0000000160" / "manifest.json"
    made_with = json.loads(path.read_text())["made_with"]
    assert {"python", "torch", "numpy", "gymnasium", "ale-py", "instructions", "amx"} <= made_with.keys()
    assert {"threads", "compiled", "precision", "processor"} <= made_with.keys()
    _resigned(path, made_with=made_with | {"torch": "1.0", "threads": 64})
    done = command("resume", str(run))
    assert done.code == 0
    changes = (
        rf"the checkpoint was made with torch 1\.0, now {re.escape(made_with['torch'])}; threads 64, now 1: "
    )
    assert re.search(f"{changes}what follows may be rounded or played differently", done.out)


def test_resume_on_the_same_machine_notes_no_difference(run: Path, command: Command) -> None:
    done = command("resume", str(run))
    assert done.code == 0
    assert "the checkpoint was made with" not in done.out


def test_a_checkpoint_without_recorded_versions_resumes(run: Path, command: Command) -> None:
    for path in run.glob("checkpoints/*/manifest.json"):
        content = json.loads(path.read_text())
        del content["made_with"]
        path.write_text(json.dumps(content))
        _resigned(path)
    done = command("resume", str(run))
    assert done.code == 0
    assert "resuming from" in done.out
    assert "the checkpoint was made with" not in done.out


def _removed(run: Path) -> None:
    shutil.rmtree(run)


def _replaced(run: Path) -> None:
    shutil.move(run, run.with_name("elsewhere"))
    shutil.copytree(run.with_name("elsewhere"), run)


def _unlocked(run: Path) -> None:
    (run / ".lock").unlink()


def _locked_by_another(run: Path) -> None:
    _unlocked(run)
    RunDirectory(run, "", resume=True).close()


@pytest.mark.parametrize(
    ("lose", "event"),
    [
        (_removed, "metrics"),
        (_replaced, "checkpoint"),
        (_unlocked, "metrics"),
        (_locked_by_another, "evaluation"),
    ],
)
def test_a_run_that_loses_its_directory_stops_and_leaves_it_alone(
    lose: Callable[[Path], None], event: str, run: Path, command: Command, at: Callable
) -> None:
    left = {}

    def happen() -> None:
        lose(run)
        left.update({path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()})

    at(event, 1, happen)
    done = command("resume", str(run))
    assert done.code == 1
    assert done.err.startswith(f"{run}: the directory, or its .lock, was moved or removed while the run was")
    assert {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()} == left


def test_an_environment_that_changes_the_working_directory_does_not_move_the_run(command: Command) -> None:
    Path("recipes").mkdir()
    Path("elsewhere").mkdir()
    Path("moving_games.py").write_text(MOVING.format(str(Path("elsewhere").absolute())))
    trust = ["--config-dir", ".", "--trust", "moving_games", "env=gym", "env.id=moving/Task-v0"]
    here = Path.cwd()
    done = command("run", *trust, *TINY, "out=run")
    assert (done.code, Path.cwd()) == (0, here / "elsewhere")
    os.chdir(here)
    assert json.loads(Path("run/summary.json").read_text())["status"] == "done"
    assert [*Path("elsewhere").iterdir()] == []


def test_a_locked_directory_is_refused_so_two_runs_never_mix(run: Path, command: Command) -> None:
    other = RunDirectory(run, "", resume=True)
    try:
        for attempt in (
            ["resume", str(run)],
            ["run", *TINY, f"out={run}"],
            ["run", *TINY, f"out={run}", "resume=auto"],
        ):
            done = command(*attempt)
            assert done.code == 2
            assert "expected a directory that no other run is writing to" in done.err
    finally:
        other.close()
    assert command("resume", str(run)).code == 0


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_full_or_failing_disk_is_reported_and_the_run_resumes_later(
    error: int, run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = os.write, []

    def fill(file: int, data: bytes) -> int:
        if str(run) in os.readlink(f"/proc/self/fd/{file}"):
            written.append(len(data))
            if len(written) > 10:
                raise OSError(error, os.strerror(error))
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        done = command("resume", str(run))
    assert done.code == 1
    line = f"{run}: cannot be written: {os.strerror(error)}; the checkpoints there are whole; resume with"
    assert done.err == f"{line} `sqn-resume {run}`\n"
    assert command("resume", str(run)).code == 0


MOVING = """
import os
import gymnasium
import numpy as np


class Moving(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        os.chdir({!r})

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {{}}

    def step(self, action):
        return np.zeros(3, np.float32), 1.0, False, True, {{}}


gymnasium.register("moving/Task-v0", Moving)
"""

# --- environments that cannot be saved ---------------------------------------------------------------------

UNSEEDED = '''
import gymnasium
import numpy as np


class Unseeded(gymnasium.Env):
    """No two episodes are the same, whatever the seed."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.random.uniform(-1, 1, 3).astype(np.float32), 1.0, False, self.steps == 25, {}


gymnasium.register("unseeded/Task-v0", Unseeded)
'''


def test_an_unrepeatable_environment_starts_new_episodes_on_resume_with_a_note(
    command: Command, at: Callable
) -> None:
    Path("recipes").mkdir()
    Path("unseeded_games.py").write_text(UNSEEDED)
    trust = ["--config-dir", ".", "--trust", "unseeded_games"]
    at("metrics", 2, send("SIGTERM"))
    task = ["env=gym", "env.id=unseeded/Task-v0"]
    assert command("run", *trust, *TINY, *task, "out=run").code == 3
    done = command("resume", *trust, "run")
    assert done.code == 0
    assert "did not reach the saved state" in done.out
    assert "the episodes in progress are lost, and new ones begin" in done.out
    lengths = [json.loads(line)["length"] for line in Path("run/episodes.jsonl").read_text().splitlines()]
    assert set(lengths) == {25}


def test_an_envpool_run_starts_new_episodes_on_resume_with_a_note(command: Command, at: Callable) -> None:
    pytest.importorskip("envpool")
    at("metrics", 2, send("SIGTERM"))
    first = command("run", *TINY, "env=envpool", "env.id=CartPole-v1", "out=run")
    assert first.code == 3
    assert "CartPole-v1 cannot save its state: a resumed run starts new episodes" in first.out
    manifest = max(Path("run/checkpoints").glob("*/manifest.json"))
    assert json.loads(manifest.read_text())["made_with"]["envpool"] == version("envpool")
    done = command("resume", "run")
    assert done.code == 0
    assert "CartPole-v1: the episodes in progress are lost, and new ones begin" in done.out
    lengths = [json.loads(line)["length"] for line in Path("run/episodes.jsonl").read_text().splitlines()]
    assert min(lengths) >= 8  # no pole falls earlier, so no length was counted from the middle of an episode
    assert json.loads(Path("run/summary.json").read_text())["status"] == "done"


# --- sweeps ------------------------------------------------------------------------------------------------


def test_a_repeated_sweep_skips_finished_jobs_and_runs_the_missing_ones(
    command: Command, trusting: list[str]
) -> None:
    task = ["env=gym", "env.id=users/Task-v0", *TINY, "-m", "env.kwargs.happens=nothing,an_error", "seed=0,1"]
    sweep = [*trusting, *task, "out=sweep", "resume=auto"]
    first = command("run", *sweep)
    assert first.code == 1
    names = [f"env.kwargs.happens={what},seed={seed}" for what in ("nothing", "an_error") for seed in (0, 1)]
    assert [path.name for path in sorted(Path("sweep").iterdir(), reverse=True)] == sorted(
        names, reverse=True
    )
    good, _, *bad = first.out.splitlines()[-4:]
    assert re.fullmatch(rf"{re.escape(names[0])} +\d+\.\d ± \d+\.\d  sweep/{re.escape(names[0])}", good)
    assert [re.sub(" +", " ", line) for line in bad] == [f"{name} failed, exit code 1" for name in names[2:]]

    shutil.rmtree(Path("sweep", names[1]))
    before = {path: path.stat().st_mtime_ns for path in Path("sweep", names[0]).rglob("*")}
    again = command("run", *sweep)
    assert again.code == 1
    assert f"sweep/{names[0]} is done already" in again.out
    assert f"sweep/{names[1]} is done already" not in again.out
    assert json.loads(Path("sweep", names[1], "summary.json").read_text())["status"] == "done"
    assert {path: path.stat().st_mtime_ns for path in Path("sweep", names[0]).rglob("*")} == before


def test_sweep_jobs_have_distinct_folders_with_portable_names(command: Command) -> None:
    short = ["steps=20", "eval_episodes=1", "-m", "out=sweep"]
    assert command("run", *short, "encoder.hidden=[8],[8,8]").code == 0
    names = [path.name for path in Path("sweep").iterdir()]
    assert all(re.fullmatch(r"[\w=.,+-]+", name) for name in names)
    assert len(names) == 2


# --- as a process ------------------------------------------------------------------------------------------


def test_a_killed_process_resumes_and_logs_every_row_once(folder: Path) -> None:
    longer = [*TINY, "steps=800", "checkpoint_every=100", "out=run", "resume=auto"]
    run = [sys.executable, "-c", "from sqn_rl.cli.run import main; raise SystemExit(main())", *longer]
    process = subprocess.Popen(run, stdout=subprocess.DEVNULL)
    while not Path("run/checkpoints/0000000200/manifest.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not Path("run/summary.json").exists()
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0
    assert re.search(r"resuming from run/checkpoints/0000000\d+", done.stdout)
    rows = [json.loads(line)["env_steps"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rows == [*range(80, 801, 40)]
