"""Memory and disk: the forecast before a run, the measured usage, and runs that are refused."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from sqn_rl import RecipeError, compose
from sqn_rl.cli.run import main
from sqn_rl.parts.collect.inline import InlineCollect
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.preflight import preflight
from sqn_rl.recipe.resources import stores_here
from sqn_rl.runs.checkpoint import Checkpoints
from sqn_rl.runs.manifest import saved_in

SCRIPT = Path(__file__).with_name("resources.py")
SHORT = ["steps=300", "warmup_steps=100", "num_envs=4", "eval_episodes=2", "compile=never"]


class Usage(NamedTuple):
    """A stub of the answer of ``shutil.disk_usage``."""

    free: int


@pytest.mark.slow
def test_the_forecast_of_memory_and_checkpoint_size_matches_the_usage() -> None:
    """For three cases; `resources.py` measures all recipes."""
    cases = ["sqn_dueling:cartpole", "sqn_per:atari_ram", "sqn:atari"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, SCRIPT, *cases], stdout=subprocess.PIPE, env=environment, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["case"] for each in found] == cases
    for each in found:
        for what in ("memory", "checkpoint"):
            assert each[f"{what}_forecast"] == pytest.approx(each[what], rel=0.15), each


def test_a_run_that_does_not_fit_in_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = iter([10**12])  # enough for the networks, which are checked first; then nothing is free
    monkeypatch.setattr("sqn_rl.recipe.resources.available_bytes", lambda: next(free, 0))
    with pytest.raises(
        RecipeError, match=r"the run takes up to .+ of memory, .+ more than now; 0\.0 MB are free"
    ) as error:
        compose("sqn", *SHORT, "replay_capacity=9000", f"out={tmp_path / 'run'}").train()
    assert error.value.origin == "command line: replay_capacity=9000"
    assert "lower replay.capacity" in error.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_envs=60000", "num_envs=60000: expected at most the replay's capacity, 50,000"),
        ("hidden=[400000,400000]", r"the networks, .* take 6,400\.\d GB; .* are free"),
        ("encoder.hidden=[400000,400000]", r"the networks, .* take 6,400\.\d GB; .* are free"),
    ],
)
def test_a_recipe_that_is_far_too_large_is_refused_before_building(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        compose("sqn", override).preflight()
    assert error.value.origin == f"command line: {override}"


@pytest.mark.parametrize("name", ["sqn", "sqn_rainbow", "discrete_sac"])
def test_the_size_of_the_networks_is_known_without_building_them(name: str) -> None:
    recipe = compose(name, "hidden=[7]").recipe
    built = recipe.build(last="q_net")
    assert recipe.parameter_bytes() == sum(each.nbytes for each in built["q_net"].parameters()) > 0
    built["env"].close()


def test_a_run_whose_checkpoints_do_not_fit_on_the_disk_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(free=900_000 if path.exists() else 0))
    out = tmp_path / "a" / "run"
    with pytest.raises(RecipeError, match=r"checkpoints take up to .* MB; 0\.9 MB are free in /") as error:
        compose("sqn", *SHORT, "checkpoint_keep=5", f"out={out}").train()
    assert error.value.origin == "command line: checkpoint_keep=5"
    assert not out.parent.exists()


def test_a_run_prints_its_memory_and_the_size_of_a_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main([*SHORT, f"out={out}"]) == 0
    output = re.search(
        r"memory +[\d.]+ [MG]B at most; a checkpoint takes ([\d.]+) MB", capfd.readouterr().out
    )
    taken = sum(path.stat().st_size for path in (out / "checkpoints").rglob("*") if path.is_file())
    assert output
    assert float(output[1]) == pytest.approx(taken / 1e6, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", [0, 1])
def test_a_run_on_a_disk_that_becomes_full_fails_with_whole_checkpoints(
    checkpoints: int, tmp_path: Path
) -> None:
    """The operating system refuses to write files above a limit that is set during the run."""
    out = tmp_path / "run"
    command = [
        Path(sys.executable).with_name("sqn-run"),
        *SHORT,
        "steps=1e7",
        f"checkpoint_every={1000 if checkpoints else 0}",
        f"out={out}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        while not (out / "metrics.jsonl").exists() or len(saved_in(out / "checkpoints")) < checkpoints:
            assert run.poll() is None
            time.sleep(0.05)
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        _, output = run.communicate()
    assert run.returncode == 1
    there = "the checkpoints there are whole" if checkpoints else "there is no checkpoint yet"
    assert output == f"{out}: cannot be written: File too large; {there}; resume with `sqn-resume {out}`\n"
    found = Checkpoints(out / "checkpoints", 2).load()
    assert bool(found) == bool(checkpoints)
    assert not found or found.skipped == []


def test_the_forecast_counts_shard_processes_and_rows_stored_in_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(InlineCollect, "actor_bytes", 10**12)
    sharded = ["collect=inline", "collect.actors=4", "replay=sharded", "replay.shards=2"]
    recipe = compose_recipe("sqn", *SHORT, "returns=n_step", *sharded)
    needs = preflight(recipe).needs
    assert needs is not None
    assert needs.memory // 10**12 == 4 + 2
    replay, collect = (recipe.build()[slot] for slot in ("replay", "collect"))
    on_gpu = replace(recipe.run, device="cuda")
    assert stores_here(on_gpu, replay, collect)
    assert not stores_here(on_gpu, object(), collect)
    collect.elsewhere = True
    assert not stores_here(recipe.run, replay, collect)
    assert stores_here(recipe.run, object(), collect)
