"""GymEnv: how it converts spaces, and how it refuses environments that it cannot play."""

import re
import sys
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from sqn_rl.errors import EnvError, ObservationError, SettingError, to_install
from sqn_rl.parts.env.gym import GymEnv
from sqn_rl.parts.env.opening import WRAPPABLE


class Still(gymnasium.Env):
    """Always answers with the same observation; keeps the actions it was given."""

    def __init__(self, space: spaces.Space, actions: spaces.Space, observation: Any) -> None:
        self.observation_space, self.action_space, self.observation = space, actions, observation
        self.played: list[int] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return self.observation, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.played.append(action)
        return self.observation, 0.0, True, True, {}


gymnasium.register("still/Still-v0", Still)


def still(space: spaces.Space, observation: Any = None, actions: spaces.Space | None = None) -> GymEnv:
    actions = spaces.Discrete(2) if actions is None else actions
    kwargs = {"space": space, "actions": actions, "observation": observation}
    return GymEnv(id="still/Still-v0", kwargs=kwargs, num_envs=1, seed=0)


@pytest.mark.parametrize(
    ("space", "observation", "flat", "dtype"),
    [
        (spaces.Box(-1, 1, (2,), np.float64), np.array([0.5, -0.25]), [0.5, -0.25], torch.float32),
        (spaces.Box(-9, 9, (1, 2), np.int64), np.array([[3, -4]]), [3, -4], torch.float32),
        (spaces.Box(0, 99, (2, 1), np.uint8), np.array([[7], [20]], np.uint8), [7, 20], torch.uint8),
        (spaces.Box(0, 1, (2,), np.uint8), np.array([0, 1], np.uint8), [0, 1], torch.float32),
        (spaces.Discrete(3, start=5), 6, [0, 1, 0], torch.float32),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 0]), [0, 1, 1, 0, 0], torch.float32),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1], torch.float32),
        (
            spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 9, (1,)))),
            (1, np.array([4.5])),
            [0, 1, 4.5],
            torch.float32,
        ),
        (
            spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Tuple((spaces.MultiBinary(1),))}),
            {"b": 0, "a": (np.array([1], np.int8),)},
            [1, 1, 0],  # in the order of the keys
            torch.float32,
        ),
    ],
)
def test_observations_are_flattened(
    space: spaces.Space, observation: Any, flat: list, dtype: torch.dtype
) -> None:
    env = still(space, observation)
    assert env.observation_shape == (len(flat),)
    assert env.observation_dtype == dtype
    assert torch.equal(env.begin(), torch.tensor([flat], dtype=dtype))


def test_actions_are_shifted_to_the_environments_first_action() -> None:
    env = still(spaces.Discrete(1), 0, actions=spaces.Discrete(3, start=-1))
    env.begin()
    assert env.n_actions == 3
    for action in range(3):
        env.advance(torch.tensor([action]))
    assert env._envs[0].unwrapped.played == [-1, 0, 1]


def test_a_terminal_step_at_the_time_limit_is_not_truncated() -> None:
    env = still(spaces.Discrete(1), 0)
    env.begin()
    step = env.advance(torch.tensor([0]))
    assert (step.terminated.item(), step.truncated.item(), step.ended.item()) == (True, False, True)


@pytest.mark.parametrize("actions", [spaces.Box(-1, 1), spaces.Tuple([spaces.Discrete(2)])])
def test_an_unsupported_action_space_is_refused(actions: spaces.Space) -> None:
    with pytest.raises(SettingError, match="MultiDiscrete or MultiBinary actions; it has") as error:
        still(spaces.Discrete(1), 0, actions=actions)
    assert error.value.field == "id"


