"""Every choice that depends on the machine, tested on any machine with replaced functions of it."""

import ast
import os
import sys
from pathlib import Path

import pytest
import torch

import sqn_rl
from sqn_rl import compose
from sqn_rl.parts import machine

PACKAGE = Path(sqn_rl.__file__).parent
ASKED = {"cpu_count", "sched_getaffinity", "process_cpu_count", "get_capabilities", "which"}
"""Functions that query the machine."""

TINY = ("steps=24", "warmup_steps=8", "batch_size=4", "eval_episodes=1", "log_every=8", "replay_capacity=400")
PIXELS = ("env=atari", "env.game=pong", "num_envs=2", "env.max_frames=80", *TINY)
RAM = ("env=atari_ram", "env.game=pong", "num_envs=3", "env.max_frames=80", *TINY)

CHOICES = [
    ("has_amx", False, PIXELS, {"precision": "fp32"}),
    ("has_amx", True, PIXELS, {"precision": "bf16"}),
    ("has_amx", False, RAM, {"precision": "fp32"}),
    ("has_cxx", False, (*RAM, "hidden=[4]"), {"compiled": False}),
    ("processors", 1, RAM, {"workers": 1}),
    ("processors", 3, RAM, {"workers": 3}),
]
"""A function of :mod:`sqn_rl.parts.machine`, its result, a run, and what that run must choose.

Runs with a compiler are in ``test_compiling.py`` and ``test_compiled_runs.py``, as compiling takes long.
"""


@pytest.mark.parametrize(("choice", "answer", "run", "chosen"), CHOICES)
def test_a_run_adapts_to_the_resources_of_the_machine(
    choice: str,
    answer: object,
    run: tuple[str, ...],
    chosen: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(machine, choice, lambda: answer)
    monkeypatch.setattr("sqn_rl.recipe.auto.COMPILING_PAYS", 1 if choice == "has_cxx" else 1000)
    experiment = compose("sqn", *run, f"out={tmp_path / 'run'}")
    summary = experiment.train()
    assert summary["status"] == "done"
    workers = {"workers": getattr(experiment.recipe.build()["env"], "_n_workers", None)}
    assert chosen.items() <= (summary | workers).items()


def test_the_table_of_choices_covers_every_function_of_the_machine_module() -> None:
    functions = {
        name for name, each in vars(machine).items() if getattr(each, "__module__", "") == machine.__name__
    }
    of_memory = {name for name in functions if name.startswith("_")} | {"available_bytes"}
    elsewhere = {*of_memory, "cxx", "has_device"}  # in test_memory.py, below, and in tests/cli/test_load.py
    elsewhere.add("processor_name")  # only recorded
    assert {choice for choice, *_ in CHOICES} == functions - elsewhere


def test_no_other_module_queries_the_machine() -> None:
    for path in PACKAGE.rglob("*.py"):
        names = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert path.name == "machine.py" or not names & ASKED, path


@pytest.mark.parametrize("capabilities", [{}, {"amx_bf16": False}, {"amx_bf16": True}], ids=str)
def test_has_amx_reports_the_capability_that_pytorch_reports(
    capabilities: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert machine.has_amx() is capabilities.get("amx_bf16", False)


def test_there_is_at_least_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= machine.processors() <= (os.cpu_count() or 1)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.processors() == 1


def test_the_compiler_is_the_one_named_in_the_variable_cxx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert (machine.cxx(), machine.has_cxx()) == ("no-such-compiler", False)
    monkeypatch.setenv("CXX", "true")
    assert machine.has_cxx()
