"""n-step returns, against a brute force over a plain Python list of all steps.

γ is ½ and rewards are multiples of ⅛, so that sums are exact and must be equal to the last bit.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from rings import make_ring
from torch import Tensor

from sqn_rl import Batch, FixedTemperature, NStep, OneStep, SettingError, Step, WiringError
from sqn_rl import functional as F
from sqn_rl.parts.replay.ring import Ring

MakeGames = Callable[..., Any]
GAMMA = 0.5


# --- worked by hand ----------------------------------------------------------------------------------------


def test_steps_to_last_counts_up_to_the_first_last_step() -> None:
    last_BT = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    assert F.steps_to_last(last_BT).tolist() == [3, 3, 2, 1, 1]
    assert F.steps_to_last(last_BT[:, :1]).tolist() == [1, 1, 1, 1, 1]


def test_n_step_returns_discount_rewards_and_ignore_later_ones() -> None:
    # γ = ½: 1; 1 + ½ · 4 = 3; 1 + ½ · 4 + ¼ · 8 = 5; and V(s') counts ½, ¼, ⅛
    nan = math.nan
    reward_BT = torch.tensor([[1.0, nan, nan], [1.0, 4.0, nan], [1.0, 4.0, 8.0]])
    returns, discount = F.n_step_return(reward_BT, torch.tensor([1, 2, 3]), GAMMA)
    assert returns.tolist() == [1, 3, 5]
    assert discount.tolist() == [1 / 2, 1 / 4, 1 / 8]


def test_with_gamma_zero_the_return_is_the_first_reward() -> None:
    returns, discount = F.n_step_return(torch.tensor([[3.0, 5.0]]), torch.tensor([2]), 0.0)
    assert (returns.tolist(), discount.tolist()) == ([3], [0])


def play(ring: Ring, t: int, **flags: bool) -> None:
    """One game's step from observation t to t + 1, with reward 1."""
    now, following, one = torch.full((1, 2), float(t)), torch.full((1, 2), t + 1.0), torch.ones(1)
    happened = (torch.tensor([flags.get(flag, False)]) for flag in ("terminated", "truncated", "ended"))
    ring.append(now, torch.zeros(1, dtype=torch.int64), Step(following, following, one, *happened, one))


def test_a_window_with_a_terminal_step_ends_at_that_step() -> None:
    # γ = .9, r = 1, V = 100: 1 + .9 + .81 + .729 · 100 = 75.61; rewards only where the terminal is in reach
    ring = make_ring(10, 1)
    for t in range(5):
        play(ring, t, terminated=t == 4, ended=t == 4)
    batch = NStep(gamma=0.9, n=3, soft=False).gather(ring, torch.arange(5))
    target = batch.reward + batch.discount * 100 * ~batch.terminated
    torch.testing.assert_close(target.double(), torch.tensor([75.61, 75.61, 2.71, 1.9, 1]), rtol=1e-6, atol=0)
    assert batch.next_observation[:, 0].tolist() == [3, 4, 5, 5, 5]
    assert batch.terminated.tolist() == [False, False, True, True, True]


def test_a_truncated_step_ends_the_window_and_bootstraps_even_without_a_reset() -> None:
    ring = make_ring(10, 1)
    for t in range(4):
        play(ring, t, truncated=t == 1)
    batch = NStep(gamma=0.5, n=3, soft=False).gather(ring, torch.arange(4))
    assert batch.reward.tolist() == [1.5, 1, 1.5, 1]
    assert batch.discount.tolist() == [0.25, 0.5, 0.25, 0.5]
    assert batch.next_observation[:, 0].tolist() == [2, 2, 4, 4]
    assert not batch.terminated.any()


# --- against brute force -----------------------------------------------------------------------------------


class Happened(NamedTuple):
    """One step of one game."""

    observation: list[Any]
    action: int
    reward: float
    next_observation: list[Any]
    terminated: bool
    truncated: bool
    ended: bool


class Return(NamedTuple):
    observation: list[Any]
    action: int
    reward: float
    next_observation: list[Any]
    terminated: bool
    discount: float


class Record:
    """The steps of N games, a list each; a None between two steps is a cut."""

    def __init__(self, num_envs: int) -> None:
        self.games: list[list[Happened | None]] = [[] for _ in range(num_envs)]

    def append(self, observation: Tensor, action: Tensor, step: Step) -> None:
        flags = (step.terminated, step.truncated, step.ended)
        columns = (observation, action, step.reward, step.next_observation, *flags)
        for i, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            self.games[i].append(Happened(*row))

    def cut(self, which: Tensor) -> None:
        for i in which.tolist():
            self.games[i].append(None)

    def returns(self, n: int, rows: int, bonus: Callable[[list[Any]], float] = lambda _: 0.0) -> list[Return]:
        """The returns of the newest rows, oldest first."""
        of_games = [
            [self._of(game[i:], n, bonus) for i, step in enumerate(game) if step] for game in self.games
        ]
        return [of_game[row] for row in range(-rows, 0) for of_game in of_games]

    def _of(self, future: list[Happened | None], n: int, bonus: Callable[[list[Any]], float]) -> Return:
        first, total, discount, last = future[0], 0.0, 1.0, None
        assert first is not None
        for step in future[:n]:
            if step is None:
                break
            total += discount * (step.reward + (bonus(step.observation) if last else 0.0))
            discount, last = discount * GAMMA, step
            if step.terminated or step.truncated or step.ended:
                break
        assert last is not None
        return Return(
            first.observation, first.action, total, last.next_observation, last.terminated, discount
        )


