"""Actors in processes of Ray: the run equals that in one process, whichever process is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scale.processes import actors_of, digests

from sqn_rl import RecipeError, compose
from sqn_rl.errors import ReplayError
from sqn_rl.parts.collect.ray_processes import RayHost, ShardProcess
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.runs.experiment import Experiment

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray")

STEPS = 4000
CARTPOLE = [
    *("env=cartpole", "num_envs=4", "hidden=[32]", "batch_size=16", "warmup_steps=400", "update_ratio=0.1"),
    *("replay_capacity=2000", "log_every=200", "checkpoint_every=1000", "eval_episodes=1", "compile=never"),
    *("collect.actors=2", "collect.rows=50", "collect.ladder=4", "returns=n_step", f"steps={STEPS}"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray that all tests share."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    for number, handler in before.items():
        signal.signal(number, handler)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


class Killer(Reporter):
    """Kills one process of a kind once, after 2,000 steps, and keeps the notes of the run."""

    def __init__(self, kind: str = "ActorProcess") -> None:
        self.kind = kind
        self.killed: list[int] = []
        self.notes: list[str] = []

    def metrics(self, row: dict[str, Any]) -> None:
        if row["env_steps"] >= 2000 and not self.killed:
            self.killed = actors_of(os.getpid(), self.kind)[:1]
            os.kill(self.killed[0], signal.SIGKILL)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of the run in one process."""
    out = tmp_path_factory.mktemp("inline") / "run"
    compose("sqn_per", *CARTPOLE, "collect=inline", f"out={out}").train()
    return digests(out, STEPS)


def test_a_run_with_actors_on_ray_equals_the_run_in_one_process(
    inline: dict[str, str], cluster: str, tmp_path: Path
) -> None:
    compose("sqn_per", *CARTPOLE, "collect=ray", f"out={tmp_path / 'run'}").train()
    assert digests(tmp_path / "run", STEPS) == inline
    assert ray.is_initialized()  # a run must not stop a Ray that it did not start
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(row["restarts"] == 0 and row["actors_up"] == 2 for row in rows)
    assert 0 < rows[-1]["lag"] < 200


def test_a_run_whose_actor_is_killed_equals_the_undisturbed_run(
    inline: dict[str, str], cluster: str, tmp_path: Path
) -> None:
    killer = Killer()
    compose("sqn_per", *CARTPOLE, "collect=ray", f"out={tmp_path / 'run'}").train(reporters=[killer])
    assert killer.killed
    assert any("was lost, and continues after its last stored chunk" in note for note in killer.notes)
    assert digests(tmp_path / "run", STEPS) == inline


def test_a_run_whose_learner_is_killed_resumes_to_the_same_result(
    inline: dict[str, str], cluster: str, tmp_path: Path
) -> None:
    out, here = tmp_path / "run", "from sqn_rl.cli.run import main; raise SystemExit(main())"
    command = [sys.executable, "-c", here, "recipe=sqn_per", *CARTPOLE, "collect=ray", f"out={out}"]
    learner = subprocess.Popen([*command, f"collect.address={cluster}"], stdout=subprocess.DEVNULL)
    try:
        while learner.poll() is None and not (out / "checkpoints" / "0000002000").is_dir():
            time.sleep(0.02)
        assert learner.poll() is None
    finally:
        learner.kill()
        learner.wait()
    assert not (out / "checkpoints" / "0000004000").is_dir()
    until = time.monotonic() + 60
    while actors_of(os.getpid()):  # actors of the killed learner, in the Ray of this process
        assert time.monotonic() < until
        time.sleep(0.5)
    Experiment(load_recipe(out / "recipe.yaml")).train(resume=out)
    assert digests(out, STEPS) == inline


def test_a_recurrent_run_with_actors_on_ray_equals_the_run_in_one_process(
    cluster: str, tmp_path: Path
) -> None:
    small = [*CARTPOLE, "env=recall", "steps=800", "returns.n=2", "q_net.units=8", "collect.rows=20"]
    for collect in ("inline", "ray"):
        compose("sqn_r2d2", *small, f"collect={collect}", f"out={tmp_path / collect}").train()
    assert digests(tmp_path / "ray", 800) == digests(tmp_path / "inline", 800)


def test_a_run_with_replay_shards_on_ray_equals_the_run_in_one_process(cluster: str, tmp_path: Path) -> None:
    for collect in ("inline", "ray"):
        sharded = [
            *CARTPOLE,
            "steps=2000",
            "replay=sharded",
            f"collect={collect}",
            f"out={tmp_path / collect}",
        ]
        compose("sqn_per", *sharded).train()
    assert digests(tmp_path / "ray", 2000) == digests(tmp_path / "inline", 2000)


def test_a_shard_that_is_killed_stops_the_run_with_a_checkpoint(cluster: str, tmp_path: Path) -> None:
    out, killer = tmp_path / "run", Killer("ShardProcess")
    experiment = compose("sqn_per", *CARTPOLE, "replay=sharded", "collect=ray", f"out={out}")
    with pytest.raises(ReplayError, match=r"shard \d is lost, with its transitions: \w+"):
        experiment.train(reporters=[killer])
    stopped = json.loads((out / "summary.json").read_text())["env_steps"]
    assert 2000 <= stopped < STEPS
    assert (out / "checkpoints" / f"{stopped:010d}").is_dir()
    summary = experiment.train(resume=out, reporters=[killer])
    assert (summary["status"], summary["env_steps"]) == ("done", STEPS)
    assert any("began empty, as its transitions were lost" in note for note in killer.notes)


def test_a_chunk_lost_on_the_way_to_a_shard_raises_a_replay_error(cluster: str) -> None:
    lost = ray.remote(num_cpus=0)(lambda: 1 / 0).remote()
    host = RayHost(ray, [ray.remote(num_cpus=0)(ShardProcess).remote(lambda number: ["first"], 0)])
    host.call(0, "append", ray.put("second"))
    assert host.answer(host.call(0, "copy")) == ["first", "second"]
    host.call(0, "append", lost)
    for _ in range(2):
        with pytest.raises(ReplayError, match=r"^shard 0 is lost, with its transitions: \w+"):
            host.answer(host.call(0, "copy"))


def test_more_actors_than_processors_are_refused(cluster: str, tmp_path: Path) -> None:
    overrides = [*CARTPOLE, "collect=ray", "collect.actors=5", f"out={tmp_path / 'run'}"]
    with pytest.raises(RecipeError, match=r"collect.actors=5: expected at most 2, the processors that Ray"):
        compose("sqn_per", *overrides).train()
    until = time.monotonic() + 60  # actors of the previous test may still be ending
    while actors_of(os.getpid()):
        assert time.monotonic() < until
        time.sleep(0.1)
