"""The scorecard's page says what was measured."""

from reliability.score import page
from reliability.scorecard import PAGE, SECTIONS


def test_the_page_is_that_of_the_raw_numbers() -> None:
    assert PAGE.read_text() == page(SECTIONS)