@pytest.mark.parametrize(
    "space",
    [
        spaces.Text(3),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Graph(spaces.Box(0, 1, (1,)), None),
        spaces.Dict({"a": spaces.Tuple((spaces.Text(3),))}),
    ],
)
def test_an_unsupported_observation_space_is_refused(space: spaces.Space) -> None:
    with pytest.raises(SettingError, match="expected observations of Box, Discrete") as error:
        still(space)
    assert error.value.field == "id"


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"id": "CartPol-v1"}, "id", "did you mean 'CartPole-v1'"),
        ({"id": "cartpole"}, "id", "did you mean 'CartPole-v1'"),
        ({"id": "CartPole-v9"}, "id", "did you mean 'CartPole-v1'"),
        ({"id": "LunarLander-v2"}, "id", "use `LunarLander-v3` instead"),
        (
            {"id": "Zzz-v0"},
            "id",
            r"knows, or that a module registers: --trust MODULE \(",
        ),
        ({"id": "no_such_module:Env-v0"}, "id", "--trust"),
        ({"id": {"a": 1}}, "id", "the id of an environment, such as CartPole-v1"),
        ({"id": "ALE/Pongg-v5"}, "id", "write env=atari env.game=pongg"),
        (
            {"id": "still/Still-v0"},
            "kwargs",
            r"takes: add env\.kwargs\.\w+=VALUE env\..*missing 3 required",
        ),
        ({"kwargs": {"wind": 1}}, "kwargs", "unexpected keyword argument 'wind'"),
        ({"id": "FrozenLake-v1", "kwargs": {"map_name": "5x5"}}, "kwargs", "what FrozenLake-v1 takes"),
        ({"kwargs": None}, "kwargs", "a mapping of names to values"),
        ({"kwargs": [1]}, "kwargs", "a mapping of names to values"),
        *(({"num_envs": each}, "num_envs", "a whole number, at least 1") for each in (0, "2", 2.0, True)),
        *(({"seed": each}, "seed", "a whole number, at least 0") for each in (-1, "a", 1.5, None)),
    ],
)
def test_an_invalid_setting_is_refused_with_a_hint(
    settings: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(SettingError, match=message) as error:
        GymEnv(**{"id": "CartPole-v1", "num_envs": 1, "seed": 0, **settings})
    assert error.value.field == field


def test_a_missing_extra_is_refused_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(SettingError, match=re.escape(to_install("envs"))):
        GymEnv(id="LunarLander-v3", num_envs=1, seed=0)


def test_a_missing_mujoco_is_not_reported_as_a_missing_box2d(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith(("gymnasium.envs.mujoco", "mujoco"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(
        SettingError, match=r"its dependencies to be installed \(.*MuJoCo is not installed"
    ) as error:
        GymEnv(id="Ant-v5", num_envs=1, seed=0)
    assert "Box2D" not in str(error.value)


OWN = ["CartPole-v0", "CartPole-v1", "MountainCar-v0", "Acrobot-v1", "Blackjack-v1", "CliffWalking-v1"]


@pytest.mark.parametrize("id", [*OWN, "FrozenLake-v1", "Taxi-v4"])
def test_gymnasiums_environments_play_without_a_warning(id: str) -> None:
    env = GymEnv(id=id, num_envs=2, seed=0)
    env.begin()
    for action in range(40):
        step = env.advance(torch.full((2,), action % env.n_actions))
    assert step.next_observation.isfinite().all()
    assert (env.name, env.frame_skip) == (id, 1)
    env.close()


def test_every_environment_and_every_episode_has_a_different_seed() -> None:
    def first(seed: int, num_envs: int = 3) -> torch.Tensor:
        return GymEnv(id="CartPole-v1", num_envs=num_envs, seed=seed).begin()

    assert torch.equal(first(0), first(0))
    assert not torch.isclose(first(0), first(1)).all(1).any()
    assert len(first(0).unique(dim=0)) == 3  # a different start in every environment
    assert torch.equal(first(0, 2), first(0, 5)[:2])  # independent of the number of environments
    env = GymEnv(id="CartPole-v1", num_envs=1, seed=0)
    start, again = env.begin(), env.begin()
    assert not torch.equal(start, again)  # a different start in every episode
    env.set_seed(0)
    assert torch.equal(env.begin(), start)


def test_every_seed_fits_31_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(Still, "reset", lambda game, *, seed, options=None: (seeds.append(seed), (0, {}))[1])
    env = still(spaces.Discrete(1), 0)
    env.begin()
    for _ in range(40):
        env.advance(torch.tensor([0]))
    assert len(set(seeds)) == 41
    assert 2**30 < max(seeds) < 2**31


def test_closing_a_gym_env_closes_its_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Still, "close", lambda game: closed.append(game))
    still(spaces.Discrete(1), 0).close()
    assert len(closed) == 1


# --- made by a function, and wrapped -----------------------------------------------------------------------


class Seven(gymnasium.Env):
    """Its number is its observation and its reward; it never ends."""

    observation_space, action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)
    made = 0

    def __init__(self, number: int = 7) -> None:
        self.number = number
        Seven.made += 1

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return np.array([self.number], np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        return np.array([self.number], np.float32), float(self.number), False, False, {}


@pytest.mark.parametrize("make", [Seven, lambda number=7: Seven(number)])
def test_a_function_makes_every_environment(make: Any) -> None:
    before = Seven.made
    env = GymEnv(id=make, num_envs=3, seed=0)
    assert (Seven.made - before, env.name) == (3, "Seven")
    assert env.begin().tolist() == [[7]] * 3
    assert GymEnv(id=make, kwargs={"number": 4}, num_envs=1, seed=0).begin().tolist() == [[4]]


def test_a_function_that_returns_the_same_environment_twice_is_refused() -> None:
    one = Seven()
    with pytest.raises(SettingError, match="a function that makes another environment at every call"):
        GymEnv(id=lambda: one, num_envs=2)


@pytest.mark.parametrize("actions", [[0], [0, 1, 1], [0, -1], [0, 2]])
def test_a_wrong_number_of_actions_or_one_out_of_range_is_refused(actions: list[int]) -> None:
    env = GymEnv(id="CartPole-v1", num_envs=2)
    env.begin()
    with pytest.raises(SettingError, match=r"expected 2 of them, each in \[0, 2\)"):
        env.advance(torch.tensor(actions))
    assert env.advance(torch.tensor([0, 1])).reward.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 1 / 0, "a function that makes an environment (ZeroDivisionError: division by zero"),
        (lambda: "CartPole-v1", "a function that makes a gymnasium.Env; it made 'CartPole-v1'"),
        (lambda: Seven(wind=1), "unexpected keyword argument 'wind'"),
    ],
)
def test_a_function_that_does_not_make_an_environment_is_refused(make: Any, message: str) -> None:
    with pytest.raises(SettingError) as error:
        GymEnv(id=make, num_envs=1, seed=0)
    assert error.value.field == "id"
    assert message in str(error.value)


