"""``sqn_rl.load``: the policy of a run, used in another program."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type
from untrained import untrained

from sqn_rl import (
    CheckpointError,
    GymEnv,
    NumericsError,
    ObservationError,
    Policy,
    RecipeError,
    SettingError,
    compose,
    load,
)
from sqn_rl.parts import machine
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import load_recipe
from sqn_rl.runs.checkpoint import Checkpoints
from sqn_rl.training.weights import load_weights

CARTPOLE = Path(__file__).parents[2] / "zoo" / "cartpole"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    settings = ["steps=400", "warmup_steps=100", "num_envs=4", "hidden=[32]", "checkpoint_every=200"]
    compose("sqn", *settings, "eval_episodes=3", "seed=5", f"out={path}").train()
    return path


@pytest.fixture(scope="module")
def policy(run: Path) -> Policy:
    return load(run)


@pytest.fixture
def states() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)


def test_a_wide_network_has_the_same_q_values_with_and_without_amx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ram = untrained(tmp_path / "run", "env=atari_ram")
    seen = np.arange(128, dtype=np.uint8)
    values = []
    for amx in (False, True):
        monkeypatch.setattr(machine, "has_amx", lambda amx=amx: amx)
        values.append(load(ram).q_values(seen))
    np.testing.assert_array_equal(*values)


def trained_parts(run: Path, env_steps: int = 400) -> dict[str, Any]:
    """All parts of the run with the weights of its last checkpoint, built without ``load``."""
    parts = load_recipe(run / "recipe.yaml").build()
    found = Checkpoints(run / "checkpoints", 2).load()
    assert found
    assert found.env_steps == env_steps
    load_weights(parts["loss"], found.weights)
    return parts


# --- acting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("greedy", [True, False])
def test_a_loaded_policy_acts_as_the_actor_of_the_run(run: Path, states: np.ndarray, greedy: bool) -> None:
    actor = trained_parts(run)["actor"]
    actions = load(run).act(states, greedy=greedy)
    assert actions.tolist() == actor.act(states, greedy=greedy).tolist()
    assert len({*actions.tolist()}) == 2


def test_act_takes_one_state_or_a_batch_as_array_list_or_tensor(policy: Policy, states: np.ndarray) -> None:
    actions = policy.act(states)
    assert (actions.dtype, actions.shape) == (np.int64, (100,))
    ones = [policy.act(state) for state in states]
    assert all(type(action) is int for action in ones)
    assert ones == actions.tolist() == policy.act(states.tolist()).tolist() == policy.act([*states]).tolist()
    assert policy.act(states.astype(np.float64)).tolist() == ones
    tensors = torch.from_numpy(states)
    assert torch.equal(policy.act(tensors), torch.tensor(ones))
    assert torch.equal(policy.act(tensors[0]), torch.tensor(ones[0]))
    assert policy.act(states[0].tolist()) == ones[0]


def test_probabilities_are_the_softmax_of_the_q_values_over_alpha(policy: Policy, states: np.ndarray) -> None:
    q, pi = policy.q_values(states), policy.probabilities(states)
    assert q.shape == pi.shape == (100, 2)
    assert isinstance(q, np.ndarray)
    assert isinstance(pi, np.ndarray)
    np.testing.assert_allclose(pi.sum(-1), 1, rtol=1e-6)
    exponentials = np.exp((q - q.max(-1, keepdims=True)) / policy.actor.temperature.alpha.item())
    np.testing.assert_allclose(pi, exponentials / exponentials.sum(-1, keepdims=True), rtol=1e-5)
    assert (q.argmax(-1) == policy.act(states)).all()
    assert pi.max() - pi.min() > 0.01  # otherwise equal probabilities would pass
    assert policy.q_values(states[0]).shape == policy.probabilities(states[0].tolist()).shape == (2,)
    np.testing.assert_allclose(policy.q_values(states[0]), q[0], rtol=1e-5)
    assert isinstance(policy.q_values(torch.from_numpy(states)), torch.Tensor)


def test_a_policy_is_a_differentiable_module_and_its_actor_a_tensordict_module(
    policy: Policy, states: np.ndarray
) -> None:
    observation = torch.from_numpy(states).requires_grad_()
    values = policy(observation)
    assert values.detach().numpy().tolist() == policy.q_values(states).tolist()
    (slope,) = torch.autograd.grad(values.sum(), observation)
    assert slope.abs().sum() > 0
    assert sum(each.numel() for each in policy.parameters()) > 0
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        found = policy.actor(TensorDict({"observation": observation.detach()}, batch_size=[100]))
    assert found["action"].tolist() == policy.act(states).tolist()


# --- masks --------------------------------------------------------------------------------------------------

RECIPES = ["sqn", "dqn", "discrete_sac", "sqn_noisy"]


@pytest.fixture(scope="module", params=RECIPES)
def five_actions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy of five actions; that of ``dqn`` has ε = 0.4."""
    path = tmp_path_factory.mktemp(request.param) / "run"
    epsilon = ["actor.start=0.4"] if request.param == "dqn" else []
    settings = [f"env.id={TASKS['Numbers']}", "hidden=[16]", *epsilon]
    return load(untrained(path, "env=gym", *settings, recipe=request.param))


