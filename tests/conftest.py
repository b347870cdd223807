"""For all tests: one thread, no fsync, repeatable hypothesis draws, no curve plots; and random games."""

import base64
import gc
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor

from sqn_rl.plots.curve import draw_curve
from sqn_rl.types import Step

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # as of a command that is not in the background


MAY_SKIP = {
    "TorchRL's prioritized sampler does not load here": "its extension is compiled for another PyTorch",
    "no /dev/full here": "a device of Linux",
    "no GPU here": "tests/cuda is for machines that have one",
    "could not import 'trackio'": "it needs Pillow before 13, and the rest of the tests run with that",
    "root's rights cannot be given up here": "it takes capabilities",
}
"""Reasons for skips that are allowed although ``SQN_RL_NO_SKIPS`` is set (by their beginning), and why."""
skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember skipped tests."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(tuple(MAY_SKIP)):
            skipped.append(f"{report.nodeid}: {reason}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Remember skipped modules."""
    if report.skipped:
        skipped.append(f"{report.nodeid}: {report.longrepr}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """If ``SQN_RL_NO_SKIPS`` is set, fail if anything was skipped without an allowed reason."""
    if skipped and os.environ.get("SQN_RL_NO_SKIPS") and not hasattr(session.config, "workerinput"):
        print("", "skipped, though SQN_RL_NO_SKIPS is set:", *skipped, sep="\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection, which every training run calls twice."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)  # as in the commands


@pytest.fixture(scope="session", autouse=True)
def _no_power_cuts() -> Iterator[None]:
    """Make ``os.fsync`` do nothing: only a power cut could make a difference, and disks are slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


A_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="session", autouse=True)
def _no_curves() -> Iterator[None]:
    """Runs in this process save one pixel instead of a curve, which would take 0.4 s, as long as a tiny run.

    The numbers of the curve are appended to the pixel, so that the file changes with them.
    """

    def pixel(*shown: Any) -> bytes:
        return A_PIXEL + repr(shown).encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sqn_rl.runs.directory.draw_curve", pixel)
        yield


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw their curves."""
    monkeypatch.setattr("sqn_rl.runs.directory.draw_curve", draw_curve)


class Games:
    """N games that end at random, in every possible way. Observations are the last k frames, all different.

    An observation is ``[k, 2]`` float32, a single frame ``[2]``; rewards are multiples of ⅛.
    """

    def __init__(self, num_envs: int, ending: float, seed: int = 0, stack: int = 1) -> None:
        self.num_envs, self.ending, self.stack = num_envs, ending, stack
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = 1 + 10_000 * seed
        self.observation = self._begin()

    def _frame(self) -> Tensor:
        first, self.seen = self.seen, self.seen + self.num_envs
        frame = torch.arange(first, self.seen).unsqueeze(-1) + torch.tensor([0, 0.5])
        return frame.float() if self.stack == 1 else frame.float().unsqueeze(1)

    def _begin(self) -> Tensor:
        frame = self._frame()
        return frame if self.stack == 1 else torch.cat([frame * 0] * (self.stack - 1) + [frame], dim=1)

    def _chance(self) -> Tensor:
        return torch.rand(self.num_envs, generator=self.generator) < self.ending

    def restart(self, which: Tensor) -> None:
        """Abandon these games, ``[M]``, and begin new ones."""
        self.observation = self.observation.index_copy(0, which, self._begin()[which])

    def play(self) -> tuple[Tensor, Tensor, Step]:
        """Play one step: the observation, action and step that a replay stores."""
        before, frame = self.observation, self._frame()
        following = frame if self.stack == 1 else torch.cat([before[:, 1:], frame], dim=1)
        action = torch.randint(5, (self.num_envs,), generator=self.generator)
        reward = torch.randint(-8, 9, (self.num_envs,), generator=self.generator).float() / 8
        over, lost_life, late = self._chance(), self._chance(), self._chance()
        ended, terminated = over | late, over | lost_life
        go_on = ended.logical_not().view(-1, *[1] * (before.dim() - 1))
        self.observation = torch.where(go_on, following, self._begin())
        step = Step(self.observation, following, reward, terminated, late & ~terminated, ended, reward)
        return before, action, step


@pytest.fixture
def make_games() -> Callable[..., Games]:
    """Makes games: their number, the probability of each kind of ``ending`` at each step, seed and stack."""
    return Games