def test_gymnasium_wrappers_are_applied_to_every_environment() -> None:
    wrappers = [{"TimeLimit": {"max_episode_steps": 3}}, {"TimeAwareObservation": {"normalize_time": True}}]
    for id in (Seven, Seven()):
        env = GymEnv(id=id, wrappers=wrappers, num_envs=1, seed=0)
        assert env.observation_shape == (2,)
        env.begin()
        ended = []
        for _ in range(6):
            env.send(torch.zeros(1, dtype=torch.int64))
            ended.append(env.receive().truncated.item())
        assert ended == [False, False, True] * 2
    limited = GymEnv(id="CartPole-v1", wrappers=[{"TimeLimit": {"max_episode_steps": 9}}], num_envs=2, seed=0)
    assert limited.max_steps == 9


@pytest.mark.parametrize(
    ("id", "wrapper", "shape"),
    [
        ("CartPole-v1", {"ReshapeObservation": {"shape": [2, 2]}}, (4,)),
        ("MountainCar-v0", {"DiscretizeObservation": {"bins": [2, 3]}}, (6,)),
    ],
)
def test_list_arguments_from_yaml_work_for_wrappers_that_need_tuples(
    id: str, wrapper: dict[str, Any], shape: tuple[int, ...]
) -> None:
    env = GymEnv(id=id, wrappers=[wrapper], num_envs=1, seed=0)
    assert env.begin().shape == (1, *shape)


