"""``sqn-run``: its files, its output and its exit codes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from matplotlib.image import imread
from reliability.trials import differences
from rich.console import Console
from safetensors.torch import load_file

from sqn_rl.cli.terminal.screen import announce
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe

Command = Callable[..., object]

SQN_RUN = Path(sys.executable).with_name("sqn-run")
TINY = ["steps=300", "warmup_steps=100", "num_envs=4", "update_ratio=0.5", "log_every=100", "eval_episodes=2"]
LONG = ["steps=1e7", "warmup_steps=100", "log_every=100"]

COUNTERS = {"env_steps", "frames", "updates", "episodes", "wall_s"}
LEARNER = {"loss_q", "loss_alpha", "td_error", "q_mean", "alpha", "entropy", "target_entropy", "off_greedy"}
SHORT = ["env.max_frames=400", "num_envs=2"]
NEEDED = {
    "gym": ["env.id=MountainCar-v0"],
    "envpool": ["env.id=CartPole-v1"],
    "football": ["env.max_episode_steps=30", "num_envs=2", "steps=140", "update_ratio=0.2", "log_every=20"],
    "atari_ram": SHORT,
    "atari": [*SHORT, "steps=140", "batch_size=8", "log_every=20"],
}
"""Overrides that an env needs in order to work, or to be fast."""

CATALOGUE = Catalogue()


# --- the files of a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("seed=0", None),
        ("warmup_steps=300", " within the warm-up"),
        ("num_envs=300", ", as each environment takes one step only"),
    ],
)
def test_a_run_without_an_update_notes_that_nothing_will_be_learned(
    command: Command, setting: str, reason: str | None
) -> None:
    out = command("run", *TINY, setting).out
    found = [line for line in out.splitlines() if "will be learned" in line]
    assert found == ([f"note: nothing will be learned{reason} (command line: {setting})"] if reason else [])
    checked = command("run", *TINY, setting, "--dry-run").err
    assert [line for line in checked.splitlines() if "will be learned" in line] == found


@pytest.mark.usefixtures("curves")
def test_a_run_directory_contains_the_logs_checkpoints_curve_and_summary(command: Command) -> None:
    done = command("run", *TINY, "eval_every=200", "checkpoint_every=200", "seed=3")
    assert done.code == 0
    (run,) = done.runs
    assert re.fullmatch(r"runs/sqn/CartPole-v1/\d{8}-\d{6}-s3", run.path.relative_to(Path.cwd()).as_posix())
    assert {path.name for path in run.path.iterdir()} == {
        *("recipe.yaml", "metrics.jsonl", "episodes.jsonl", "evaluations.jsonl"),
        *("checkpoints", "curve.png", "summary.json", ".lock"),
    }

    metrics = run.rows("metrics")
    assert [row["env_steps"] for row in metrics] == [200, 300]  # at 100 there was no update yet
    assert all(row.keys() == {*COUNTERS, *LEARNER, "return_mean"} for row in metrics)
    assert [row["updates"] for row in metrics] == [50, 100]  # one for two steps
    assert all(row["frames"] == row["env_steps"] for row in metrics)

    episodes = run.rows("episodes")
    assert all(row.keys() == {"env_steps", "return", "length"} for row in episodes)
    assert all(row["return"] == row["length"] for row in episodes)  # CartPole gives one a step
    assert metrics[-1]["episodes"] == len(episodes) > 5

    evaluations = run.rows("evaluations")
    assert [row["env_steps"] for row in evaluations] == [200, 300]
    keys = {"env_steps", "mean", "std", "iqm", "episodes", "returns", "lengths", "greedy", "cut"}
    assert all(row.keys() == keys for row in evaluations)
    assert [len(row["returns"]) for row in evaluations] == [2, 2]

    assert [path.parent.name for path in run.weights] == ["0000000200", "0000000300"]
    assert {"temperature.alpha"} < load_file(run.weights[-1]).keys()
    assert imread(run.path / "curve.png").shape == (1056, 1430, 4)


def test_the_summary_records_results_versions_and_hardware(command: Command) -> None:
    (run,) = command("run", *TINY, "env=acrobot", "seed=2", "env.kwargs.max_episode_steps=50").runs
    summary = run.summary
    assert summary["status"] == "done"
    assert [summary[key] for key in ("recipe", "env", "seed")] == ["sqn", "Acrobot-v1", 2]
    assert Path(summary["out"]).resolve() == run.path
    assert [summary[key] for key in ("env_steps", "frames", "updates")] == [300, 300, 100]
    assert summary["steps_per_s"] == pytest.approx(300 / summary["wall_s"], rel=0.05)
    (evaluation,) = run.rows("evaluations")
    assert summary["evaluation"] == evaluation
    assert (evaluation["mean"], evaluation["std"], evaluation["iqm"]) == (-50, 0, -50)
    assert evaluation["episodes"] == 2
    assert {"sqn_rl", "torch", "torchrl", "tensordict", "gymnasium", "python"} < summary["versions"].keys()
    assert {"git_revision", "command", "finished"} < summary.keys()
    assert summary["hardware"].keys() == {"processor", "threads", "platform"}


def test_the_recipe_file_of_a_run_trains_the_same_recipe_again(command: Command, folder: Path) -> None:
    first = command("run", *TINY, "recipe=sqn_dueling", "actor.policy=min", "tau=0.1")
    recipe = load_recipe(first.runs[0].path / "recipe.yaml")
    assert recipe.run.recipe == "sqn_dueling"
    assert (recipe.fields("actor"), recipe.fields("target_update")) == ({"policy": "min"}, {"tau": 0.1})

    from sqn_rl import Experiment

    Experiment(load_recipe(first.runs[0].path / "recipe.yaml", "out=again")).train()
    again = load_recipe(folder / "again" / "recipe.yaml")
    assert again.config == recipe.config | {"out": "again"}
    assert differences(first.runs[0].path, folder / "again") == []


def test_output_without_a_terminal_is_plain_lines(command: Command) -> None:
    done = command("run", *TINY, "eval_every=200")
    assert "\x1b" not in done.out
    number = r"-?[\d.,]+"
    for line in (
        rf"200/300  return {number}  α {number}  entropy {number}  {number} steps/s  0:00:0\d left",
        rf"evaluation at 200 steps: {number} ± {number} \(mean ± std of 2 greedy episodes\)",
        r"encoder +mlp +hidden=\[\d+,\d+\]",
        r"q_net +twin +members=2 shared_encoder=false",  # as an override is written
    ):
        assert re.search(f"^{line}$", done.out, re.MULTILINE)
    assert done.out.splitlines()[-2].split() == ["curve", f"{done.runs[0].summary['out']}/curve.png"]
    assert done.out.splitlines()[-1].split() == ["run", done.runs[0].summary["out"]]
    assert done.err == ""


RULES = {
    "atari": "game=pong sticky_actions=0.25 frame_skip=4 frame_stack=4 noop_max=0 fire_reset=false "
    "clip_reward=true life_loss=false max_frames=108000 threads=0",
    "atari_ram": "game=pong sticky_actions=0.25 frame_skip=4 clip_reward=true life_loss=false "
    "max_frames=108000 workers=null",
    "cartpole": "id=CartPole-v1",
    "minatar": "game=breakout sticky_action_prob=0.1 minimal_actions=true difficulty_ramping=true "
    "clip_reward=false max_episode_steps=10000",
}


@pytest.mark.parametrize("env", RULES)
def test_a_run_prints_the_env_settings_that_its_scores_depend_on(
    env: str, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(compose_recipe("sqn", f"env={env}"), Console())
    assert re.search(f"^env +{env} +{re.escape(RULES[env])}$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("overrides", "unread"),
    [
        (["tau=0.5"], []),
        (["tau=0.5", "target_update=periodic"], ["tau"]),
        (["tau=0.5", "target_update=periodic", "initial_alpha=1", "temperature=fixed", "lr=1"], ["tau"]),
        (["target_update=periodic", "recipe=sqn_quantile", "v_min=-1", "kappa=2"], ["v_min"]),
    ],
)
def test_a_setting_that_no_part_reads_is_noted(
    overrides: list[str], unread: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    announce(compose_recipe("sqn", *overrides), Console())
    notes = re.findall(r"note: no part of this run reads (\w+) \(command line: \1=", capsys.readouterr().out)
    assert notes == unread


@pytest.mark.parametrize("env", CATALOGUE.names("env"))
def test_sqn_trains_in_every_env(env: str, command: Command) -> None:
    done = command("run", f"env={env}", *TINY, *NEEDED.get(env, []), "eval_episodes=1")
    assert done.code == 0
    assert done.runs[0].summary["status"] == "done"
    assert done.runs[0].rows("metrics")


# --- steps and updates -------------------------------------------------------------------------------------


def test_a_run_shorter_than_its_warm_up_is_evaluated_without_an_update(command: Command) -> None:
    (run,) = command("run", "steps=50", "warmup_steps=100", "eval_episodes=1").runs
    assert (run.summary["status"], run.summary["updates"]) == ("done", 0)
    assert run.summary["evaluation"]["episodes"] == 1
    assert not (run.path / "metrics.jsonl").exists()
    assert len(run.weights) == 1


def test_steps_are_rounded_up_to_a_multiple_of_the_environments(command: Command) -> None:
    (run,) = command("run", *TINY, "num_envs=7", "update_ratio=0.3").runs
    assert run.summary["env_steps"] == 301  # 43 times 7
    assert run.summary["updates"] == 60  # 0.3 times 201
    assert [row["env_steps"] for row in run.rows("metrics")] == [203, 301]  # the first update is after 105


# --- sweeps and directories --------------------------------------------------------------------------------


def test_a_sweep_writes_a_run_for_every_combination(command: Command) -> None:
    done = command("run", "-m", "recipe=sqn,sqn_dueling", "seed=range(2)", "steps=40", "eval_episodes=1")
    assert done.code == 0
    wanted = [("sqn", 0), ("sqn", 1), ("sqn_dueling", 0), ("sqn_dueling", 1)]
    assert [(run.summary["recipe"], run.summary["seed"]) for run in done.runs] == wanted
    assert re.search(r"^-+ 4 of 4 -+$", done.out, re.MULTILINE)
    results = re.findall(r"^recipe=(\w+),seed=(\d) +([\d.]+)  (\S+)$", done.out, re.MULTILINE)
    assert [(recipe, int(seed)) for recipe, seed, _, _ in results] == wanted
    for run, (*_, mean, path) in zip(done.runs, results, strict=True):
        assert (float(mean), path) == (round(run.summary["evaluation"]["mean"], 1), run.summary["out"])


def test_runs_that_begin_in_the_same_second_have_distinct_directories(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda _: "now")
    done = command("run", "-m", "hidden=[4],[8]", "steps=40", "eval_episodes=1")
    assert done.code == 0
    assert [run.path.name for run in done.runs] == ["now-s0", "now-s0-2"]


def test_options_may_appear_between_overrides(command: Command) -> None:
    assert len(command("run", "steps=40", "-m", "eval_episodes=1", "seed=1,2").runs) == 2


def test_an_out_directory_that_contains_a_run_is_refused(command: Command) -> None:
    tiny = ["steps=40", "eval_episodes=1"]
    assert command("run", *tiny, "out=mine").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*")}
    done = command("run", *tiny, "out=mine")
    assert done.code == 2
    expected = "expected a directory without a run in it; sqn-resume, or resume=auto, resumes that run"
    assert done.err == f"command line: out=mine: {expected}\n"
    assert {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*")} == before


def test_an_out_directory_inside_a_run_is_refused(command: Command) -> None:
    tiny = ["steps=40", "eval_episodes=1"]
    assert command("run", *tiny, "out=mine").code == 0
    for inner in ("mine/again", "mine/far/away"):
        done = command("run", *tiny, f"out={inner}")
        assert done.code == 2
        assert done.err.startswith(f"command line: out={inner}: expected a directory outside the run in ")
    assert not {"again", "far"} & {path.name for path in Path("mine").iterdir()}
    assert command("run", *tiny, "out=mine2/again").code == 0


def test_equal_values_of_a_sweep_are_one_job(command: Command) -> None:
    done = command("run", "-m", "seed=1,1", "lr=1e-3,0.001", "steps=20", "eval_episodes=1", "out=mine")
    assert (done.code, done.err) == (0, "")
    assert [run.path.as_posix() for run in done.runs] == [str(Path("mine").absolute())]


def test_sweep_jobs_that_share_a_directory_are_refused_before_any_starts(command: Command) -> None:
    done = command("run", "-m", "seed=1,2", "out=mine,other")
    assert (done.code, done.runs) == (2, [])
    assert done.err.startswith("command line: out=mine: several jobs of the sweep would write there")


# --- how a run ends ----------------------------------------------------------------------------------------

TASK = ["env=gym", "env.id=users/Task-v0", *TINY, "num_envs=1", "out=run"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_stops_a_run_with_a_checkpoint_of_the_last_step(
    name: str, command: Command, trusting: list[str]
) -> None:
    done = command("run", *trusting, *TASK, f"env.kwargs={{happens: {name}, at: 150}}")
    assert done.code == 3
    (run,) = done.runs
    summary = run.summary
    assert (summary["status"], summary["env_steps"], summary["evaluation"]) == ("stopped", 150, None)
    assert [path.parent.name for path in run.weights] == ["0000000150"]
    assert f"stopped by {name} after 150 steps; resume with `sqn-resume run`" in done.out
    assert command("evaluate", *trusting, "run", "--episodes=1").code == 0


STOPS = r"SIGTERM: stops after this step, with a checkpoint; now it waits for {} \(.*users_parts.py:\d+\)\. "
STOPS += r"A second one stops at once\.\n"


@pytest.mark.parametrize(
    ("where", "at", "steps", "checkpoint"),
    [("step", 150, 149, ["0000000149"]), ("reset", 160, 159, ["0000000159"])],
)
def test_a_second_signal_saves_a_checkpoint_while_the_environment_hangs(
    where: str, at: int, steps: int, checkpoint: list[str], command: Command, trusting: list[str]
) -> None:
    hangs = (
        f"env.kwargs={{happens: SIGTERM+SIGINT, where: {where}, at: {at}}}"  # the second one while it waits
    )
    done = command("run", *trusting, *TASK, hangs)
    assert re.fullmatch(STOPS.format("users/Task-v0 in raise_signals"), done.err)
    assert done.code == 3
    (run,) = done.runs
    assert (run.summary["status"], run.summary["env_steps"]) == ("stopped", steps)
    assert [path.parent.name for path in run.weights] == checkpoint
    assert f"stopped by SIGINT after {steps} steps; resume with `sqn-resume run`" in done.out


@pytest.mark.parametrize("where", ["__init__", "reset"])
def test_a_second_signal_ends_a_run_whose_environment_hangs_at_the_start(
    where: str, command: Command, trusting: list[str]
) -> None:
    done = command("run", *trusting, *TASK, f"env.kwargs={{happens: SIGTERM+SIGINT, where: {where}, at: 0}}")
    assert (done.code, done.runs) == (1, [])
    assert re.fullmatch(STOPS.format("raise_signals") + "interrupted\n", done.err)


@pytest.mark.parametrize(
    ("setting", "what"),
    [("lr=1e39", "weights: "), ("optimizer.weight_decay=1e25", "optimizer: exp_avg_sq of ")],
)
@pytest.mark.parametrize("every", [20, 0])
def test_a_non_finite_optimizer_step_is_reported_and_not_saved(
    every: int, setting: str, what: str, command: Command
) -> None:
    """The only update is the last step of the run, so no loss is computed from its weights."""
    short = ["steps=60", "warmup_steps=58", "num_envs=2", "update_ratio=0.5", "eval_episodes=1", "out=run"]
    kept = [f"checkpoint_every={every}", "checkpoint_keep=1"]
    assert command("run", *short, *kept, "lr=1e-3", "out=right").code == 0
    done = command("run", *short, *kept, setting)
    assert done.code == 4
    after = r"q_net\..*: \d+ of \d+ not finite\n  after an optimizer step: lower optimizer.lr"
    assert re.match(what + after, done.err)
    run = next(run for run in done.runs if run.path.name == "run")
    assert (run.summary["status"], run.summary["evaluation"]) == ("numerics", None)
    assert [path.parent.name for path in run.weights] == (["0000000040"] if every else [])


def test_a_signal_stops_a_sweep(command: Command, trusting: list[str]) -> None:
    task = [*TASK[:-1], "env.kwargs={happens: SIGTERM, at: 150}"]
    done = command("run", *trusting, *task, "-m", "seed=1,2,3")
    assert (done.code, len(done.runs)) == (3, 1)


FELL_OVER = (
    r"users/Task-v0, environment 0, step 60: RuntimeError: the robot fell over \(.*users_parts.py:\d+\)\n"
)


def test_a_nan_reward_stops_the_run_with_exit_code_4(command: Command, trusting: list[str]) -> None:
    done = command("run", *trusting, *TASK, "env.kwargs={happens: NaN_rewards}")
    assert done.code == 4
    assert re.fullmatch(r"users/Task-v0, environment 0, step \d+: reward = nan\n", done.err)
    summary = done.runs[0].summary
    assert (summary["status"], summary["env_steps"]) == ("numerics", 59)


def test_an_error_in_an_environment_is_reported_with_its_step(
    command: Command, trusting: list[str], folder: Path
) -> None:
    done = command("run", *trusting, *TASK, "env.kwargs={happens: an_error}")
    assert done.code == 1
    assert re.fullmatch(FELL_OVER, done.err)
    assert '"status": "error"' in (folder / "run" / "summary.json").read_text()


def test_a_sweep_with_parts_that_do_not_fit_is_refused_before_its_first_run(
    command: Command, folder: Path
) -> None:
    done = command("run", *TINY, "-m", "returns=retrace", "head=linear,categorical", "seed=0,1")
    assert (done.code, done.runs, [*folder.iterdir()]) == (2, [], [])
    assert done.err.startswith(
        "command line: returns=retrace: Retrace subtracts values, which a distribution"
    )
    assert done.err.endswith("\n  no job was started, as head=categorical,seed=0 cannot run\n")


def test_a_sweep_continues_after_failed_runs_and_exits_with_a_failure(
    command: Command, trusting: list[str]
) -> None:
    task = [*TASK[:-1], "-m", "env.kwargs.happens=NaN_rewards,an_error,nothing"]
    done = command("run", *trusting, *task)
    assert done.code == 4
    assert [run.summary["status"] for run in done.runs] == ["numerics", "error", "done"]
    assert re.search(FELL_OVER, done.err)


def test_an_evaluation_cuts_endless_episodes_and_reports_it(command: Command, trusting: list[str]) -> None:
    task = [*trusting, *TASK, "env.kwargs.happens=never_ends"]
    done = command("run", *task, "eval_every=200", "eval_max_steps=30")
    assert (done.code, done.err) == (0, "")
    (run,) = done.runs
    rows = run.rows("evaluations")
    assert [(row["env_steps"], row["lengths"], row["cut"]) for row in rows] == [
        *[(200, [30, 30], 2), (300, [30, 30], 2)]
    ]
    assert run.summary["evaluation"] == rows[-1]
    cut = r"{0}\.0 ± 0\.0 \(mean ± std of 2 greedy episodes, 2 of them cut after {0} steps "
    assert len(re.findall(cut.format(30), done.out)) == 2
    again = command("evaluate", *trusting, "run")
    assert re.search(cut.format(30), again.out)
    assert re.search(cut.format(7), command("evaluate", *trusting, "run", "--max-steps=7").out)


# --- as a process ------------------------------------------------------------------------------------------


def output_after_sigterm(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    since = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - since < 15  # seconds, on a busy machine too
    assert process.returncode == 3
    return output


def test_a_process_stops_within_seconds_of_sigterm(command: Command) -> None:
    process = subprocess.Popen([SQN_RUN, *LONG, "out=run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    while "steps/s" not in process.stdout.readline():
        assert process.poll() is None
    assert "stopped by SIGTERM" in output_after_sigterm(process)
    assert command("evaluate", "run", "--episodes=1").code == 0


def test_a_process_that_is_compiling_stops_within_seconds_of_sigterm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "nothing_is_compiled_yet"))
    task = ["recipe=sqn_rainbow", "warmup_steps=100", "compile=always", "out=run"]
    process = subprocess.Popen([SQN_RUN, *task], stdout=subprocess.PIPE, text=True)
    while not (folder / "run/checkpoints/0000000100").exists():  # which is written before compilation
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(2)
    assert "stopped by SIGTERM after 100 steps" in output_after_sigterm(process)


def test_a_terminal_shows_a_progress_bar_and_ctrl_c_stops_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "150"}.items():
        monkeypatch.setenv(name, value)
    shown: list[str] = []

    def look(terminal: int) -> bytes:
        data, before = os.read(terminal, 4096), "".join(shown)
        shown.append(data.decode(errors="replace"))
        if "α " in "".join(shown) and "α " not in before:
            os.write(terminal, b"\x03")
        return data

    status = pty.spawn([str(SQN_RUN), *LONG, "out=run"], look, lambda _: b"")
    text = "".join(shown)
    assert os.waitstatus_to_exitcode(status) == 3
    assert re.search(r"/10,000,000 .*━.* return .* α .* entropy .* steps/s", text)
    assert "stopped by SIGINT" in text


def test_a_run_whose_terminal_is_closed_stops_with_a_checkpoint(folder: Path) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [SQN_RUN, *LONG, "out=run"], stdin=its, stdout=its, stderr=its, preexec_fn=partial(os.login_tty, its)
    )
    os.close(its)
    while b"steps/s" not in os.read(ours, 4096):
        assert process.poll() is None
    os.close(ours)
    assert process.wait(60) == 3
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["status"] == "stopped"
    assert (folder / f"run/checkpoints/{summary['env_steps']:010d}/manifest.json").exists()


def test_a_process_ended_by_an_environment_with_exit_code_0_fails_with_1(
    folder: Path, trusting: list[str]
) -> None:
    task = [SQN_RUN, *trusting, *TASK, "env.kwargs={happens: exit, at: 30}", "checkpoint_every=20"]
    done = subprocess.run(task, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the process was ended by os._exit(0), as an environment or a library asked" in done.stderr
    assert not (folder / "run" / "summary.json").exists()


def test_a_process_that_fails_exits_with_1(folder: Path, trusting: list[str]) -> None:
    task = [SQN_RUN, *trusting, *TASK, "env.kwargs={happens: an_error}"]
    done = subprocess.run(task, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(FELL_OVER, done.stderr)
