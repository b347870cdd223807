"""Which answers of environments are accepted; errors name the environment, value and what was expected."""

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sqn_rl import BatchedEnv, EnvError, GymEnv, NumericsError, SettingError, Step

NAN = float("nan")
BOX, BYTES = spaces.Box(-9, 9, (2, 3)), spaces.Box(0, 255, (2,), np.uint8)
POSE = spaces.Dict({"image": BYTES, "pose": spaces.Box(-1, 1, (2,))})
POSED = {"image": np.zeros(2, np.uint8), "pose": np.zeros(2)}
GRID, PAIR = spaces.MultiDiscrete([2, 3]), spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2)))


class Answering(gymnasium.Env):
    """Answers correctly to the first three actions, and then with ``then``."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space, first: Any, then: tuple[Any, ...]) -> None:
        self.observation_space, self.first, self.then, self.steps = space, first, then, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        return self.first, {}

    def step(self, action: int) -> Any:
        self.steps += 1
        return self.then if self.steps == 4 else (self.first, 1.0, False, False, {})


gymnasium.register("answers/Answering-v0", Answering)
gymnasium.register("answers/Limited-v0", Answering, max_episode_steps=100)


def play(env: BatchedEnv, steps: int = 4) -> Step:
    env.begin()
    for _ in range(steps):
        env.send(torch.zeros(env.num_envs, dtype=torch.int64))
        step = env.receive()
    return step


def answered(*then: Any, space: spaces.Space = BOX, first: Any = None, id: str = "Answering") -> Step:
    start = space.sample() if first is None else first
    kwargs = {"space": space, "first": start, "then": then}
    return play(GymEnv(id=f"answers/{id}-v0", kwargs=kwargs, num_envs=1, seed=0))


RAMP = np.arange(6.0).reshape(2, 3)

TAKEN = {
    "float64": (BOX, RAMP, [0, 1, 2, 3, 4, 5]),
    "whole numbers": (BOX, RAMP.astype(int), [0, 1, 2, 3, 4, 5]),
    "a list": (BOX, [[0, 1, 2], [3, 4, 5.0]], [0, 1, 2, 3, 4, 5]),
    "a tensor": (BOX, torch.from_numpy(RAMP), [0, 1, 2, 3, 4, 5]),
    "beyond its bounds": (BOX, RAMP + 9, [9, 10, 11, 12, 13, 14]),
    "a list of bytes": (BYTES, [7, 200], [7, 200]),
    "bytes as int64": (BYTES, np.array([7, 200]), [7, 200]),
    "an array of one choice": (spaces.Discrete(3), np.array([2]), [0, 0, 1]),
    "lists in a dict": (POSE, {"image": [7, 200], "pose": [0.5, 1]}, [7, 200, 0.5, 1]),
    "lists in a tuple": (PAIR, [1, [1, 0]], [0, 1, 1, 0]),
    "a list of choices": (GRID, [1, 2], [0, 1, 0, 0, 1]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_convertible_observation_is_accepted(name: str) -> None:
    space, answer, flat = TAKEN[name]
    step = answered(answer, 1.0, False, False, {}, space=space)
    assert step.next_observation.tolist() == [flat]


REFUSED = {
    "transposed": (BOX, np.zeros((3, 2), np.float32), r"[3, 2] float32; expected [2, 3] float32"),
    "none": (BOX, None, "None; expected [2, 3] float32"),
    "rows of two lengths": (BOX, [[1, 2, 3], [4]], "[[1, 2, 3], [4]]; expected [2, 3] float32"),
    "complex": (BOX, np.zeros((2, 3), complex), "[2, 3] complex128; expected [2, 3] float32"),
    "words": (BOX, "left", "'left'; expected [2, 3] float32"),
    "objects": (BOX, np.full((2, 3), None), "[2, 3] object; expected [2, 3] float32"),
    "floats where bytes were": (BYTES, np.full(2, 0.5), "[2] float64; expected [2] uint8"),
    "whole floats where bytes were": (BYTES, np.ones(2), "[2] float64; expected [2] uint8"),
    "more than a byte": (BYTES, np.array([7, 300]), "observation holds 300; expected [2] uint8"),
    "choice -1": (spaces.Discrete(3), -1, "-1; expected one of Discrete(3)"),
    "choice 3": (spaces.Discrete(3), np.int64(3), "3; expected one of Discrete(3)"),
    "choice 0 of 5 to 7": (spaces.Discrete(3, start=5), 0, "0; expected one of Discrete(3, start=5)"),
    "half a choice": (spaces.Discrete(3), 0.5, "0.5; expected one of Discrete(3)"),
    "an invalid choice of two": (GRID, np.array([2, 0]), "[2] int64; expected one of MultiDiscrete"),
    "an invalid bit": (spaces.MultiBinary(2), np.array([0, 2]), "[2] int64; expected one of MultiBinary"),
    "a dict without a key": (
        POSE,
        {"image": POSED["image"]},
        "{'image': array([0, 0], dtype=uint8)}; expected one of Dict(",
    ),
    "a part transposed": (
        POSE,
        POSED | {"pose": np.zeros((2, 1))},
        "observation['pose'] is [2, 1] float64; expected [2] float32",
    ),
    "a tuple too short": (PAIR, (1,), "(1,); expected one of Tuple("),
    "no dict": (POSE, np.zeros(4), "[4] float64; expected one of Dict("),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_observation_is_refused_with_what_was_expected(name: str) -> None:
    space, answer, message = REFUSED[name]
    space.seed(0)
    message = message if message.startswith("observation") else f"observation is {message}"
    where = re.escape(f"answers/Answering-v0, environment 0, step 4: {message}")
    with pytest.raises(EnvError, match=f"^{where}") as error:
        answered(answer, 1.0, False, False, {}, space=space)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "reward", [3, np.float16(3), np.array(3.0), np.array([3]), [3.0], torch.tensor([3.0])]
)
def test_a_reward_of_any_numeric_type_is_accepted(reward: Any) -> None:
    step = answered(RAMP, reward, False, False, {})
    assert (step.reward.tolist(), step.score.tolist()) == ([3.0], [3.0])


@pytest.mark.parametrize(
    ("flags", "taken"),
    [
        ((np.bool_(True), False), (True, False)),
        ((0, 1), (False, True)),
        ((np.array([True]), np.array(False)), (True, False)),
        ((1.0, 0.0), (True, False)),
        ((torch.tensor(False), torch.tensor([True])), (False, True)),
    ],
)
def test_end_flags_of_any_boolean_like_type_are_accepted(
    flags: tuple[Any, Any], taken: tuple[bool, bool]
) -> None:
    step = answered(RAMP, 1.0, *flags, {})
    assert (step.terminated.item(), step.truncated.item(), step.ended.item()) == (*taken, True)


NONSENSE = {
    "no reward": ((RAMP, None, False, False, {}), "reward is None; expected a number"),
    "a complex reward": ((RAMP, 1j, False, False, {}), "reward is 1j; expected a number"),
    "a word as reward": ((RAMP, "1.0", False, False, {}), "reward is '1.0'; expected a number"),
    "two rewards": ((RAMP, np.ones(2), False, False, {}), "reward is [2] float64; expected a number"),
    "terminated, a word": ((RAMP, 1.0, "False", False, {}), "terminated is 'False'; expected True or False"),
    "terminated, none": ((RAMP, 1.0, None, False, {}), "terminated is None; expected True or False"),
    "terminated, NaN": ((RAMP, 1.0, NAN, False, {}), "terminated is nan; expected True or False"),
    "terminated, 2": ((RAMP, 1.0, 2, False, {}), "terminated is 2; expected True or False"),
    "truncated, a word": ((RAMP, 1.0, False, "no", {}), "truncated is 'no'; expected True or False"),
    "truncated, none": ((RAMP, 1.0, True, None, {}), "truncated is None; expected True or False"),
    "the old step": (
        (RAMP, 1.0, False, {}),
        "step() must return (observation, reward, terminated, truncated, info): not enough values",
    ),
}


@pytest.mark.parametrize("id", ["Answering", "Limited"])
@pytest.mark.parametrize("name", NONSENSE)
def test_an_invalid_step_result_is_refused_with_what_was_expected(name: str, id: str) -> None:
    then, message = NONSENSE[name]
    where = re.escape(f"answers/{id}-v0, environment 0, step 4: {message}")
    with pytest.raises(EnvError, match=f"^{where}"):
        answered(*then, id=id)


@pytest.mark.parametrize("answer", [(RAMP, NAN, False, False, {}), (RAMP * NAN, 1.0, False, False, {})])
def test_a_nan_reward_or_observation_raises_a_numerics_error(answer: tuple[Any, ...]) -> None:
    with pytest.raises(NumericsError, match=r"^answers/Answering-v0, environment 0, step 4: .* = nan$"):
        answered(*answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(RAMP, "[2, 3] float64"), ((RAMP, RAMP), "(array"), (None, "None"), ((RAMP,), "(array")],
)
def test_a_reset_without_info_is_refused(monkeypatch: pytest.MonkeyPatch, answer: Any, message: str) -> None:
    monkeypatch.setattr(Answering, "reset", lambda self, **_: answer)
    where = "answers/Answering-v0, environment 0, step 0: at its reset: reset() returned "
    with pytest.raises(EnvError, match=rf"^{re.escape(where + message)}.*; expected \(observation, info\)$"):
        answered()


@pytest.mark.parametrize("space", [spaces.Box(0, 1, (0,)), spaces.Dict({}), spaces.Tuple(()), None])
def test_an_empty_or_missing_observation_space_is_refused(space: Any) -> None:
    with pytest.raises(SettingError, match="expected observations of Box, Discrete"):
        answered(space=space, first=0)


YES = torch.tensor([False, True, False])


class Together(BatchedEnv):
    """Games that are stepped in one go; one column of the answer is replaced."""

    def __init__(self, **column: Any) -> None:
        sizes = {"observation_shape": (2,), "observation_dtype": torch.uint8, "frame_skip": 1}
        super().__init__(name="together", n_actions=2, **sizes, num_envs=3, seed=0)
        self.column = column

    def restart(self, rows: Any) -> torch.Tensor:
        return torch.zeros(len(rows), 2, dtype=torch.uint8)

    def advance(self, action_N: torch.Tensor) -> Step:
        seen, no = torch.zeros(3, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.bool)
        return Step(seen, seen, torch.ones(3), no, no, no, torch.ones(3))._replace(**self.column)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"reward": None}, "reward is None; expected [3] float32"),
        ({"score": torch.ones(3, dtype=torch.complex64)}, "score is [3] complex64; expected [3] float64"),
        ({"terminated": torch.zeros(3)}, "terminated is [3] float32; expected [3] bool"),
        ({"ended": torch.zeros(3, dtype=torch.int64)}, "ended is [3] int64; expected [3] bool"),
        ({"observation": torch.zeros(3, 2)}, "observation is [3, 2] float32; expected [3, 2] uint8"),
        ({"truncated": YES}, "an episode is truncated and not ended; expected `ended` where it is truncated"),
        (
            {"ended": YES},
            "an episode is ended and neither terminated nor truncated; expected one of the two",
        ),
    ],
)
def test_a_batched_step_column_of_the_wrong_type_is_refused(column: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvError, match=f"^{re.escape(f'together, step 1: {message}')}$"):
        play(Together(**column))


def test_a_lost_life_is_terminated_and_not_ended() -> None:
    assert play(Together(terminated=YES)).terminated.tolist() == YES.tolist()


def test_a_nan_score_of_a_batched_step_is_refused() -> None:
    with pytest.raises(NumericsError, match=r"^together, environment 1, step 1: score = nan$"):
        play(Together(score=torch.tensor([0.0, torch.nan, 0.0])))


def test_a_batched_step_that_is_a_tuple_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Together, "advance", lambda *_: (0, 1.0, False, False, {}))
    with pytest.raises(
        EnvError, match=r"^together, step 1: advance\(\) returned .*; expected a sqn_rl.Step$"
    ):
        play(Together())


def test_float64_rewards_of_a_batched_step_are_accepted() -> None:
    assert play(Together(reward=torch.ones(3, dtype=torch.float64))).reward.tolist() == [1, 1, 1]


def exits(*_: Any, **__: Any) -> Any:
    raise SystemExit(0)


def test_an_environment_that_exits_does_not_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Together, "advance", exits)
    with pytest.raises(EnvError, match=r"^together, step 1: SystemExit: 0"):
        play(Together())
    monkeypatch.setattr(Answering, "__init__", exits)
    with pytest.raises(SettingError, match=r"expected an environment that can be opened \(SystemExit: 0"):
        answered()


class Counting(BatchedEnv):
    """Two games stepped in one go; an observation is the steps of its episode, which has no end."""

    def __init__(self) -> None:
        sizes = {"observation_shape": (1,), "observation_dtype": torch.float32, "frame_skip": 1}
        super().__init__(name="counting", n_actions=2, **sizes, num_envs=2, seed=0)
        self.steps = torch.zeros(2, 1)

    def restart(self, rows: Any) -> torch.Tensor:
        self.steps[list(rows)] = 0
        return self.steps[list(rows)]

    def advance(self, action_N: torch.Tensor) -> Step:
        self.steps = self.steps + 1
        no = torch.zeros(2, dtype=torch.bool)
        return Step(self.steps, self.steps, torch.ones(2), no, no, no, torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("side", ["ours", "TorchRL's"])
def test_resetting_one_environment_does_not_change_the_others(side: str) -> None:
    env = Counting()
    if side == "ours":
        play(env, steps=3)
    else:
        env.rollout(3)
    assert env.begin([1]).tolist() == [[3], [0]]
    assert env.begin([1, 1]).tolist() == [[3], [0]]


def test_a_torchrl_rollout_refuses_an_invalid_reward() -> None:
    with pytest.raises(EnvError, match="reward is None"):
        Together(reward=None).rollout(1)