def test_a_box_action_space_is_refused_unless_it_is_discretized() -> None:
    with pytest.raises(SettingError, match="DiscretizeAction") as error:
        GymEnv(id="Pendulum-v1", num_envs=1, seed=0)
    assert error.value.field == "id"
    env = GymEnv(id="Pendulum-v1", wrappers=[{"DiscretizeAction": {"bins": 5}}], num_envs=1, seed=0)
    assert env.n_actions == 5


class Meaning(gymnasium.Env):
    """Its actions have names."""

    observation_space = spaces.Box(-1, 1, (2,))

    def __init__(self, actions: spaces.Space, names: list[str]) -> None:
        self.action_space, self.names = actions, names

    def get_action_meanings(self) -> list[str]:
        return self.names


BINS = [{"DiscretizeAction": {"bins": 2}}]


@pytest.mark.parametrize(
    ("actions", "names", "wrappers", "expected"),
    [
        (spaces.Discrete(2), ["wait", "go"], [], ["wait", "go"]),
        (spaces.Discrete(2), ["wait"], [], ["0", "1"]),
        (spaces.Box(-1, 1, (1,)), ["push", "pull"], BINS, ["0", "1"]),
        (spaces.Box(-1, 1, (2,)), ["push"], BINS, ["0", "1", "2", "3"]),
        (spaces.MultiDiscrete([2, 1]), ["wait", "go"], [], ["0,0", "1,0"]),
    ],
)
def test_action_names_are_the_environments_only_if_they_fit_the_actions(
    actions: spaces.Space, names: list[str], wrappers: Any, expected: list[str]
) -> None:
    env = GymEnv(lambda: Meaning(actions, names), wrappers=wrappers)
    env.close()
    assert env.action_names == expected


def test_kwargs_for_an_environment_that_is_already_made_are_refused() -> None:
    with closing(gymnasium.make("CartPole-v1")) as env, pytest.raises(SettingError, match="made already"):
        GymEnv(env, kwargs={"max_episode_steps": 3})


def test_a_closed_environment_refuses_to_show_its_screen() -> None:
    env = GymEnv("CartPole-v1")
    env.close()
    with pytest.raises(EnvError, match="it is closed; make a new one"):
        env.screen()


@pytest.mark.parametrize(
    ("wrappers", "message"),
    [
        ([{"RecordVideo": {"video_folder": "x"}}], "expected one of ClipReward"),
        ([{"TimeLimits": {}}], "did you mean"),
        ([{"TimeLimit": {"max": 3}}], "arguments that TimeLimit takes around"),
        (["TimeLimit"], "a list of wrappers with their arguments"),
        ([{"TimeLimit": 3}], "a list of wrappers with their arguments"),
        ("TimeLimit", "a list of wrappers with their arguments"),
    ],
)
def test_an_unknown_or_invalid_wrapper_is_refused(wrappers: Any, message: str, tmp_path: Any) -> None:
    with pytest.raises(SettingError, match=message) as error:
        GymEnv(id="CartPole-v1", wrappers=wrappers, num_envs=1, seed=0)
    assert error.value.field == "wrappers"


def test_allowed_wrappers_exist_in_gymnasium_and_exclude_recorders_and_transforms() -> None:
    for name in WRAPPABLE:
        assert issubclass(getattr(gymnasium.wrappers, name), gymnasium.Wrapper)
    assert not {"RecordVideo", "HumanRendering", "TransformReward", "AtariPreprocessing"} & {*WRAPPABLE}