@pytest.mark.parametrize("mask", [None, [True, False, True, True, False]], ids=["all", "masked"])
def test_actions_are_sampled_by_their_probabilities(five_actions: Policy, mask: list[bool] | None) -> None:
    observation = torch.tensor([0.3, -0.2, 1.0])
    pi = five_actions.probabilities(observation, action_mask=mask)
    assert pi.sum().item() == pytest.approx(1, abs=1e-6)
    many = observation.expand(4000, 3)
    actions = five_actions.act(many, greedy=False, action_mask=mask)
    shares = torch.bincount(actions, minlength=5) / 4000
    if mask is not None:
        assert pi[[1, 4]].tolist() == shares[[1, 4]].tolist() == [0, 0]
    if "NoisyDense" not in str(five_actions):  # NoisyDense has one noise for the batch
        sigma = (pi * (1 - pi) / 4000).sqrt()
        assert ((shares - pi).abs() <= 4 * sigma + 1e-6).all()


def test_the_best_of_the_allowed_actions_is_taken(five_actions: Policy) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(50, 3, generator=generator)
    masks = torch.rand(50, 5, generator=generator) < 0.4
    masks[torch.arange(50), torch.randint(5, (50,), generator=generator)] = True
    scores = five_actions(states)
    expected = [
        max(np.flatnonzero(mask), key=lambda a: scores[row, a].item()) for row, mask in enumerate(masks)
    ]
    assert five_actions.act(states, action_mask=masks).tolist() == expected
    outside = five_actions.act(states.numpy(), action_mask=masks.numpy().astype(np.int8))  # as Gymnasium's
    assert (outside - 10).tolist() == expected
    assert (five_actions.act(states, greedy=True) != five_actions.act(states, action_mask=masks)).any()
    pi = five_actions.probabilities(states, action_mask=masks)
    assert (pi[~masks] == 0).all()
    torch.testing.assert_close(pi.sum(-1), torch.ones(50))


def test_a_masked_boltzmann_policy_is_the_softmax_of_the_allowed_actions(
    policy: Policy, states: np.ndarray
) -> None:
    q, alpha = policy.q_values(states), policy.actor.temperature.alpha.item()
    assert policy.probabilities(states, action_mask=[False, True]).tolist() == [[0, 1]] * 100
    both = policy.probabilities(states, action_mask=np.ones((100, 2), bool))
    np.testing.assert_allclose(both[:, 0], 1 / (1 + np.exp((q[:, 1] - q[:, 0]) / alpha)), rtol=1e-4)


