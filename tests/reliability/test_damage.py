"""Damaged checkpoints are reported and skipped, and the newest undamaged checkpoint is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
from reliability.tiny import DAMAGES, Damaged


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_reported_with_its_file_and_skipped(how: Callable, tmp_path: Path) -> None:
    damaged = Damaged(tmp_path)
    assert len(damaged.files) == 10
    cases = [(file, seed) for file in damaged.files for seed in range(5)]
    assert [case for case in cases if not damaged.right(how, *case)] == []
