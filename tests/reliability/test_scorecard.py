"""The page of the scorecard shows the measured numbers."""

from dataclasses import asdict

from reliability.score import Line, page, sums
from reliability.scorecard import PAGE, SECTIONS


def test_the_scorecard_page_matches_the_raw_numbers() -> None:
    assert PAGE.read_text() == page(SECTIONS)


def test_totals_sum_the_cases_and_faults_of_all_lines() -> None:
    plain, compiled = (asdict(Line("", "", "", True, cases=cases)) for cases in (800, 250))
    hanging = asdict(Line("", "", "", False, cases=4_000, faults={"hangs": 2}))
    found = sums({"kills": [plain], "compiled": [compiled], "fuzz": [hanging, hanging], "disk": []})
    assert [(line.what, line.found, line.met) for line in found] == [
        ("kills", "1,050", True),
        ("kills of compiled runs", "250", False),
        ("hostile inputs", "0", False),
        ("fuzz cases", "8,000", True),
        ("effects", "0", True),
        ("tracebacks", "0", True),
        ("hangs", "4", False),
    ]
