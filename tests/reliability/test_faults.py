"""A disk fault at any single operation of a save always leaves a whole checkpoint."""

from pathlib import Path

import pytest
from reliability.faults import FAULTS, Fault, after_fault


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_fault_during_a_save_leaves_a_whole_checkpoint(fault: Fault, tmp_path: Path) -> None:
    number = 0
    while (outcome := after_fault(fault, number, tmp_path / str(number))) is not None:
        assert outcome in (9, 12), f"at operation {number}"
        number += 1
    assert number > 40
