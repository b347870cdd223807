"""``sqn-ablate``: the variants of a grid, their runs in separate processes, and the comparison."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqn_rl.analysis.finished import find_runs, variant_of
from sqn_rl.analysis.grid import Job, jobs_of, variants_of
from sqn_rl.analysis.pool import run_jobs, start_process
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.resolved import of_recipe, of_run
from sqn_rl.runs.directory import RunDirectory
from sqn_rl.runs.status import is_locked

Command = Callable[..., Any]

TINY = ["steps=30", "warmup_steps=20", "batch_size=4", "eval_episodes=1", "env.kwargs.max_episode_steps=10"]
CATALOGUE = Catalogue()


# --- the grid ----------------------------------------------------------------------------------------------


def test_each_variant_changes_one_setting_and_jobs_are_ordered_by_seed(folder: Path) -> None:
    overrides = [
        "recipe=sqn_per",
        "head=linear,dueling",
        "env=acrobot",
        "replay.omega=0.6,0.3,0.9",
        "lr=1e-3,1e-2",
    ]
    base, *others = variants_of(overrides, CATALOGUE)
    assert base.name == "base"
    assert base.overrides == ["recipe=sqn_per", "env=acrobot", "eval_every=5000"]
    assert [variant.name for variant in others] == [
        "head=dueling",
        "replay.omega=0.3",
        "replay.omega=0.9",
        "lr=0.01",
    ]
    assert [variant.overrides[:-1] for variant in others] == [base.overrides] * 4
    jobs = jobs_of([base, *others], 2, Path("out"), CATALOGUE)
    assert [str(job.out) for job in jobs[4:7]] == ["out/lr=0.01/s0", "out/base/s1", "out/head=dueling/s1"]
    assert [job.recipe.run.seed for job in jobs] == [0] * 5 + [1] * 5
    assert (jobs[1].recipe.part("head"), jobs[1].recipe.run.out) == ("dueling", "out/head=dueling/s0")


@pytest.mark.parametrize(
    ("arguments", "every"), [([], 5000), (["steps=5"], 1), (["eval_every=0"], 0), (["eval_every=7"], 7)]
)
def test_eval_every_defaults_to_a_tenth_of_the_steps_unless_set(arguments: list[str], every: int) -> None:
    assert variants_of(["head=linear,dueling", *arguments], CATALOGUE)[0].recipe.run.eval_every == every


def test_eval_every_of_a_recipe_file_named_default_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default.yaml").write_text("defaults: [sqn, _self_]\neval_every: 0\n")
    variants = variants_of(["recipe=default.yaml", "head=linear,dueling"], CATALOGUE)
    assert [variant.recipe.run.eval_every for variant in variants] == [0, 0]


def test_list_values_and_ranges_are_expanded_to_variants(folder: Path) -> None:
    variants = variants_of(
        ["returns=n_step", "encoder.hidden=[64],[32,32]", "returns.n=range(2,5)"], CATALOGUE
    )
    assert [variant.name for variant in variants] == [
        *("base", "encoder.hidden=[64]", "encoder.hidden=[32,32]"),
        *("returns.n=2", "returns.n=4"),
    ]


def test_long_values_get_distinct_shortened_variant_names(folder: Path) -> None:
    long = ",".join(["16"] * 120)
    _, *others = variants_of([f"hidden=[{long}],[{long},8]"], CATALOGUE)
    names = [variant.name for variant in others]
    assert [name[:100] for name in names] == [f"hidden=[{long}"[:100]] * 2
    assert [len(name) for name in {*names}] == [109, 109]


def test_equal_values_are_one_variant(folder: Path) -> None:
    variants = variants_of(["lr=3e-4,0.0003", "gamma=0.9", "gamma=0.90,8e-1"], CATALOGUE)
    assert [variant.name for variant in variants] == ["base", "lr=0.0003", "gamma=0.8"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer._target_=torch.optim.NAdam,torch.optim.RAdam"],
        ["optimizer._target_=torch.optim.NAdam", "optimizer.eps=1e-8,1e-6"],
        ["optimizer=adamw", "optimizer._target_=torch.optim.NAdam,torch.optim.RAdam", "head=linear,dueling"],
    ],
)
def test_every_variant_has_a_unique_label_in_the_report(overrides: list[str], folder: Path) -> None:
    labels = []
    for number, variant in enumerate(variants := variants_of(overrides, CATALOGUE)):
        run = folder / str(number)
        run.mkdir()
        (run / "recipe.yaml").write_text(variant.recipe.to_yaml())
        assert variant_of(of_run(run)) == variant_of(of_recipe("", variant.recipe))
        labels.append(variant_of(of_run(run)))
    assert len({*labels}) == len(variants)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=classic_control,minatar"], "command line: task=classic_control,minatar: an ablation cannot"),
        (
            ["optimizer._target_=torch.optim.NAdam", "optimizer=adam,adamw"],
            "command line: optimizer=adamw: in the report this is `sqn optimizer._target_=torch.optim.NAdam`"
            ", and so is the variant base\n  leave out one",
        ),
    ],
)
def test_variants_that_the_report_cannot_tell_apart_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        variants_of(overrides, CATALOGUE)


# --- run ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ablate_trains_every_variant_once_compares_them_and_refuses_other_settings(command: Command) -> None:
    arguments = ["head=linear,dueling", *TINY, "seeds=1", "out=here", "--jobs", "2"]
    done = command("ablate", *arguments)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:2] == ["here: variants: 2, seeds of each: 1, at a time: 2", "0 of 2 runs are done already"]
    assert sorted(line.split()[1] for line in lines[2:4]) == ["base", "head=dueling"]
    assert all(line.endswith("s0  final 10.0") for line in lines[2:4])
    assert find_runs(["here"]) == [Path("here/base/s0"), Path("here/head=dueling/s0")]
    assert json.loads(Path("here/head=dueling/s0/summary.json").read_text())["command"][1:] == [
        *TINY, "eval_every=3", "head=dueling", "seed=0", "out='here/head=dueling/s0'", "resume=auto",
    ]  # fmt: skip
    assert Path("here/base/s0.log").read_text().startswith("run ")
    written = {path: path.read_bytes() for path in Path("here").glob("comparison.*")}
    assert {path.suffix for path in written} == {".md", ".csv", ".png"}
    assert (
        b"| CartPole-v1 | final | sqn head=dueling | sqn | 0.50 | too few"
        in written[Path("here/comparison.md")]
    )

    weights = {path: path.stat().st_mtime_ns for path in Path("here").rglob("*.safetensors")}
    again = command("ablate", *arguments)
    assert again.code == 0
    assert again.out.splitlines()[1] == "2 of 2 runs are done already"
    assert {path: path.stat().st_mtime_ns for path in Path("here").rglob("*.safetensors")} == weights
    assert {path: path.read_bytes() for path in written} == written

    other = command("ablate", *arguments, "tau=0.1")
    assert other.code == 2
    assert other.err == (
        "here/base/s0: contains another run: target_update.tau 0.05 "
        "(components/task/classic_control.yaml:9) and 0.1 (command line: tau=0.1)\n"
        "  choose another folder: out=…\n"
    )


@pytest.mark.slow
def test_failed_runs_are_reported_by_name_and_left_out_of_the_comparison(
    trusting: list[str], command: Command
) -> None:
    task = [
        "env=gym",
        "env.id=users/Task-v0",
        "+env.kwargs.happens=an_error",
        "+env.kwargs.at=10",
        "steps=100",
    ]
    done = command("ablate", *trusting, *task, "head=linear,dueling", "seeds=1", "out=here", "--jobs", "2")
    assert done.code == 2
    lines = done.out.splitlines()[2:]
    assert len(lines) == 2
    wrong = r"exit code 1: users/Task-v0, .*: RuntimeError: the robot fell over .* \(here/"
    assert all(re.search(wrong, line) for line in lines)
    assert done.err.startswith("there is no finished run to compare\nleft out: here/base/s0: failed after ")


@pytest.mark.slow
def test_a_signal_stops_all_runs_and_the_output_says_how_to_resume(folder: Path) -> None:
    code = "from sqn_rl.cli.ablate import main; raise SystemExit(main())"
    arguments = ["head=linear,dueling", "steps=1e7", "warmup_steps=20", "seeds=3", "out=here", "--jobs", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        while not Path("here/base/s0/episodes.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        jobs = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for number in [*jobs.read_text().split(), process.pid]:  # as a cluster's queue signals every process
            os.kill(int(number), signal.SIGTERM)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert out.splitlines()[-1] == "stopped by SIGTERM; the same command resumes"
    assert json.loads(Path("here/base/s0/summary.json").read_text())["status"] == "stopped"
    assert find_runs(["here"]) == [Path("here/base/s0")]
    jobs = jobs_of(variants_of(arguments[:3], CATALOGUE), 1, Path("here"), CATALOGUE)
    assert not any(job.is_done() for job in jobs)


@pytest.mark.slow
def test_runs_end_when_the_command_is_killed(folder: Path) -> None:
    code = "from sqn_rl.cli.ablate import main; raise SystemExit(main())"
    arguments = ["head=linear,dueling", "steps=1e7", "warmup_steps=20", "seeds=1", "out=here", "--jobs", "1"]
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL) as process:
        while not Path("here/base/s0/episodes.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    while is_locked(Path("here/base/s0")):
        time.sleep(0.1)
    assert json.loads(Path("here/base/s0/summary.json").read_text())["status"] == "stopped"


@pytest.mark.slow
def test_a_run_locked_by_another_process_is_waited_for(folder: Path) -> None:
    job = jobs_of(variants_of(["head=linear,dueling", *TINY], CATALOGUE), 1, Path("here"), CATALOGUE)[0]
    other, ended, waited = RunDirectory(job.out, job.recipe.to_yaml()), [], []

    def waits(job: Job) -> None:
        waited.append(job)
        other.close()

    queue = iter([job])
    assert (
        run_jobs(
            lambda: next(queue, None),
            1,
            [],
            lambda *what: ended.append(what),
            waits=waits,
            start=start_process,
        )
        is None
    )
    assert (waited, ended) == ([job], [(job, 0)])
    assert job.is_done()


@pytest.mark.slow
def test_a_run_that_exits_with_0_before_its_end_has_failed(trusting: list[str], command: Command) -> None:
    task = [
        "env=gym",
        "env.id=users/Task-v0",
        "+env.kwargs.happens=exit_in_C",
        "+env.kwargs.at=10",
        "steps=100",
    ]
    done = command("ablate", *trusting, *task, "head=linear,dueling", "seeds=1", "out=here", "--jobs", "2")
    assert done.code != 0
    lines = done.out.splitlines()[2:]
    assert [line.partition("exit code")[2][:32] for line in lines] == [
        " 0, but no summary.json says done"[:32]
    ] * 2


@pytest.mark.parametrize("name", ["run", "ablate"])
def test_an_environment_that_exits_in_its_constructor_is_refused(
    name: str, trusting: list[str], command: Command
) -> None:
    task = ["env=gym", "env.id=users/Task-v0", "+env.kwargs.happens=exit_at_once"]
    done = command(name, *trusting, *task, *(["head=linear,dueling"] if name == "ablate" else []))
    assert done.code == 2
    assert "SystemExit: 0" in done.err


# --- refused -----------------------------------------------------------------------------------------------


def test_a_run_directory_is_refused_as_the_folder_of_many_runs(folder: Path, command: Command) -> None:
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("")
    for name in ("ablate", "tune"):
        done = command(name, "head=linear,dueling", "out=run")
        assert (done.code, [path.name for path in Path("run").iterdir()]) == (2, ["recipe.yaml"])
        assert done.err == "out = 'run': expected a folder for many runs; this is a run directory\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing is varied"),
        (["head=dueling"], "command line: head=dueling: nothing is varied"),
        (["head=linear,linear"], "command line: head=linear,linear: nothing is varied"),
        (["steps=10,20"], "command line: steps=10,20: an ablation cannot vary this"),
        (
            ["env=cartpole,acrobot"],
            "command line: env=cartpole,acrobot: an ablation cannot vary this",
        ),
        (["recipe=sqn,dqn"], "command line: recipe=sqn,dqn: an ablation cannot vary this"),
        (
            ["head=linear,dueling", "seed=3"],
            "command line: seed=3: an ablation cannot vary this",
        ),
        (["head=linear,dueling", "seeds=0"], "seeds = 0: expected a whole number from 1 to 999,999"),
        (["head=linear,dueling", "seeds=1,2"], "seeds = '1,2': expected a whole number from 1 to 999,999"),
        (["head=linear,dueling", "--jobs", "0"], "jobs = 0: expected a whole number from 1 to 999,999"),
        (["head=linear,duelling"], "command line: head=duelling: there is no such part"),
        (["head=linear,dueling", "stpes=9"], "command line: stpes=9: there is no such setting"),
        (
            ["loss=sqn,dqn", "temperature=none"],
            "command line: temperature=none: actor: BoltzmannActor needs a temperature",
        ),
    ],
)
def test_invalid_arguments_are_refused_before_any_run_starts(
    arguments: list[str], message: str, folder: Path, command: Command
) -> None:
    (folder / "file").write_text("")
    done = command("ablate", *arguments)
    assert done.code == 2
    assert done.err.startswith(message)
    assert not list(folder.rglob("recipe.yaml"))
