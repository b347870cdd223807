"""Environments that misbehave: the error says which one, which of its games, at which step, and why."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from sqn_rl import Agent, BatchedEnv, EnvError, GymEnv, NumericsError, Plan, SqnError, Step, evaluate, train
from sqn_rl.cli import report

STEP = 5
NAN, INF = float("nan"), float("inf")
Answer = Callable[[], tuple[Any, float]]


class Spoilt(gymnasium.Env):
    """Games of eight steps; answer number ``at`` of the second game is what ``spoil`` returns."""

    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    made = 0

    def __init__(self, spoil: Answer, at: int = STEP) -> None:
        self.spoil, self.at, self.shown, self.number = spoil, at, 0, Spoilt.made
        Spoilt.made += 1

    def _answer(self) -> tuple[Any, float]:
        spoilt, self.shown = (self.number, self.shown) == (1, self.at), self.shown + 1
        return self.spoil() if spoilt else (np.zeros(3, np.float32), 1.0)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return self._answer()[0], {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        return *self._answer(), False, self.shown % 9 == 0, {}


gymnasium.register("misbehaving/Spoilt-v0", Spoilt)


class Together(BatchedEnv):
    """The same for a batched environment, which steps all games in one go."""

    def __init__(self, spoil: Answer, at: int = STEP) -> None:
        sizes = {"observation_shape": (3,), "observation_dtype": torch.float32, "frame_skip": 1}
        super().__init__(name="together", n_actions=2, **sizes, num_envs=3, seed=0)
        self.spoil, self.at, self.steps = spoil, at, 0

    def restart(self, rows: Sequence[int]) -> Tensor:
        return torch.zeros(len(rows), 3)

    def advance(self, action_N: Tensor) -> Step:
        self.steps += 1
        seen, reward, no = torch.zeros(3, 3), torch.zeros(3), torch.zeros(3, dtype=torch.bool)
        if self.steps == self.at:
            answer, reward[1] = self.spoil()
            seen = torch.stack([seen[0], torch.as_tensor(answer), seen[2]])
        return Step(seen, seen, reward, no, no, no, reward)


def apart(spoil: Answer, at: int = STEP) -> GymEnv:
    Spoilt.made = 0
    return GymEnv(id="misbehaving/Spoilt-v0", kwargs={"spoil": spoil, "at": at}, num_envs=3, seed=0)


def play(env: BatchedEnv, steps: int = 30) -> None:
    env.begin()
    for _ in range(steps):
        env.send(torch.zeros(env.num_envs, dtype=torch.int64))
        env.receive()


def fail() -> Any:
    raise RuntimeError("boom\nand more")


def seen(*numbers: float) -> Answer:
    return lambda: (np.array(numbers, np.float32), 1.0)


def paid(reward: float) -> Answer:
    return lambda: (np.zeros(3, np.float32), reward)


SPOILS: dict[str, tuple[Answer, type[SqnError], str]] = {
    "raises": (fail, EnvError, rf"RuntimeError: boom \| and more \(.*{Path(__file__).name}:\d+\)$"),
    "too short": (seen(0.0), EnvError, r"observation is \[1\] float32; expected \[3\] float32"),
    "too long": (seen(0, 0, 0, 0), EnvError, r"observation is \[4\] float32; expected \[3\] float32"),
    "none": (lambda: (None, 1.0), EnvError, r"observation is None; expected \[3\] float32"),
    "no number": (lambda: (np.zeros(3, np.float32), "much"), EnvError, "reward is 'much'; expected a number"),
    "nan": (seen(0, NAN, 0), NumericsError, r"next_observation\[1\] = nan$"),
    "inf": (seen(0, 0, -INF), NumericsError, r"next_observation\[2\] = -inf$"),
    "a reward of nan": (paid(NAN), NumericsError, r"reward = nan$"),
    "a reward of inf": (paid(INF), NumericsError, r"reward = inf$"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_an_error_names_the_environment_the_step_and_the_cause(name: str) -> None:
    spoil, kind, message = SPOILS[name]
    with pytest.raises(
        kind, match=f"^misbehaving/Spoilt-v0, environment 1, step {STEP}: .*{message}"
    ) as error:
        play(apart(spoil))
    assert report(error.value) == (4 if kind is NumericsError else 1)


@pytest.mark.parametrize("name", ["nan", "inf", "a reward of nan", "a reward of inf"])
def test_a_non_finite_number_in_a_batched_step_names_the_environment_and_step(name: str) -> None:
    spoil, kind, message = SPOILS[name]
    with pytest.raises(kind, match=f"^together, environment 1, step {STEP}: {message}"):
        play(Together(spoil))


@pytest.mark.parametrize(
    ("spoil", "message"), [(fail, "RuntimeError: boom"), (seen(0), "RuntimeError: stack")]
)
def test_an_exception_in_a_batched_step_is_raised_with_the_name_and_step(spoil: Answer, message: str) -> None:
    with pytest.raises(EnvError, match=f"^together, step {STEP}: {message}") as error:
        play(Together(spoil))
    assert isinstance(error.value.__cause__, RuntimeError)


def test_a_batched_step_column_of_the_wrong_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    env, answer = Together(fail, at=-1), Together.advance
    monkeypatch.setattr(Together, "advance", lambda *way: answer(*way)._replace(reward=torch.zeros(3, 1)))
    with pytest.raises(
        EnvError, match=r"together, step 1: .*reward is \[3, 1\] float32; expected \[3\] float32"
    ):
        play(env)


@pytest.mark.parametrize(("at", "step"), [(0, 0), (9, 8), (18, 16)])
@pytest.mark.parametrize("name", ["raises", "too short", "nan"])
def test_an_error_at_a_reset_names_the_environment_and_step(name: str, at: int, step: int) -> None:
    spoil, kind, message = SPOILS[name]
    message = message.removeprefix("next_")
    with pytest.raises(kind, match=f"^misbehaving/Spoilt-v0, environment 1, step {step}: .*{message}"):
        play(apart(spoil, at))


def test_large_finite_numbers_are_accepted() -> None:
    play(apart(seen(3e38, -3e38, 1e30)))
    play(Together(seen(3e38, -3e38, 1e30)))


def test_a_misbehaving_environment_stops_training_and_evaluation(make_agent: Callable[..., Agent]) -> None:
    plan = Plan(steps=90, warmup_steps=9, update_ratio=0.2, batch_size=4, seed=0)
    env = apart(SPOILS["nan"][0])
    agent = make_agent(env)
    with pytest.raises(NumericsError, match="environment 1, step 5"):
        train(agent, env, plan)
    with pytest.raises(EnvError, match="environment 1, step 5"):
        evaluate(agent.actor, apart(fail), episodes=3, greedy=True, seed=0)
