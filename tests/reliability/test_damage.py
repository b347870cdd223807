"""Damaged checkpoints: nothing of what is wrong with them is believed, and what is whole is found."""

from collections.abc import Callable
from pathlib import Path

import pytest
from reliability.tiny import DAMAGES, Damaged


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_noticed_named_and_passed_over(how: Callable, tmp_path: Path) -> None:
    damaged = Damaged(tmp_path)
    assert len(damaged.files) == 10
    cases = [(file, seed) for file in damaged.files for seed in range(5)]
    assert [case for case in cases if not damaged.right(how, *case)] == []