def test_epsilon_is_shared_by_the_allowed_actions(tmp_path: Path) -> None:
    settings = ["env=gym", f"env.id={TASKS['Numbers']}", "hidden=[16]", "actor.start=0.4"]
    policy = load(untrained(tmp_path / "run", *settings, recipe="dqn"))
    pi = policy.probabilities([0.0, 0.0, 0.0], action_mask=[True, True, False, False, False])
    np.testing.assert_allclose(np.sort(pi), [0, 0, 0, 0.2, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, True, True], r"action_mask = 'bool \[3\]': expected bool \[2\] or \[2, 2\]"),
        ([[True, True]], r"action_mask = 'bool \[1, 2\]': expected bool \[2\] or \[2, 2\]"),
        ([2, 0], r"action_mask = \[2, 0\]: expected true for each action that is allowed, else false"),
        (
            [[True, True], [True]],
            r"action_mask = \[\[True, True\], \[True\]\]: expected bool \[2\] or \[2, 2\]",
        ),
        ([False, False], r"at least one action that is allowed in every state$"),
        ([[True, True], [False, False]], r"allowed in every state; row 1 has none"),
    ],
)
def test_an_invalid_action_mask_is_refused(policy: Policy, mask: Any, message: str) -> None:
    states = np.zeros((2, 4), np.float32)
    for ask in (policy.act, policy.probabilities):
        with pytest.raises(SettingError, match=message):
            ask(states, action_mask=mask)


ONE = np.zeros(4, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda policy: policy.act(ONE, greedy="no"), "greedy = 'no': expected True or False"),
        (lambda policy: policy.act(ONE, greedy=None), "greedy = None: expected True or False"),
        (lambda policy: policy.actor.act(ONE, greedy=1), "greedy = 1: expected True or False"),
        (lambda policy: policy.player().act(ONE, greedy="no"), "greedy = 'no': expected True or False"),
        (lambda policy: policy.evaluate(episodes=1, greedy="no"), "greedy = 'no': expected True or False"),
        (lambda policy: policy(ONE), "expected float32 [B, 4], given float32 [4]\n  make it a tensor"),
        (lambda policy: policy([0.0] * 4), "expected float32 [B, 4], given list\n  make it a tensor"),
        (lambda policy: policy.act(torch.zeros(4, device="meta")), "in memory, given a meta tensor"),
        (lambda policy: policy.act(torch.zeros(4).to_sparse()), "in memory, given a sparse_coo tensor"),
        (lambda policy: policy.act([1e300, 0, 0, 0]), "observation[0] = inf"),
        (lambda policy: policy.film("x.gif", greedy="no", longest=2), "greedy = 'no': expected True or"),
        (lambda policy: policy.film("x.gif", longest=0), "longest = 0: expected a whole number, at least 1"),
        (lambda policy: policy.film("x.gif", longest="3"), "longest = '3': expected a whole number, at"),
        (lambda policy: policy.film(None), "path = None: expected a path"),
        (lambda policy: load(None), "run = None: expected a path"),  # type: ignore[arg-type]
        (lambda policy: load(""), "run = '': expected a path"),
        (lambda policy: load(CARTPOLE, [1]), "checkpoint = [1]: expected 'last', 'best', or"),  # type: ignore[arg-type]
        (lambda policy: policy.player(2).begin([2]), "rows = [2]: expected a list of whole numbers in [0"),
        (lambda policy: policy.player(2).begin("a"), "rows = 'a': expected a list of whole numbers in"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(policy: Policy, call: Any, message: str, folder: Path) -> None:
    with pytest.raises((SettingError, ObservationError, NumericsError), match=re.escape(message)):
        call(policy)
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("greedy", [np.True_, np.False_])
def test_a_numpy_bool_is_accepted_for_greedy(policy: Policy, greedy: bool) -> None:
    assert policy.act(ONE, greedy=greedy) in (0, 1)
    assert policy.evaluate(episodes=1, greedy=greedy) == policy.evaluate(episodes=1, greedy=bool(greedy))


@pytest.mark.parametrize(
    ("reward", "ended", "message"),
    [
        ("a", False, "reward = 'a': expected a finite number, or 2 of them, one for each episode"),
        ([None, 1], False, "reward = [None, 1]: expected a finite number, or 2 of them"),
        (np.nan, False, "reward = nan: expected a finite number, or 2 of them"),
        ([1], False, "reward = [1]: expected a finite number, or 2 of them"),
        (1.0, "no", "ended = 'no': expected True or False, or 2 of them, one for each episode"),
        (1.0, [0.5, 1], "ended = [0.5, 1]: expected True or False, or 2 of them"),
        (1.0, None, "ended = None: expected True or False, or 2 of them"),
    ],
)
def test_invalid_rewards_and_ended_flags_are_refused(
    policy: Policy, reward: Any, ended: Any, message: str
) -> None:
    player = policy.player(2)
    player.act(np.zeros((2, 4)))
    with pytest.raises(SettingError, match=re.escape(message)):
        player.record(reward, ended)
    player.record([1, np.int64(2)], np.array([0, 1]))


# --- what environments return -------------------------------------------------------------------------------


class Task(gymnasium.Env):
    """Random observations of its space; the last one is kept. Actions count from 10."""

    action_space = spaces.Discrete(5, start=10)
    last: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observe(), {}

    def observe(self) -> Any:
        Task.last = self.observation_space.sample()
        return Task.last

    def step(self, action: int) -> Any:
        assert self.action_space.contains(action)
        return self.observe(), float(action), bool(self.np_random.random() < 0.2), False, {}


SPACES = {
    "Numbers": spaces.Box(-1, 1, (3,), np.float32),
    "Table": spaces.Box(-50, 100, (2, 3), np.float64),
    "Image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "Codes": spaces.Box(0, 1, (3,), np.uint8),
    "Choice": spaces.Discrete(4, start=-1),
    "Choices": spaces.MultiDiscrete([2, 3]),
    "Bits": spaces.MultiBinary(3),
    "Dict": spaces.Dict(
        {
            "pose": spaces.Box(-1, 1, (2,), np.float32),
            "image": spaces.Box(0, 255, (4, 4, 1), np.uint8),
            "inner": spaces.Dict({"gear": spaces.Discrete(3)}),
        }
    ),
    "Tuple": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2, 2), np.float32))),
}
TASKS = {name: f"loaded/{name}-v0" for name in SPACES}
for _name, _space in SPACES.items():
    gymnasium.register(TASKS[_name], type(_name, (Task,), {"observation_space": _space}))


