"""Schedules, by hand."""

import pytest

from sqn_rl.parts.schedule import linear


@pytest.mark.parametrize(
    ("progress", "wanted"), [(0.0, 0.5), (0.25, 0.4375), (0.5, 0.375), (1.0, 0.25), (1.5, 0.25)]
)
def test_linear_interpolates_until_progress_1_and_is_constant_afterwards(
    progress: float, wanted: float
) -> None:
    assert linear(0.5, 0.25, progress) == wanted
    assert linear(-0.5, -0.25, progress) == -wanted
