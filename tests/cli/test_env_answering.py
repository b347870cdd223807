"""Whole runs with environments that return unusual values: each works, or fails with a code and one line."""

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sqn_rl import compose

Command = Callable[..., Any]

TINY = ["steps=60", "warmup_steps=30", "batch_size=8", "hidden=[4]", "eval_episodes=1", "num_envs=1"]
NAN = float("nan")


class Odd(gymnasium.Env):
    """Episodes of five steps that return the values in ``oddity`` from step ``since`` of each episode."""

    action_space, since = spaces.Discrete(2), 0
    observation_space = spaces.Box(-1, 1, (1, 2))

    def __init__(self, **oddity: Any) -> None:
        self.oddity = oddity
        vars(self).update(oddity)

    def answer(self, name: str, usual: Any) -> Any:
        return self.oddity.get(name, usual) if self.length >= self.since else usual

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        self.length = 0
        np.int32(seed)  # the seed must fit
        observation = self.answer("observation", np.zeros((1, 2), np.float32))
        return self.answer("start", (observation, {}))

    def step(self, action: int) -> Any:
        self.length += 1
        observation = self.answer("observation", np.zeros((1, 2), np.float32))
        ends = self.answer("terminated", False), self.answer("truncated", self.length == 5)
        return observation, self.answer("reward", 1.0), *ends, {}


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Register an environment that returns unusual values; returns the overrides that select it."""

    def register(**oddity: Any) -> list[str]:
        gymnasium.register("odd/Odd-v0", Odd, kwargs=oddity)
        return ["env=gym", "env.id=odd/Odd-v0"]

    yield register
    gymnasium.registry.pop("odd/Odd-v0")


WORKS: dict[str, dict[str, Any]] = {
    "lists": {"observation": [[0.5, 1]]},
    "an array as reward": {"reward": np.array([1.0])},
    "one action": {"action_space": spaces.Discrete(1)},
    "flags of numpy": {"terminated": np.bool_(False)},
}


@pytest.mark.parametrize("name", WORKS)
def test_an_environment_with_unusual_but_valid_values_is_trained(
    command: Command, odd: Callable, name: str
) -> None:
    done = command("run", *odd(**WORKS[name]), *TINY)
    assert (done.code, done.err) == (0, "")
    assert done.runs[0].rows("evaluations")[0]["returns"] == [5.0]


FAILS: dict[str, tuple[dict[str, Any], int, str]] = {
    "transposed": ({"observation": np.zeros((2, 1))}, 2, "observation is [2, 1] float64; expected [1, 2]"),
    "no observation": ({"observation": None}, 2, "observation is None; expected [1, 2] float32"),
    "NaN at the start": ({"observation": [[NAN, 0]]}, 2, "observation[0] = nan"),
    "no info": (
        {"start": np.zeros((1, 2))},
        2,
        "reset() returned [1, 2] float64; expected (observation, ",
    ),
    "transposed later": ({"observation": np.zeros((2, 1)), "since": 2}, 1, "observation is [2, 1] float64; "),
    "complex later": (
        {"observation": [[1j, 0]], "since": 2},
        1,
        "observation is [1, 2] complex128; ",
    ),
    "no reward": ({"reward": None, "since": 2}, 1, "reward is None; expected a number"),
    "a word for False": ({"terminated": "False", "since": 2}, 1, "terminated is 'False'; expected True or"),
    "none for False": ({"truncated": None, "since": 2}, 1, "truncated is None; expected True or False"),
    "NaN for False": ({"terminated": NAN, "since": 2}, 1, "terminated is nan; expected True or False"),
    "NaN as reward": ({"reward": NAN, "since": 2}, 4, "reward = nan"),
}


@pytest.mark.parametrize("name", FAILS)
def test_an_environment_with_invalid_values_fails_with_exit_code_and_one_line(
    command: Command, odd: Callable, name: str
) -> None:
    oddity, code, message = FAILS[name]
    done = command("run", *odd(**oddity), *TINY)
    assert (done.code, len(done.runs)) == (code, 0 if code == 2 else 1)
    assert len(done.err.splitlines()) == 1
    where = "odd/Odd-v0, environment 0, step 2: " if code == 1 else "odd/Odd-v0, environment 0, step "
    assert where in done.err
    assert message in done.err


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("recipe", ["sqn", "sqn_rainbow", "discrete_sac"])
def test_a_program_with_default_dtype_float64_saves_no_float64_weights(
    recipe: str, odd: Callable, folder: Any, float64: None
) -> None:
    trained = compose(recipe, *odd(), *TINY, "eval_every=30", "out=run").train()
    assert trained["status"] == "done"
    assert torch.get_default_dtype() == torch.float64
    weights = next(iter((folder / "run" / "checkpoints").glob("*/weights.safetensors")))
    assert b'"F64"' not in weights.read_bytes()[:20_000]