def stacked(space: spaces.Space, observations: list[Any]) -> Any:
    """A batch as Gymnasium's vector environments return it."""
    empty = gymnasium.vector.utils.create_empty_array(space, n=len(observations))
    return gymnasium.vector.utils.concatenate(space, observations, empty)


@pytest.mark.parametrize("name", SPACES)
def test_observations_are_flattened_and_scaled_as_in_training(name: str, tmp_path: Path) -> None:
    policy = load(untrained(tmp_path / "run", "env=gym", f"env.id={TASKS[name]}", "hidden=[16]"))
    env = GymEnv(id=TASKS[name], num_envs=1, seed=3)
    seen, outside = [env.begin()], [Task.last]
    for _ in range(5):
        seen.append(env.advance(torch.tensor([0])).observation)
        outside.append(Task.last)
    in_training = torch.cat(seen)
    expected = policy.q_values(in_training)
    torch.testing.assert_close(torch.from_numpy(policy.q_values(outside)), expected)
    assert [policy.act(each) - 10 for each in outside] == policy.act(in_training).tolist()
    assert all(10 <= policy.act(each, greedy=False) < 15 for each in outside)
    batch = stacked(SPACES[name], outside)
    torch.testing.assert_close(torch.from_numpy(policy.q_values(batch)), expected)
    one = outside[0].tolist() if isinstance(outside[0], np.ndarray) else outside[0]
    torch.testing.assert_close(torch.from_numpy(policy.q_values(one)), expected[0])
    assert policy.act(stacked(SPACES[name], outside[:1])).shape == (1,)


