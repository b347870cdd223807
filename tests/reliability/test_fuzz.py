"""Fuzzing of whole commands: a few of the cases that the scorecard counts."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from reliability.fuzz import World, cases, faults, permissions_count

COUNT, SEED = 40, 2


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    if not permissions_count():
        pytest.skip("root's rights cannot be given up here")
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        yield world
        world.clear()


def test_commands_report_corrupt_input_by_name_and_change_nothing_else(world: World) -> None:
    wrong = {case: found for case in cases(world, COUNT, SEED) if (found := faults(case, world.run(case)))}
    assert wrong == {}
