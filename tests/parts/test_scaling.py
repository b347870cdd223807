"""Scaling: equal numbers with equal bounds are equal network inputs, in any dtype and container.

The inputs are the outputs of an MLP without layers, with the scaling of the environment.
"""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sqn_rl import MLP, Dense, GymEnv
from sqn_rl.parts.scaling import describe_scaling, scaling_of

INF = np.inf
BOUNDS: dict[tuple[float, float], tuple[list[float], list[float]]] = {  # observed numbers, and network inputs
    (0, 1): ([0, 1, 1], [0, 1, 1]),
    (0, 2): ([0, 1, 2], [0, 1, 2]),
    (-9, 9): ([-9, 0, 9], [-9, 0, 9]),
    (0, 32): ([0, 16, 32], [0, 16, 32]),
    (-28.25, 28.25): ([-28.25, 0, 1.5], [-28.25, 0, 1.5]),  # about Acrobot's 9π
    (0, 255): ([0, 127, 255], [-1, -1 / 128, 127 / 128]),  # (x - 128)/128
    (0, 200): ([0, 50, 200], [-1, -0.5, 1]),  # (x - 100)/100
    (1, 64): ([1, 33, 64], [-1, 0, 31 / 32]),  # middle 32.5 and half 31.5 up: (x - 33)/32
    (-128, 127): ([-128, 0, 127], [-1, 0, 127 / 128]),  # x/128
    (-100, 100): ([-100, 25, 100], [-1, 0.25, 1]),
    (200, 200): ([200, 200, 200], [0, 0, 0]),
    (0, 1000): ([0, 10, 1000], [0, 10, 1000]),  # wider than a byte
    (0, INF): ([0, 10, 1000], [0, 10, 1000]),
    (-INF, INF): ([-5, 0, 7], [-5, 0, 7]),
}
DTYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64)
CONTAINERS = ("Box", "Dict", "Tuple", "nested")


class Still(gymnasium.Env):
    """Always has the same observation."""

    def __init__(self, space: spaces.Space, observation: Any) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self.observation = observation

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return self.observation, {}


gymnasium.register("scaling/Still-v0", Still)


def inputs(space: spaces.Space, observation: Any) -> list[float]:
    kwargs = {"space": space, "observation": observation}
    env = GymEnv(id="scaling/Still-v0", kwargs=kwargs, num_envs=1, seed=0)
    sizes = {"observation_shape": env.observation_shape, "observation_scaling": env.observation_scaling}
    seen = env.begin()
    assert seen.dtype == env.observation_dtype
    return MLP(hidden=[], layer=partial(Dense, members=1), **sizes)(seen)[0].tolist()


def holds(dtype: type, numbers: list[float]) -> bool:
    """Whether this dtype can represent the numbers."""
    limits = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
    return all(limits.min <= x <= limits.max and (x == int(x) or limits.dtype.kind == "f") for x in numbers)


TABLE = [
    pytest.param(container, dtype, bounds, id=f"{container}-{dtype.__name__}-{bounds[0]}-{bounds[1]}")
    for container in CONTAINERS
    for dtype in DTYPES
    for bounds, (numbers, _) in BOUNDS.items()
    if holds(dtype, [*numbers, *(bound for bound in bounds if np.isfinite(bound))])
    and (np.isfinite(bounds).all() or np.issubdtype(dtype, np.floating))
]


@pytest.mark.parametrize(("container", "dtype", "bounds"), TABLE)
def test_equal_numbers_are_equal_inputs_in_any_dtype_and_container(
    container: str, dtype: type, bounds: tuple[float, float]
) -> None:
    numbers, expected = BOUNDS[bounds]
    space, array = spaces.Box(*bounds, (3,), dtype), np.array(numbers, dtype)
    pixel, pixels = spaces.Box(0, 255, (1, 1), np.uint8), np.array([[192]], np.uint8)
    both = spaces.Tuple((pixel, space))
    held: dict[str, tuple[spaces.Space, Any, list[float]]] = {
        "Box": (space, array, expected),
        "Dict": (spaces.Dict({"a": space, "b": pixel}), {"a": array, "b": pixels}, [*expected, 0.5]),
        "Tuple": (spaces.Tuple((spaces.Discrete(2), space)), (1, array), [0, 1, *expected]),
        "nested": (
            spaces.Dict({"a": both}),
            {"a": (pixels, array)},
            [0.5, *expected],
        ),
    }
    *of_space, expected = held[container]
    assert inputs(*of_space) == expected


@pytest.mark.parametrize(
    ("space", "observation", "expected"),
    [
        (spaces.Discrete(3), 2, [0, 0, 1]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 0]), [0, 1, 1, 0, 0]),
        (spaces.MultiBinary(2), np.array([1, 0], np.int8), [1, 0]),
        (spaces.Box(0, 1, (2,), np.bool_), np.array([True, False]), [1, 0]),
        (spaces.Discrete(300), 299, [0] * 299 + [1]),  # one-hot, however many values it has
    ],
    ids=str,
)
def test_one_hot_and_binary_observations_are_not_scaled(
    space: spaces.Space, observation: Any, expected: list[float]
) -> None:
    assert inputs(space, observation) == expected


def test_every_element_is_scaled_by_its_own_bounds() -> None:
    low, high = np.array([0, 0, -INF, 0]), np.array([255, 2, INF, 100])
    assert inputs(spaces.Box(low, high, dtype=np.float64), np.array([64, 1, -3, 75])) == [-0.5, 1, -3, 0.5]


@pytest.mark.parametrize("id", ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3", "Taxi-v4"])
def test_observations_of_well_known_tasks_are_not_scaled(id: str) -> None:
    if id.startswith("LunarLander"):
        pytest.importorskip("Box2D")
    assert GymEnv(id=id, num_envs=1, seed=0).observation_scaling is None


@pytest.mark.parametrize(
    ("low", "high", "dtype", "words"),
    [
        ([0, 0], [2, 2], torch.uint8, "taken as it is"),
        ([0, 0], [2, 2], torch.float32, "taken as it is"),
        ([0, 0], [255, 255], torch.uint8, "scaled as (x − 128)/128"),
        ([0, 0], [255, 255], torch.float32, "scaled as (x − 128)/128"),
        ([0, 0, 0], [200, 1, 255], torch.float32, "2 of its 3 numbers scaled to [−1, 1]"),
    ],
)
def test_describe_scaling_states_how_numbers_are_scaled(
    low: list, high: list, dtype: torch.dtype, words: str
) -> None:
    assert describe_scaling(scaling_of(np.array(low), np.array(high), dtype), dtype) == words