BAD = {
    "CartPole-v1": [
        (np.zeros(3), r"expected \[4\] float32, or a batch of these, given \[3\] float64"),
        (np.zeros((2, 3, 4)), r"given \[2, 3, 4\] float64"),
        ("left", "given 'left'"),
        (None, "given None"),
        ([[1.0, 2.0], [3.0]], r"given \[\[1.0, 2.0\], \[3.0\]\]"),
        (np.zeros(4, complex), r"given \[4\] complex128"),
        (torch.zeros(3), r"expected float32 \[B, 4\], given float32 \[3\]"),
    ],
    TASKS["Image"]: [
        (np.full((4, 4, 3), 300), r"given \[4, 4, 3\] int64\n.*observation holds 300"),
        (np.zeros((4, 4, 3), np.float32), r"expected \[4, 4, 3\] uint8"),
        (np.zeros(48, np.uint8), r"expected \[4, 4, 3\] uint8, or a batch of these, given \[48\] uint8"),
    ],
    TASKS["Choice"]: [
        (3, r"expected Discrete\(4, start=-1\), or a batch of these, given 3"),
        (0.5, "given 0.5"),
    ],
    TASKS["Dict"]: [
        ({"pose": [0, 0]}, "expected Dict"),
        (
            {"pose": np.zeros((2, 2)), "image": np.zeros((3, 4, 4, 1), int), "inner": {"gear": [0, 1, 2]}},
            "batches of .*'pose': 2.*expected one size",
        ),
        (
            {"pose": np.zeros(2), "image": np.zeros((4, 4), int), "inner": {"gear": 0}},
            r"observation\['image'\] is \[4, 4\] int64; expected \[4, 4, 1\] uint8",
        ),
        (np.zeros(5), "expected Dict"),
    ],
    TASKS["Tuple"]: [((1,), "expected Tuple"), (5, "expected Tuple"), ([], "expected Tuple")],
}


@pytest.mark.parametrize("name", BAD)
def test_observations_that_do_not_fit_the_space_are_refused(name: str, tmp_path: Path) -> None:
    policy = load(untrained(tmp_path / "run", "env=gym", f"env.id={name}", "hidden=[16]"))
    for observation, message in BAD[name]:
        with pytest.raises(ObservationError, match=message):
            policy.act(observation)


def test_an_observation_that_is_not_finite_is_refused(policy: Policy) -> None:
    observation = np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]])
    for given in (observation, torch.tensor(observation)):
        for method in (policy.act, policy.q_values, policy.probabilities):
            with pytest.raises(NumericsError, match=r"CartPole-v1, row 1: observation\[1\] = nan"):
                method(given)


@pytest.mark.parametrize(
    ("env", "shape"), [("atari", (4, 84, 84)), ("atari_ram", (128,))], ids=["pixels", "ram"]
)
def test_an_atari_policy_takes_uint8_observations_only(
    env: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    policy = load(untrained(tmp_path / "run", f"env={env}"))
    screens = np.random.default_rng(0).integers(256, size=(2, *shape), dtype=np.uint8)
    q = policy.q_values(screens)
    assert q.shape == (2, policy.n_actions)
    np.testing.assert_array_equal(policy.q_values(torch.from_numpy(screens)), q)
    np.testing.assert_allclose(policy.q_values(screens[0].tolist()), q[0], rtol=1e-5, atol=1e-7)
    assert type(policy.act(screens[0])) is int
    with pytest.raises(ObservationError, match="uint8"):
        policy.act(screens / 255)


# --- whole episodes -----------------------------------------------------------------------------------------


def test_evaluate_repeats_the_evaluation_of_the_run(run: Path, policy: Policy) -> None:
    row = json.loads((run / "evaluations.jsonl").read_text().splitlines()[-1])
    found = policy.evaluate()
    assert {"env_steps": policy.env_steps, **found.row()} == row
    assert policy.evaluate("CartPole-v1", 3) == found
    assert policy.evaluate(lambda: gymnasium.make("CartPole-v1"), 3) == found
    assert policy.evaluate(GymEnv(id="CartPole-v1", num_envs=3, seed=1_000_005, training=False)) == found


def test_an_environment_passed_to_evaluate_keeps_its_wrappers(policy: Policy) -> None:
    env = gymnasium.make("CartPole-v1", max_episode_steps=7)
    found = policy.evaluate(env, 5)
    assert len(found.returns) == 5
    assert max(found.lengths) <= 7
    assert policy.evaluate(gymnasium.make("CartPole-v1"), 1) == policy.evaluate(episodes=1)
    assert policy.evaluate(env.unwrapped, 2).returns


class Closing(gymnasium.Wrapper):
    closed = 0

    def close(self) -> None:
        Closing.closed += 1


def test_an_environment_passed_to_evaluate_is_not_closed(policy: Policy) -> None:
    policy.evaluate(Closing(gymnasium.make("CartPole-v1")), 1)
    with pytest.raises(SettingError):
        policy.evaluate(Closing(gymnasium.make("Acrobot-v1")), 1)
    assert Closing.closed == 0


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            "Acrobot-v1",
            r"env = 'Acrobot-v1': expected one with observations float32 \[4\] and 2 actions; it has",
        ),
        ("NoSuch-v0", "id = 'NoSuch-v0': expected an id that Gymnasium knows"),
        ("Pendulum-v1", "expected Discrete, MultiDiscrete or MultiBinary actions"),
        (5, "id = 5: expected the id of an environment"),
    ],
)
def test_an_environment_that_does_not_fit_the_policy_is_refused(
    env: Any, message: str, policy: Policy
) -> None:
    with pytest.raises(SettingError, match=message):
        policy.evaluate(env)


