"""Byte codes are learned as the same floats are; weights without the recipe's scale are refused."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from sqn_rl import compose
from sqn_rl.errors import CheckpointError
from sqn_rl.recipe.reading import read_rows
from sqn_rl.training.weights import load_weights


class Levels(gymnasium.Env):
    """Shows one of three levels as a small code; the action equal to the code pays 1, at each of 9 steps."""

    action_space = spaces.Discrete(3)

    def __init__(self, dtype: str) -> None:
        self.observation_space = spaces.Box(0, 2, (5, 5, 1), np.dtype(dtype).type)
        self.t = 0

    def _observe(self) -> np.ndarray:
        return np.full((5, 5, 1), self.t % 3, self.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.t = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        paid, self.t = float(action == self.t % 3), self.t + 1
        return self._observe(), paid, self.t == 9, False, {}


gymnasium.register("codes/Levels-v0", Levels)


def levels(dtype: str, *overrides: str) -> Any:
    return compose("sqn", "env=gym", "env.id=codes/Levels-v0", f"env.kwargs.dtype={dtype}", *overrides)


def test_byte_codes_are_learned_exactly_as_the_same_float_codes(tmp_path: Path) -> None:
    short = ("steps=1000", "warmup_steps=200", "hidden=[32]", "eval_episodes=1", "gamma=0.5", "lr=3e-3")
    returns, losses = [], []
    for dtype in ("uint8", "float32"):
        summary = levels(dtype, *short, f"out={tmp_path / dtype}").train()
        returns.append(summary["evaluation"]["returns"])
        losses.append([row["loss_q"] for row in read_rows(tmp_path / dtype / "metrics.jsonl")])
    assert returns == [[9.0], [9.0]]
    assert losses[0] == losses[1]


def test_weights_that_were_learned_with_another_scaling_are_refused() -> None:
    loss = levels("uint8").recipe.build()["loss"]
    before = {name: each for name, each in loss.state_dict().items() if "observation_sc" not in name}
    with pytest.raises(CheckpointError, match=r"observation_scale: None in the file, \(25,\) in the recipe"):
        load_weights(loss, before)


def test_float_and_full_range_byte_observations_add_no_scale_to_the_weights() -> None:
    for parts in (levels("float32").recipe.build(), compose("sqn", "env=atari_ram").recipe.build()):
        assert not [name for name in parts["loss"].state_dict() if "observation" in name]
        parts["env"].close()
