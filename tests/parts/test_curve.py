"""``curve.png``: which panels a run has, and that they are drawn."""

from io import BytesIO

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from sqn_rl.plots.curve import BLUE, ORANGE, _draw_panel, columns_of, draw_curve, panels_of

COUNTERS = {"frames": 0, "updates": 0, "episodes": 0}
SQN = {
    "q_mean": 1.0, "td_error": 0.1, "loss_q": 0.2, "alpha": 0.1, "loss_alpha": -0.1, "entropy": 0.5,
    "target_entropy": 0.4, "off_greedy": 0.1,
}  # fmt: skip
DQN = {"q_mean": 1.0, "td_error": 0.1, "loss_q": 0.2, "epsilon": 0.5}
EPISODES = [{"env_steps": 40, "return": 3.0, "length": 3}]
EVALUATIONS = [{"env_steps": 300, "mean": 7.0, "std": 1.0}]


def rows(columns: dict[str, float], seconds: tuple[float, ...] = (2.0, 4.0, 5.0)) -> list[dict]:
    """A row every 100 steps."""
    return [
        {"env_steps": 100 * number, "wall_s": wall_s, "return_mean": None, **COUNTERS, **columns}
        for number, wall_s in enumerate(seconds, 1)
    ]


def titles(metrics: list[dict]) -> list[str]:
    return [panel.title.partition(" (")[0] for panel in panels_of(columns_of(metrics))]


def test_speed_is_measured_since_the_previous_row() -> None:
    assert columns_of(rows({}))["steps_per_s"] == [None, 50.0, 100.0]
    assert columns_of(rows({}, (1.0, 1.0)))["steps_per_s"] == [None, None]
    assert columns_of([])["steps_per_s"] == []


def test_a_column_that_appears_late_has_gaps_in_earlier_rows() -> None:
    metrics = [{"env_steps": 1, "wall_s": 1.0}, {"env_steps": 2, "wall_s": 2.0, "alpha": 0.5}]
    assert columns_of(metrics)["alpha"] == [None, 0.5]


def test_the_panels_are_those_of_the_logged_columns() -> None:
    shared = ["mean Q(s, a)", "mean |TD error|", "loss of Q"]
    temperature = ["temperature α", "loss of α", "entropy", "off-greedy mass"]
    assert titles(rows(SQN)) == [*shared, *temperature, "steps/s, updates included"]
    assert titles(rows(DQN)) == [*shared, "ε: random actions", "steps/s, updates included"]
    assert titles(rows({"my_metric": 1.0, "target_entropy": None})) == [
        "steps/s, updates included",
        "my_metric",
    ]
    assert titles([]) == []


def test_a_column_with_a_single_value_has_no_panel() -> None:
    assert titles(rows(SQN, (1.0,))) == []
    assert titles([*rows(DQN), *rows({"alpha": 0.5}, (9.0,))]) == titles(rows(DQN))


@pytest.mark.parametrize(
    ("metrics", "height"),
    [(rows(SQN), 9.6), (rows(SQN, (1.0,)), 4.6), (rows(DQN), 9.6), ([], 4.6)],
    ids=["sqn", "one row", "dqn", "none"],
)
def test_the_curve_is_drawn_at_its_size_with_and_without_metrics(metrics: list[dict], height: float) -> None:
    png = draw_curve("a title", metrics, EPISODES, EVALUATIONS)
    picture = (imread(BytesIO(png))[..., :3] * 255).round()
    assert picture.shape == (round(height * 110), 1430, 3)

    def pixels(colour: str) -> int:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return int((np.abs(picture - rgb).max(-1) < 2).sum())

    assert pixels(ORANGE) > 50
    assert (pixels(BLUE) > 100) == (len(metrics) > 1)


def test_the_curve_does_not_depend_on_the_users_matplotlibrc() -> None:
    own = {"text.usetex": True, "font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}
    drawn = draw_curve("a title", rows(SQN), EPISODES, EVALUATIONS)
    with matplotlib.rc_context(own):
        assert draw_curve("a title", rows(SQN), EPISODES, EVALUATIONS) == drawn
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("span", [1.5, 5, 15, 90, 150, 300, 1e3, 1e5, 1e9])
def test_a_logarithmic_axis_has_two_to_seven_ticks(span: float) -> None:
    metrics = rows({"loss_q": 1.0, "alpha": 1.0, "entropy": 1.0})
    for number, row in enumerate(metrics):
        row["loss_q"] = 3e-6 * span ** (number / (len(metrics) - 1))
    columns = columns_of(metrics)
    (panel,) = (each for each in panels_of(columns) if "loss_q" in each.lines)
    axes = Figure().subplots()
    _draw_panel(axes, panel, columns)
    low, high = axes.get_ylim()
    assert 2 <= len([tick for tick in axes.get_yticks() if low <= tick <= high]) <= 7