# --- product spaces ----------------------------------------------------------------------------------------


PRODUCTS = {
    "choices": (spaces.MultiDiscrete([2, 3], start=[5, -1]), ["5,-1", "5,0", "5,1", "6,-1", "6,0", "6,1"]),
    "a table": (spaces.MultiDiscrete(np.array([[2], [2]])), ["0,0", "0,1", "1,0", "1,1"]),
    "bits": (spaces.MultiBinary(2), ["0,0", "0,1", "1,0", "1,1"]),
    "a table of bits": (spaces.MultiBinary((1, 2)), ["0,0", "0,1", "1,0", "1,1"]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_action_space_becomes_one_action_per_combination(name: str) -> None:
    space, names = PRODUCTS[name]
    env = still(spaces.Discrete(1), 0, actions=space)
    env.begin()
    assert (env.n_actions, env.action_names) == (len(names), names)
    for action in range(env.n_actions):
        env.advance(torch.tensor([action]))
    played = env._envs[0].unwrapped.played
    assert all(space.contains(each) for each in played)
    assert [",".join(map(str, each.flat)) for each in played] == names
    outside = env.actions_outside(np.arange(env.n_actions))
    np.testing.assert_array_equal(outside, np.array(played))
    outside[:] = 99  # changing the returned array has no effect
    np.testing.assert_array_equal(env.actions_outside(np.arange(env.n_actions)), np.array(played))


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (spaces.MultiDiscrete([5, 5, 41]), "1,025"),
        (spaces.MultiBinary(11), "2,048"),
        (spaces.MultiDiscrete([100] * 20), f"{10**40:,}"),
    ],
)
def test_a_product_space_that_is_too_large_is_refused_with_its_size(space: spaces.Space, size: str) -> None:
    with pytest.raises(SettingError, match=f"at most 1,024 combined actions; it has {size}, ") as error:
        still(spaces.Discrete(1), 0, actions=space)
    assert error.value.field == "id"
    assert still(spaces.Discrete(1), 0, actions=spaces.MultiBinary(10)).n_actions == 1024


def test_a_sync_vector_env_plays_like_separate_environments() -> None:
    vector = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
    env = GymEnv(id=vector, num_envs=3, seed=0)
    same = GymEnv(id="CartPole-v1", num_envs=3, seed=0)
    assert torch.equal(env.begin(), same.begin())
    for _ in range(40):  # over ends of episodes
        action = torch.ones(3, dtype=torch.int64)
        for mine, other in zip(env.advance(action)[:6], same.advance(action)[:6], strict=True):
            assert torch.equal(mine, other)
    env.close()
    assert [each.unwrapped.state is not None for each in vector.envs] == [True] * 3
    with pytest.raises(SettingError, match="num_envs = 2: expected 3, as many as are given"):
        GymEnv(id=vector, num_envs=2, seed=0)


def test_a_vector_environment_that_inserts_resets_is_refused() -> None:
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point")
    refused = pytest.raises(SettingError, match="expected a SyncVectorEnv, or a function that makes one")
    with closing(vector), refused:
        GymEnv(id=vector, num_envs=2, seed=0)


def test_a_gym_env_needs_no_settings_besides_the_environment() -> None:
    def make() -> gymnasium.Env:
        return gymnasium.make("CartPole-v1")

    for given, many in (
        ("CartPole-v1", 1),
        (make, 1),
        (make(), 1),
        (gymnasium.vector.SyncVectorEnv([make] * 3), 3),
    ):
        with closing(GymEnv(given)) as env:
            assert env.num_envs == many
            assert env.begin().shape == (many, 4)


def test_a_ragged_list_of_discrete_observations_is_refused() -> None:
    with pytest.raises(ObservationError, match=r"expected Discrete\(16\), or a batch of these"):
        GymEnv("FrozenLake-v1").batch_of([[1], [2, 3]])