def stored(ring: Ring, returns: OneStep | NStep) -> list[Return]:
    """The returns of all rows in the ring, oldest first."""
    place = ring.place(torch.arange(len(ring)))
    batch = returns.gather(ring, place)
    assert torch.equal(batch.place, place)
    assert torch.equal(batch.discount, GAMMA ** returns.steps(ring, place))
    columns = [getattr(batch, name).tolist() for name in Return._fields]
    return [Return(*row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("ending", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize(("num_envs", "capacity", "stack"), [(1, 1, 1), (1, 12, 3), (3, 31, 1), (3, 31, 3)])
@pytest.mark.parametrize("n", [1, 3, 7])
def test_returns_equal_a_brute_force_over_the_recorded_steps(
    make_games: MakeGames, n: int, num_envs: int, capacity: int, stack: int, ending: float
) -> None:
    ring, record = make_ring(capacity, num_envs, stack), Record(num_envs)
    returns, games = NStep(gamma=GAMMA, n=n, soft=False), make_games(num_envs, ending, stack=stack)
    for row in range(1, 41):
        played = games.play()
        ring.append(*played)
        record.append(*played)
        if row % 6 == 0:
            which = torch.arange(num_envs)[row // 6 % 3 :]  # all of them, or some
            games.restart(which)
            ring.cut(which)
            record.cut(which)
        assert stored(ring, returns) == record.returns(n, min(row, capacity // num_envs))


def test_n_step_returns_with_n_1_equal_one_step_returns(make_games: MakeGames) -> None:
    ring, games = make_ring(60, 3), make_games(3, 0.1)
    for _ in range(30):
        ring.append(*games.play())
    ring.reward.normal_(generator=torch.Generator().manual_seed(0))  # so that sums are rounded
    place = ring.place(torch.arange(len(ring)))
    one, n = (
        returns.gather(ring, place) for returns in (OneStep(gamma=0.97), NStep(gamma=0.97, n=1, soft=False))
    )
    for name in Batch._fields[:7]:
        assert torch.equal(getattr(n, name), getattr(one, name)), name
        assert getattr(n, name).dtype == getattr(one, name).dtype


# --- soft --------------------------------------------------------------------------------------------------


class TwoActions:
    """A policy, π(0|s) = 1 / (1 + s₀), that differs for every observation."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def log_policy(self, observation: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked.append(len(observation))
        s = observation.double().reshape(len(observation), -1)[:, -2]
        return torch.stack([1 / (1 + s), s / (1 + s)], dim=-1).log()


def entropy(observation: list[Any]) -> float:
    s = observation[0] if isinstance(observation[0], float) else observation[-1][0]
    return math.log(1 + s) - s * math.log(s) / (1 + s)


@pytest.mark.parametrize("ending", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_soft_returns_add_the_entropies_of_the_intermediate_steps(
    make_games: MakeGames, n: int, stack: int, ending: float
) -> None:
    alpha, policy = 4.0, TwoActions()
    returns = NStep(gamma=GAMMA, n=n, soft=True, actor=policy, temperature=FixedTemperature(alpha=alpha))
    games, ring, record = make_games(3, ending, stack=stack), make_ring(31, 3, stack), Record(3)
    for t in range(20):
        played = games.play()
        ring.append(*played)
        record.append(*played)
        policy.asked.clear()
        actual = stored(ring, returns)
        expected = record.returns(n, min(t + 1, 10), bonus=lambda observation: alpha * entropy(observation))
        assert [each._replace(reward=0) for each in actual] == [each._replace(reward=0) for each in expected]
        rewards = torch.tensor([[each.reward for each in both] for both in (actual, expected)])
        torch.testing.assert_close(rewards[0], rewards[1], rtol=0, atol=1e-6)  # float32, below 8
        between = sum(round(math.log(each.discount, GAMMA)) - 1 for each in expected)
        assert policy.asked == ([between] if between else [])


def test_soft_returns_use_the_current_temperature(make_games: MakeGames) -> None:
    temperature, games, ring = FixedTemperature(alpha=1.0), make_games(1, 0.0), make_ring(10, 1)
    for _ in range(2):
        ring.append(*games.play())
    soft = NStep(gamma=GAMMA, n=2, soft=True, actor=TwoActions(), temperature=temperature)
    place = ring.place(torch.tensor([0]))
    before = soft.gather(ring, place).reward
    temperature.alpha.fill_(3.0)
    hard = NStep(gamma=GAMMA, n=2, soft=False).gather(ring, place).reward
    torch.testing.assert_close(soft.gather(ring, place).reward - hard, 3 * (before - hard), rtol=1e-6, atol=0)


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -1, 1.5, 3.0, True, "3"])
def test_an_n_that_is_not_a_positive_integer_is_refused(n: Any) -> None:
    with pytest.raises(SettingError, match="at least 1") as refused:
        NStep(gamma=GAMMA, n=n, soft=False)
    assert refused.value.field == "n"


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_a_gamma_outside_zero_to_one_is_refused(gamma: float) -> None:
    with pytest.raises(SettingError, match="gamma"):
        NStep(gamma=gamma, n=3, soft=False)


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ({"actor": TwoActions(), "temperature": None}, "temperature"),
        ({"actor": object(), "temperature": FixedTemperature(alpha=1.0)}, "policy"),
        ({"actor": None, "temperature": FixedTemperature(alpha=1.0)}, "policy"),
    ],
)
def test_soft_returns_without_a_policy_or_a_temperature_are_refused(
    parts: dict[str, Any], missing: str
) -> None:
    with pytest.raises(WiringError, match=missing) as refused:
        NStep(gamma=GAMMA, n=3, soft=True, **parts)
    assert refused.value.consumer == "returns.soft"
    NStep(gamma=GAMMA, n=3, soft=False, **parts)