def test_the_environments_of_a_vector_environment_are_all_used(policy: Policy) -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2)
    assert (
        policy.evaluate(envs, 4, seed=3).returns
        == policy.evaluate(GymEnv(id="CartPole-v1", num_envs=2, seed=1_000_003), 4, seed=3).returns
    )


def test_an_environment_id_is_evaluated_with_the_wrappers_of_the_run(tmp_path: Path) -> None:
    wrappers = "env.wrappers=[{DiscretizeAction: {bins: 3}}, {TimeLimit: {max_episode_steps: 9}}]"
    policy = load(untrained(tmp_path / "run", "env=gym", "env.id=Pendulum-v1", wrappers, "hidden=[8]"))
    assert policy.evaluate("Pendulum-v1", 2) == policy.evaluate(episodes=2)
    with pytest.raises(SettingError, match="actions"):
        policy.evaluate(gymnasium.make("Pendulum-v1"))


def test_evaluate_accepts_numpy_integers(policy: Policy) -> None:
    three = policy.evaluate(episodes=np.int64(3), seed=np.int64(2), max_steps=np.int32(9))
    assert three == policy.evaluate(episodes=3, seed=2, max_steps=9)


@pytest.mark.parametrize(
    "options",
    [
        *({"episodes": 2.5}, {"episodes": 0}, {"max_steps": -1}, {"seed": 2**64}, {"seed": -1}),
        *({"episodes": True}, {"seed": False}),
    ],
    ids=str,
)
def test_evaluate_refuses_invalid_numbers(options: dict[str, Any], policy: Policy) -> None:
    ((name, number),) = options.items()
    with pytest.raises(SettingError, match=rf"{name} = {re.escape(str(number))}: expected a whole number in"):
        policy.evaluate(**options)


