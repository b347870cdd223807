"""``sqn-tune``: each trial runs once, survives a kill, is pruned by its evaluations, and is reported."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqn_rl.analysis.grid import Job
from sqn_rl.analysis.space import shortest, space_of
from sqn_rl.analysis.tuning import Trial, Tuning
from sqn_rl.analysis.tuning_page import ending
from sqn_rl.errors import to_install
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.reading import DataError, read_rows
from sqn_rl.runs.status import is_locked

pytest.importorskip("optuna")

Command = Callable[..., Any]

TINY = ["steps=30", "warmup_steps=20", "batch_size=4", "eval_episodes=1", "env.kwargs.max_episode_steps=10"]
TINY += ["num_envs=1"]
SPACE = ["lr=loguniform(1e-4,1e-2)", "head=choice(linear,dueling)"]
CATALOGUE = Catalogue()


def trials_in(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("trials/*/trial.json"))
    }


# --- the command -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_search_resumes_and_repeats_no_finished_trial(command: Command, folder: Path) -> None:
    arguments = [*SPACE, *TINY, "seeds=1", "trials=2", "out=here", "--jobs", "1"]
    code = "from sqn_rl.cli.tune import main; raise SystemExit(main())"
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL) as process:
        while not Path("here/trials/0001/s1000/recipe.yaml").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    before = trials_in(Path("here"))
    assert [each["status"] for each in before.values()] == ["done", ""]
    run = Path("here/trials/0000/s1000/summary.json")
    written = run.stat().st_mtime_ns
    while is_locked(Path("here/trials/0001/s1000")):
        time.sleep(0.1)

    done = command("tune", *arguments)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:2] == [
        "here: trials: 2, seeds of each: 1, at a time: 1",
        "1 of 2 trials have ended already",
    ]
    assert re.fullmatch(r"2/2  0001  lr=\S+ head=\w+  mean \d+\.\d  done", lines[2])
    after = trials_in(Path("here"))
    assert after["0000"] == before["0000"]
    assert run.stat().st_mtime_ns == written
    assert after["0001"]["settings"] == before["0001"]["settings"]
    assert after["0001"]["status"] == "done"

    rows = [*read_rows(Path("here/trials/0001/s1000/evaluations.jsonl"))]
    mean = sum(row["mean"] for row in rows) / len(rows)
    assert len(rows) == 10
    assert after["0001"]["means"]["30"] == pytest.approx(mean)
    assert json.loads(run.read_text())["seed"] == 1000

    best = max(after, key=lambda name: after[name]["means"]["30"])
    assert lines[3].startswith(f"best: trial {best}, mean {after[best]['means']['30']:.1f}: lr=")
    recipe = compose_recipe("here/best.yaml")
    assert recipe.run.steps == 30
    assert recipe.config["optimizer"]["lr"] == after[best]["settings"]["lr"]
    assert recipe.part("head") == after[best]["settings"]["head"]
    page = Path("here/tuning.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=.?http", page)
    assert page.count("<tr>") == 3

    other = command("tune", *arguments, "tau=0.1")
    assert other.code == 2
    assert other.err.startswith("here: contains another study: target_update.tau ")
    assert other.err.endswith("\n  choose another folder: out=…\n")


@pytest.mark.slow
def test_a_signal_stops_both_runs_and_the_search_says_how_to_resume(folder: Path) -> None:
    code = "from sqn_rl.cli.tune import main; raise SystemExit(main())"
    arguments = [*SPACE, "steps=1e7", "compile=never", "trials=3", "out=here", "--jobs", "2"]
    runs = [Path(f"here/trials/{number}/s1000") for number in ("0000", "0001")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        while not all((run / "episodes.jsonl").exists() for run in runs):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert out.splitlines()[2:] == ["stopped by SIGINT; the same command resumes"]
    assert [json.loads((run / "summary.json").read_text())["status"] for run in runs] == ["stopped"] * 2
    assert {each["status"] for each in trials_in(Path("here")).values()} == {""}


# --- the trials --------------------------------------------------------------------------------------------


class Search:
    """A tuning in a folder, whose runs are written by hand."""

    def __init__(self, folder: Path, trials: int = 8, seeds: int = 1, tuned: list[str] = SPACE) -> None:
        fixed, space = space_of([*tuned, *TINY], CATALOGUE)
        self.ended: list[Trial] = []
        self.tuning = Tuning(fixed, space, trials, seeds, folder, CATALOGUE, self.ended.append)
        self.tuning.begin()

    def next(self) -> Job:
        job = self.tuning.next_job()
        assert job
        return job

    def end(self, job: Job, mean: float, status: str = "done") -> None:
        evaluate(job, [mean] * 10)
        (job.out / "recipe.yaml").write_text(job.recipe.to_yaml())
        (job.out / "summary.json").write_text(json.dumps({"status": status}))
        self.tuning.job_ended(job, False, "" if status == "done" else "exit code 4")


def evaluate(job: Job, means: list[float]) -> None:
    job.out.mkdir(parents=True, exist_ok=True)
    rows = [{"env_steps": 3 * number, "mean": mean} for number, mean in enumerate(means, 1)]
    (job.out / "evaluations.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_trial_behind_the_median_is_pruned_during_training(tmp_path: Path) -> None:
    search = Search(tmp_path)
    for mean in (1, 2, 3, 4, 5):
        search.end(search.next(), mean)
    better, worse = search.next(), search.next()
    for job, mean in ((better, 3.1), (worse, 2.9)):
        evaluate(job, [mean] * 2)  # 6 of 30 steps: too early
        assert not search.tuning.is_unwanted(job)
        evaluate(job, [mean] * 5)
    assert not search.tuning.is_unwanted(better)
    assert search.tuning.is_unwanted(worse)
    search.tuning.job_ended(worse, True, "exit code 3: stopped")
    assert ending(search.ended[-1]) == "pruned after 15 steps"
    assert [trial.status for trial in search.ended] == ["done"] * 5 + ["pruned"]
    assert [trial.mean for trial in search.tuning.done] == [5, 4, 3, 2, 1]


def test_a_search_read_from_its_folder_equals_the_search_that_wrote_it(tmp_path: Path) -> None:
    search = Search(tmp_path)
    for mean, status in ((1.0, "done"), (9.0, "numerics"), (2.0, "done")):
        search.end(search.next(), mean, status)
    cut = search.next()
    evaluate(cut, [4.0] * 2)
    again = Search(tmp_path)
    assert [trial.mean for trial in again.tuning.done] == [2.0, 1.0]
    assert [each.state.name for each in again.tuning.study.trials] == [
        "COMPLETE",
        "FAIL",
        "COMPLETE",
        "RUNNING",
    ]
    assert again.next().overrides == cut.overrides
    assert again.tuning.study.trials[3].intermediate_values == {3: 4.0, 6: 4.0}
    assert again.next().variant.name == "0004"
    settings = [json.dumps(each["settings"]) for each in trials_in(tmp_path).values()]
    assert len({*settings}) == 5


def test_a_failed_trial_stops_no_other_and_is_repeated_by_the_next_command(tmp_path: Path) -> None:
    search = Search(tmp_path, trials=2)
    failed = search.next()
    search.tuning.job_ended(failed, False, "exit code 1: the robot fell over (s1000.log)")
    assert ending(search.ended[0]) == "failed: exit code 1: the robot fell over (s1000.log)"
    search.end(search.next(), 1.0)
    assert search.tuning.next_job() is None
    assert [trial.status for trial in search.ended] == ["failed", "done"]
    again = Search(tmp_path, trials=2)
    assert again.next().overrides == failed.overrides
    assert again.tuning.next_job() is None


def test_a_finished_search_continues_and_a_folder_without_a_study_is_refused(
    tmp_path: Path,
) -> None:
    first = Search(tmp_path, trials=1)
    first.end(first.next(), 1.0)
    assert first.tuning.next_job() is None
    assert Search(tmp_path, trials=2).next().variant.name == "0001"
    shutil.rmtree(tmp_path / "trials" / "0000")
    assert Search(tmp_path, trials=1).next().variant.name == "0000"
    (tmp_path / "study.json").unlink()
    with pytest.raises(DataError, match="there is none, but there are trials"):
        Search(tmp_path)


def test_a_trial_beyond_the_requested_number_is_left_unchanged(tmp_path: Path) -> None:
    search = Search(tmp_path, trials=2)
    first, _ = search.next(), search.next()
    again = Search(tmp_path, trials=1)
    assert again.next().overrides == first.overrides
    assert again.tuning.next_job() is None
    assert [each["status"] for each in trials_in(tmp_path).values()] == ["", ""]


def test_no_settings_are_tried_twice(tmp_path: Path) -> None:
    tuned = ["replay_capacity=int(1000,1002)", "head=choice(linear,dueling)"]
    search = Search(tmp_path, trials=30, tuned=tuned)
    for number in range(6):
        search.end(search.next(), number)
        if number == 2:
            search = Search(tmp_path, trials=30, tuned=tuned)
    assert search.tuning.next_job() is None
    assert len({json.dumps(each["settings"]) for each in trials_in(tmp_path).values()}) == 6


def test_a_search_ends_when_every_setting_has_been_tried(tmp_path: Path) -> None:
    search = Search(tmp_path, trials=5, tuned=["lr=uniform(0.001,0.0010000000000000002)"])
    job = search.next()
    search.end(job, 1.0)
    while job := search.tuning.next_job():
        search.end(job, 1.0)
    assert 1 <= len(search.tuning.done) <= 3


def test_an_incomplete_row_is_ignored_until_the_run_is_done_and_then_refused(tmp_path: Path) -> None:
    job = Search(tmp_path).next()
    evaluate(job, [1.0] * 3)
    with (job.out / "evaluations.jsonl").open("a") as file:
        file.write('{"env_steps": 10, "me')
    again = Search(tmp_path).next()
    assert (again.out, again.variant.name) == (job.out, job.variant.name)
    (job.out / "summary.json").write_text(json.dumps({"status": "done"}))
    (job.out / "recipe.yaml").write_text(job.recipe.to_yaml())
    with pytest.raises(DataError, match="not JSON"):
        Search(tmp_path).tuning.next_job()


def test_the_seeds_of_a_trial_run_in_turn_and_pruning_skips_those_that_remain(tmp_path: Path) -> None:
    search = Search(tmp_path, seeds=2)
    job = search.next()
    search.end(job, 1.0)
    other = search.next()
    assert (job.out.name, other.out.name) == ("s1000", "s1001")
    assert job.variant.name == other.variant.name
    search.end(other, 2.0)
    assert search.tuning.done[0].mean == 1.5
    assert [*search.tuning.done[0].means][-1] == 60
    for _ in range(4):
        for mean in (3.0, 3.0):
            search.end(search.next(), mean)
    behind = search.next()
    search.end(behind, 2.0)
    assert search.next().variant.name == "0006"
    assert search.ended[-1].status == "pruned"


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"lr": 0.5, "head": "linear"}},
        {"settings": {"lr": 0.001, "head": "noisy"}},
        {"settings": {"lr": True, "head": "linear"}},
        {"settings": {"head": "linear"}},
        {"settings": None},
        {"status": "lost"},
        {"means": {}},
        {"means": {"x": 1.0}},
        {"means": {"3": "nan"}},
        {"means": [1]},
    ],
)
def test_a_damaged_trial_file_is_refused_with_its_path(change: dict[str, Any], tmp_path: Path) -> None:
    search = Search(tmp_path, trials=1)
    search.end(search.next(), 1.0)
    path = tmp_path / "trials" / "0000" / "trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=re.escape(str(path))):
        Search(tmp_path, trials=1)


# --- what is tuned -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("lr=uniform(0, 1)", (0, 1)),
        ("lr=loguniform(1e-4,.1)", (1e-4, 0.1)),
        ("batch_size=int(8,64)", (8, 64)),
        ("batch_size=logint(8,64)", (8, 64)),
        ("head=choice(linear,dueling)", ("linear", "dueling")),
        ("head=linear,dueling", ("linear", "dueling")),
        ("encoder.hidden=choice([64],[32,32])", ("[64]", "[32,32]")),
        ("target_update.tau=choice(.005,.05)", ("0.005", "0.05")),
    ],
)
def test_distributions_are_parsed_and_both_of_their_ends_compose(text: str, ends: tuple[Any, ...]) -> None:
    fixed, (tuned,) = space_of(["recipe=sqn", text], CATALOGUE)
    assert fixed == ["recipe=sqn"]
    assert tuned.ends == ends
    assert [tuned.has(end) for end in ends] == [True, True]
    for end in ends:
        compose_recipe("sqn", tuned.override(end), catalogue=CATALOGUE)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("lr=uniform(0.1, 1)", "uniform(0.1,1)"),
        ("lr=loguniform(1e-5,.3)", "loguniform(1e-05,0.3)"),
        ("batch_size=logint(8,64)", "logint(8,64)"),
        ("target_update.tau=choice(.05,.1)", "choice(0.05,0.1)"),
    ],
)
def test_numbers_are_shown_in_their_shortest_form(text: str, shown: str) -> None:
    _, (tuned,) = space_of([text], CATALOGUE)
    assert str(tuned) == shown
    assert shortest(shown.replace("0.1,", f"{0.1:.17g},")) == shown  # the form in older searches


def test_of_two_overrides_of_one_key_the_later_counts() -> None:
    fixed, tuned = space_of(["lr=uniform(0,1)", "tau=0.1", "lr=0.5", "tau=uniform(0,1)"], CATALOGUE)
    assert (fixed, [each.key for each in tuned]) == (["lr=0.5"], ["tau"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is tuned\n  give a distribution: "),
        (["lr=choice(0.1)"], "command line: lr=choice(0.1): nothing is tuned\n"),
        (
            ["lr=gauss(0,1)"],
            "command line: lr=gauss(0,1): there is no distribution 'gauss'\n  there are: choice, ",
        ),
        (
            ["lr=logunifrom(1,2)"],
            "command line: lr=logunifrom(1,2): there is no distribution 'logunifrom'\n  did you",
        ),
        (["lr=interval(0,1)"], "command line: lr=interval(0,1): there is no distribution 'interval'\n"),
        (["lr=uniform(1)"], "command line: lr=uniform(1): expected two numbers\n  such as lr=uniform(0.001,"),
        (["lr=uniform(a,b)"], "command line: lr=uniform(a,b): expected two numbers"),
        (
            ["lr=uniform(0.1,1)", "optimizer=rmsprop", "~optimizer.eps"],
            "command line: ~optimizer.eps: a recipe file cannot remove a value that it inherits",
        ),
        (["lr=uniform(0,inf)"], "command line: lr=uniform(0,inf): expected finite numbers"),
        (
            ["lr=uniform(2,1)"],
            "command line: lr=uniform(2,1): expected a smaller number first\n  write lr=uniform(1,2)",
        ),
        (["lr=uniform(1,1)"], "command line: lr=uniform(1,1): expected a smaller number first\n  write lr=1"),
        (
            ["lr=loguniform(0,1)"],
            "command line: lr=loguniform(0,1): a logarithm needs numbers above 0\n  begin",
        ),
        (
            ["batch_size=int(1.5,3)"],
            "command line: batch_size=int(1.5,3): expected whole numbers\n"
            "  write batch_size=int(2,3), or uniform(1.5,3) if fractions may be tried\n",
        ),
        (
            ["batch_size=logint(0.2,0.7)"],
            "command line: batch_size=logint(0.2,0.7): expected whole numbers\n"
            "  write batch_size=logint(1,2), or loguniform(0.2,0.7) if",
        ),
        (["batch_size=int(1,1e17)"], "command line: batch_size=int(1,1e17): expected numbers up to 2**53\n"),
        (
            ["batch_size=logint(-1,3)"],
            "command line: batch_size=logint(-1,3): a logarithm needs numbers above 0\n  beg",
        ),
        (["lrr=uniform(0,1)"], "command line: lrr=0.0: there is no such setting\n  did you mean `lr`?"),
        (["optimizer.lrr=uniform(0,1)"], "command line: optimizer.lrr=0.0: "),
        (
            ["head=choice(linear,duelling)"],
            "command line: head=duelling: there is no such part\n  did you mean",
        ),
        (["gamma=uniform(0.5,1.5)"], "command line: gamma=1.5: expected a number in [0, 1]"),
        (
            ["target_update.tau=uniform(0.1,2)"],
            "command line: target_update.tau=2.0: expected a number in (0, 1]",
        ),
        (
            ["batch_size=uniform(16,64.5)"],
            "command line: batch_size=uniform(16,64.5): expected whole numbers\n  write batch_size=int(16,",
        ),
        (
            ["returns=n_step", "returns.n=loguniform(1,5)"],
            "command line: returns.n=loguniform(1,5): expected whole numbers\n  write returns.n=logint(",
        ),
        (
            ["actor=choice(boltzmann,greedy)", "temperature=choice(learned,none)"],
            "command line: actor=boltzmann: BoltzmannActor needs a temperature",
        ),
        (["steps=int(10,20)"], "command line: steps=int(10,20): this cannot be tuned"),
        (
            ["env=choice(cartpole,acrobot)"],
            "command line: env=choice(cartpole,acrobot): this cannot be tuned",
        ),
        (["seed=3", "lr=uniform(0,1)"], "command line: seed=3: this cannot be tuned"),
        ([*SPACE, "trials=0"], "trials = 0: expected a whole number from 1 to 999,999"),
        ([*SPACE, "seeds=1,2"], "seeds = '1,2': expected a whole number from 1 to 999,999"),
        ([*SPACE, "--jobs", "0"], "jobs = 0: expected a whole number from 1 to 999,999"),
    ],
)
def test_an_invalid_search_is_refused_before_the_first_run(
    arguments: list[str], message: str, folder: Path, command: Command
) -> None:
    done = command("tune", *arguments)
    assert done.code == 2
    assert done.err.startswith(message)
    assert not list(folder.iterdir())


def test_tune_without_optuna_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = command("tune", *SPACE)
    assert (done.code, done.err) == (
        2,
        f"sqn-tune needs Optuna\n  the extra `tune`: {to_install('tune')}\n",
    )