def test_evaluation_leaves_the_programs_threads_and_random_state_unchanged(run: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    torch.set_num_threads(2)
    try:
        load(run).evaluate(episodes=1, greedy=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_a_policy_does_not_depend_on_the_programs_default_dtype(
    run: Path, states: np.ndarray, tmp_path: Path
) -> None:
    recalling = untrained(tmp_path / "lstm", "env=recall", "q_net.units=4", recipe="sqn_r2d2")
    images = untrained(tmp_path / "images", "env=minatar")
    picture, clue = np.zeros((4, 10, 10), bool), np.zeros(3, np.float32)

    def seen() -> list[Any]:
        policy, player = load(run), load(recalling).player()
        acted = [player.act(clue)]
        player.record(1.0, False)
        acted += [player.act(clue), load(images).q_values(picture).tolist()]
        acted += [policy.q_values(states).tolist(), policy.probabilities(states).tolist()]
        return [*acted, policy.act(states).tolist(), policy(torch.from_numpy(states)).dtype]

    expected = seen()
    torch.set_default_dtype(torch.float64)
    try:
        assert seen() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_policy_trained_on_a_gpu_acts_and_is_pushed_without_a_gpu(
    run: Path, states: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqn_rl.cli import evaluate
    from sqn_rl.cli.hub import push

    assert machine.has_device("cpu")
    assert not machine.has_device("no such device")
    monkeypatch.setattr(machine, "has_device", lambda device: device == "cpu")
    there = shutil.copytree(run, tmp_path / "gpu")
    recipe = there / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("device: cpu", "device: cuda"))
    with pytest.warns(UserWarning, match="cannot be used|changed since") as warned:
        assert load(there).act(states).tolist() == load(run).act(states).tolist()
    messages = [str(each.message) for each in warned]
    assert "device=cuda cannot be used here: the policy acts on the CPU" in messages
    with pytest.raises(SettingError, match="device = 'cuda': expected one that PyTorch can use here"):
        load(run, device="cuda")
    with pytest.warns(UserWarning, match="device=cuda cannot be used here"):
        assert evaluate.main([str(there), "--episodes", "2"]) == 0
    assert push.main([str(there), "--to", str(tmp_path / "model")]) == 0
    assert "device: cuda" in (tmp_path / "model" / "recipe.yaml").read_text()


# --- which run, which checkpoint ----------------------------------------------------------------------------


def test_an_older_kept_checkpoint_is_loaded_and_a_missing_one_is_refused(
    run: Path, states: np.ndarray
) -> None:
    older, last = load(run, "200"), load(str(run), checkpoint="last")
    assert (older.env_steps, last.env_steps) == (200, 400)
    assert older.q_values(states).tolist() != last.q_values(states).tolist()
    with pytest.raises(CheckpointError, match=r"checkpoints: no checkpoint 300; kept: 200, 400, last"):
        load(run, checkpoint=300)


def test_a_folder_without_a_run_or_a_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a run directory: there is no recipe"):
        load(tmp_path)
    with pytest.raises(RecipeError, match="there is no such directory"):
        load(tmp_path / "none")
    shutil.copy(run / "recipe.yaml", tmp_path)
    with pytest.raises(CheckpointError, match="checkpoints: no checkpoint yet"):
        load(tmp_path)


def test_a_changed_recipe_is_loaded_with_a_warning(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    path = copy / "recipe.yaml"
    path.write_text(path.read_text().replace("eval_episodes: 3", "eval_episodes: 4"))
    with pytest.warns(UserWarning, match=r"recipe.yaml: changed since the run wrote it"):
        assert len(load(copy).evaluate().returns) == 4


def test_a_part_of_a_user_is_loaded_only_with_trust(
    users_tree: Path, trusting: list[str], folder: Path, tmp_path: Path
) -> None:
    catalogue = Catalogue([users_tree], ["users_parts"])
    path = untrained(tmp_path / "run", "head=head", "hidden=[8]", catalogue=catalogue)
    with pytest.raises(RecipeError, match="not a part of sqn_rl for the slot `head`"):
        load(path)
    assert load(path, trust=["users_parts"], config_dirs=[users_tree]).act([0, 0, 0, 0]) in (0, 1)


@pytest.mark.parametrize("name", ["trust", "config_dirs"])
def test_trust_and_config_dirs_that_are_not_lists_of_paths_are_refused(name: str, tmp_path: Path) -> None:
    path = untrained(tmp_path / "run", "hidden=[8]")
    for wrong in (None, [3]):
        with pytest.raises(SettingError, match=rf"^{name} = .*: expected a list, such as \['mine'\]$"):
            load(path, **{name: wrong})
    with pytest.raises(SettingError, match=rf"^{name} = 'mine': expected a list, such as \['mine'\]$"):
        load(path, **{name: "mine"})


def test_a_trusted_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = untrained(tmp_path / "run", "hidden=[8]")
    with pytest.raises(RecipeError, match=r"--trust .*mine.py: there is no such file"):
        load(path, trust=[tmp_path / "mine.py"])


PROGRAM = """
import sys
import sqn_rl
policy = sqn_rl.load(sys.argv[1])
print(policy.act([0, 0, 0, 0]))
print([name for name in sys.modules if name.startswith("sqn_rl.parts.replay.")])
print([name for name in ("hydra", "matplotlib", "scipy") if name in sys.modules])
"""


def test_loading_builds_no_replay_and_imports_no_hydra_matplotlib_or_scipy(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", "replay_capacity=1000000000000", "hidden=[8]")
    command = [sys.executable, "-P", "-c", PROGRAM, str(run)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    action, parts, others = out.splitlines()
    assert action in "01"
    assert (parts, others) == ("[]", "[]")
