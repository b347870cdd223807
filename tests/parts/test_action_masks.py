"""Action masks, from the environment to the replay and the actor: no forbidden action is ever chosen."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from reliability.trials import Killed, differences, train
from torch import Tensor

import sqn_rl
from sqn_rl import (
    BoltzmannActor,
    EpsilonGreedyActor,
    FixedTemperature,
    GreedyActor,
    GymEnv,
    NStep,
    OneStep,
    PrioritizedReplay,
    Reporter,
    Step,
    TreeBackup,
    UniformReplay,
    compose,
    load,
)
from sqn_rl import functional as F
from sqn_rl.errors import EnvError, RecipeError, SettingError
from sqn_rl.plots import frames as drawing
from sqn_rl.plots.film import Play
from sqn_rl.plots.frames import LIGHT, Frames, Moment
from sqn_rl.recipe.eject.single_file import eject
from sqn_rl.recipe.preflight import preflight

A, FIRST = 4, 3
"""The number of actions, and the number of the first one in the environment."""


def bits(k: Tensor) -> Tensor:
    """The mask that k encodes: its bit a allows action a; 0, which is terminal, allows all. → ``[*, A]``."""
    allowed = (k.long().unsqueeze(-1) >> torch.arange(A)) & 1 > 0
    return allowed | ~allowed.any(-1, keepdim=True)


class Puzzle(gymnasium.Env):
    """The bits of the observation are the allowed actions; any other raises. 0 is terminal."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
    action_space = spaces.Discrete(A, start=FIRST)
    observation_space = spaces.Box(0, 15, (2,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t, self.k = 0, int(self.np_random.integers(1, 16))
        return self.answer()

    def mask(self) -> Any:
        return np.array([self.k >> a & 1 for a in range(A)], np.int8)

    def answer(self) -> tuple[Any, dict]:
        return np.array([self.t, self.k], np.float32), {"action_mask": self.mask()}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        if not self.k >> (action - FIRST) & 1:
            raise ValueError(f"{action} is not allowed")
        self.t, self.k = self.t + 1, int(self.np_random.integers(0, 16))
        observation, info = self.answer()
        return observation, float(action), self.k == 0, self.t >= 6, info

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)


class DictPuzzle(Puzzle):
    """The puzzle with the mask in a Dict observation instead of in info."""

    observation_space = spaces.Dict(
        {"action_mask": spaces.MultiBinary(A), "now": Puzzle.observation_space, "t": spaces.Discrete(7)}
    )

    def answer(self) -> tuple[Any, dict]:
        observation, info = super().answer()
        return {"now": observation, "t": self.t, **info}, {}


gymnasium.register("masks/Puzzle-v0", Puzzle)
gymnasium.register("masks/DictPuzzle-v0", DictPuzzle)
for_both = pytest.mark.parametrize("kind", [Puzzle, DictPuzzle])
TINY = ["env=gym", "env.id=masks/Puzzle-v0", "steps=160", "warmup_steps=40", "num_envs=2", "batch_size=8"]
TINY += ["hidden=[8]", "eval_episodes=2", "replay_capacity=60", "checkpoint_every=40", "log_every=40"]


def k_of(observation: Tensor) -> Tensor:
    return observation[..., 1]


# --- environments ------------------------------------------------------------------------------------------


@for_both
def test_every_step_has_the_action_masks_of_its_state_and_of_the_next_state(kind: type[Puzzle]) -> None:
    env = GymEnv(id=kind, num_envs=3, seed=0)
    assert env.action_mask is None  # before the first reset
    observation = env.begin()
    assert observation.shape[1:] == env.observation_shape == ((2,) if kind is Puzzle else (9,))
    ends = 0
    for _ in range(50):
        assert torch.equal(env.action_mask, bits(k_of(observation)))
        step = env.advance(env.action_mask.int().argmax(-1))
        assert torch.equal(step.action_mask, bits(k_of(observation)))
        assert torch.equal(step.next_action_mask, bits(k_of(step.next_observation)))
        observation, ends = step.observation, ends + int(step.ended.sum())
    assert ends > 5
    observation = env.begin([1])
    assert torch.equal(env.action_mask, bits(k_of(observation)))


def test_action_masks_are_none_for_an_environment_without_masks() -> None:
    env = GymEnv(id="CartPole-v1", num_envs=2, seed=0)
    env.begin()
    step = env.advance(torch.tensor([0, 1]))
    assert env.action_mask is step.action_mask is step.next_action_mask is None
    assert env.act_options == {}


class Odd(Puzzle):
    """Gives ``mask``, or none if it is None, from the step ``since`` on."""

    def __init__(self, mask: Any, since: int) -> None:
        super().__init__()
        self.odd, self.since = mask, since

    def answer(self) -> tuple[Any, dict]:
        observation, info = super().answer()
        if self.t < self.since:
            return observation, info
        return observation, {} if self.odd is None else {"action_mask": self.odd}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.t += 1
        observation, info = self.answer()
        return observation, 0.0, False, False, info


class Late(Odd):
    """Has no mask at its reset."""

    def answer(self) -> tuple[Any, dict]:
        return np.zeros(2, np.float32), {"action_mask": self.mask()} if self.t else {}


def play(env: GymEnv) -> None:
    """Reset, and take two steps."""
    env.begin()
    for _ in range(2):
        env.advance(torch.zeros(env.num_envs, dtype=torch.int64))


WRONG = {
    "a size": (np.ones(3, np.int8), r"action_mask is \[3\] int8; expected \[4\] of 0 and 1"),
    "a number": (1, r"action_mask is 1; expected \[4\]"),
    "words": (["yes", "no", "no", "no"], r"action_mask is \['yes'.*; expected \[4\]"),
    "other numbers": ([0, 1, 2, 0], r"action_mask is \[0, 1, 2, 0\]; expected \[4\] of 0 and 1"),
    "nothing allowed": (np.zeros(4, bool), "action_mask allows no action, and the state is not terminal"),
}


@pytest.mark.parametrize("since", [0, 2])
@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_mask_raises_an_error_that_names_the_environment_and_step(wrong: str, since: int) -> None:
    mask, message = WRONG[wrong]
    env = GymEnv(id=Odd, kwargs={"mask": mask, "since": since}, num_envs=2, seed=0)
    where = "Odd, environment 0, step 0.*at its reset" if since == 0 else "Odd, environment 0, step 2"
    with pytest.raises(EnvError, match=f"(?s){where}.*{message}"):
        play(env)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Odd(None, 2), "no action_mask is given, but the first reset gave one"),
        (lambda: Late(None, 0), "an action_mask is given, but the first reset gave none"),
    ],
)
def test_masks_at_some_steps_but_not_at_others_are_refused(make: Callable[[], Odd], message: str) -> None:
    env = GymEnv(id=make, num_envs=1, seed=0)
    with pytest.raises(EnvError, match=message):
        play(env)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Dict({"action_mask": spaces.MultiBinary(3), "x": spaces.Discrete(2)}),
            r"an action_mask \[4\]",
        ),
        (spaces.Dict({"action_mask": spaces.MultiBinary(4)}), "observations besides their action_mask"),
    ],
)
def test_a_dict_space_with_an_unusable_action_mask_entry_is_refused(space: spaces.Dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        GymEnv(id=type("Bad", (Puzzle,), {"observation_space": space}), num_envs=1, seed=0)


# --- the replay --------------------------------------------------------------------------------------------

REPLAYS = {
    "uniform": lambda **settings: UniformReplay(**settings),
    "prioritized": lambda **settings: PrioritizedReplay(
        omega=0.5, beta=0.5, epsilon=1e-2, td_error="mean", steps=100, **settings
    ),
}
RETURNS = {
    "one_step": OneStep(gamma=0.9),
    "n_step": NStep(gamma=0.9, n=3, soft=False),
    "tree_backup": TreeBackup(gamma=0.9, n=3, lmbda=1.0),
}


def filled(kind: str, returns: Any, *, stack: int = 1, capacity: int = 33, turns: int = 60) -> Any:
    """A replay filled by three environments until it wraps around; observations are stacks of frames."""
    env = GymEnv(id="masks/Puzzle-v0", num_envs=3, seed=1)
    shape = (stack, 2) if stack > 1 else (2,)
    replay = REPLAYS[kind](
        capacity=capacity,
        num_envs=3,
        observation_shape=shape,
        observation_dtype=torch.float32,
        frame_stack=stack,
        returns=returns,
        seed=0,
        device="cpu",
    )

    def stacked(before: Tensor, frame: Tensor) -> Tensor:
        return torch.cat([before[:, 1:], frame.unsqueeze(1)], 1) if stack > 1 else frame

    empty = torch.zeros(3, *shape)
    observation = stacked(empty, env.begin())
    for turn in range(turns):
        action = env.action_mask.int().argmax(-1)
        step = env.advance(action)
        following = stacked(observation, step.next_observation)
        fresh = stacked(empty, step.observation)
        now = fresh.where(step.ended.view(-1, *[1] * (fresh.dim() - 1)), following)
        replay.store(observation, action, step._replace(observation=now, next_observation=following))
        observation = now
        if turn == 40:
            replay.cut()
            observation = stacked(empty, env.begin())
    return replay


def newest(observation: Tensor, stack: int) -> Tensor:
    return k_of(observation[..., -1, :] if stack > 1 else observation)


@pytest.mark.parametrize("kind", REPLAYS)
@pytest.mark.parametrize("returns", RETURNS)
@pytest.mark.parametrize("stack", [1, 3])
def test_a_batch_has_the_masks_of_its_observations(kind: str, returns: str, stack: int) -> None:
    replay = filled(kind, RETURNS[returns], stack=stack)
    restored = filled(kind, RETURNS[returns], stack=stack, turns=0)
    restored.load_state_dict(replay.state_dict())
    for each in (replay, restored):
        batch = each.draw(64)
        assert torch.equal(batch.action_mask, bits(newest(batch.observation, stack)))
        assert torch.equal(batch.next_action_mask, bits(newest(batch.next_observation, stack)))
        assert batch.action_mask.gather(1, batch.action.unsqueeze(1)).all()
        assert (~batch.next_action_mask).any()
        if batch.path is not None:
            expected = bits(newest(batch.path.next_observation, stack))
            assert torch.equal(batch.path.next_action_mask, expected)
            taken = batch.path.next_action_mask.gather(2, batch.path.next_action.unsqueeze(2)).squeeze(2)
            assert taken[batch.path.trace > 0].all()
        halves = [*batch.split(32)]
        assert torch.equal(torch.cat([half.action_mask for half in halves]), batch.action_mask)
        assert type(batch).of(batch.columns()).next_action_mask is batch.next_action_mask


@pytest.mark.parametrize("kind", REPLAYS)
def test_loading_a_replay_state_without_masks_discards_the_previous_masks(kind: str) -> None:
    used, empty = filled(kind, RETURNS["one_step"]), filled(kind, RETURNS["one_step"], turns=0)
    seen, no = torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool)
    empty.store(seen, torch.zeros(3, dtype=torch.int64), Step(seen, seen, torch.ones(3), no, no, no, no))
    used.load_state_dict(empty.state_dict())
    assert used.draw(9).action_mask is None


def test_a_replay_allocates_masks_only_if_its_transitions_have_masks() -> None:
    returns = RETURNS["one_step"]
    with_masks, without = filled("uniform", returns), filled("uniform", returns, turns=0)
    sizes = zip(with_masks.transition_bytes, without.transition_bytes, strict=True)
    assert [masked - plain for masked, plain in sizes] == [2 * A, 2 * A]
    step = GymEnv(id="CartPole-v1", num_envs=3, seed=0)
    first = step.begin()[:, :2]
    answer = step.advance(torch.zeros(3, dtype=torch.int64))
    without.store(first, torch.zeros(3, dtype=torch.int64), answer._replace(next_observation=first))
    assert without.ring.action_mask is None
    assert without.draw(3).action_mask is without.draw(3).next_action_mask is None
    for _, _, columns in without.state_dict()["_storage"]["rows"]:
        assert not [name for name in columns if "mask" in name]


def test_transitions_stored_before_the_first_mask_allow_every_action() -> None:
    replay, masked = filled("uniform", RETURNS["one_step"], turns=0), filled("uniform", RETURNS["one_step"])
    batch = masked.draw(3)
    zero, no = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    step = GymEnv(id=Puzzle, num_envs=3, seed=0)
    step.begin()
    one = step.advance(step.action_mask.int().argmax(-1))
    plain = one._replace(action_mask=None, next_action_mask=None, reward=zero, ended=no)
    replay.store(batch.observation, batch.action, plain)
    replay.store(one.observation, batch.action, one._replace(ended=no))
    drawn = replay.draw(50)
    old = drawn.place < 3
    assert drawn.action_mask[old].all()
    assert old.any()
    assert not drawn.action_mask[~old].all()


@pytest.mark.parametrize("returns", RETURNS)
def test_torchrl_reads_and_writes_masks_under_action_mask(returns: str) -> None:
    actor, env = make_actor("boltzmann"), GymEnv(id="masks/Puzzle-v0", num_envs=3, seed=1)
    env.reset()
    rollout = env.rollout(40, actor, break_when_any_done=False)
    assert torch.equal(rollout["action_mask"], bits(k_of(rollout["observation"])))
    assert torch.equal(rollout["next", "action_mask"], bits(k_of(rollout["next", "observation"])))
    assert rollout["action_mask"].gather(-1, rollout["action"].unsqueeze(-1)).all()
    replay = filled("uniform", RETURNS[returns], turns=0)
    replay.extend(rollout)
    sample = replay.sample(32)
    assert torch.equal(sample["action_mask"], bits(k_of(sample["observation"])))
    assert torch.equal(sample["next", "action_mask"], bits(k_of(sample["next", "observation"])))
    if returns == "tree_backup":
        path = sample["path"]
        assert torch.equal(path["next_action_mask"], bits(k_of(path["next_observation"])))


def test_soft_returns_add_the_entropies_of_masked_policies() -> None:
    actor, alpha = make_actor("boltzmann"), 0.7
    replay = filled("uniform", RETURNS["tree_backup"])
    place = replay.draw(64).place
    soft = NStep(gamma=0.9, n=2, soft=True, actor=actor, temperature=FixedTemperature(alpha=alpha))
    hard = NStep(gamma=0.9, n=2, soft=False)
    extra = soft.gather(replay.ring, place).reward - hard.gather(replay.ring, place).reward
    path = replay.returns.gather(replay.ring, place).path
    between = path.next_observation[:, 0]
    entropy = F.entropy(F.log_policy(F.masked(actor.mean_scores(between), bits(k_of(between))), 0.5))
    torch.testing.assert_close(extra, (0.9 * alpha * entropy).where(path.trace[:, 0] > 0, 0))


# --- acting ------------------------------------------------------------------------------------------------


def make_actor(kind: str) -> Any:
    parts = compose("discrete_sac" if kind == "policy" else "sqn", *TINY).recipe.build()
    if kind == "policy":
        return parts["actor"]
    common = {"q_net": parts["q_net"], "policy": "q1", "seed": 0}
    return {
        "boltzmann": lambda: BoltzmannActor(temperature=FixedTemperature(alpha=0.5), **common),
        "random": lambda: EpsilonGreedyActor(start=1.0, end=1.0, over=1.0, steps=1, **common),
        "greedy": lambda: GreedyActor(**common),
    }[kind]()


@pytest.mark.parametrize("kind", ["boltzmann", "random", "greedy", "policy"])
@pytest.mark.parametrize("greedy", [False, True])
def test_no_actor_chooses_an_action_that_is_not_allowed(kind: str, greedy: bool) -> None:
    actor, k = make_actor(kind), torch.randint(1, 16, (3000,))
    observation, mask = torch.stack([torch.zeros(3000), k.float()], -1), bits(k)
    action = actor.act(observation, greedy=greedy, action_mask=mask)
    assert mask.gather(1, action.unsqueeze(1)).all()
    if kind == "random" and not greedy:
        chosen = torch.bincount(action[k == 13], minlength=A) / (k == 13).sum()
        torch.testing.assert_close(chosen, torch.tensor([1, 0, 1, 1]) / 3, atol=0.12, rtol=0)
    out = actor(compose_td(observation, mask))
    assert mask.gather(1, out["action"].unsqueeze(1)).all()
    if kind in ("boltzmann", "policy"):
        log_pi = actor.log_policy(observation, action_mask=mask)
        assert (log_pi.exp()[~mask] == 0).all()
        torch.testing.assert_close(out["entropy"], F.entropy(log_pi))
        torch.testing.assert_close(out["log_prob"], log_pi.gather(1, out["action"].unsqueeze(1)).squeeze(1))


def compose_td(observation: Tensor, mask: Tensor) -> Any:
    from tensordict import TensorDict

    return TensorDict({"observation": observation, "action_mask": mask}, [len(observation)])


# --- whole runs: the environment raises where an action is not allowed -----------------------------------


RECIPES = ["discrete_sac", "double_dqn", "sqn_munchausen", "sqn_rainbow", "sqn_tb"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_train_and_evaluate_with_allowed_actions_only(recipe: str, tmp_path: Path) -> None:
    assert train(tmp_path / "run", f"recipe={recipe}", *TINY) == "done"


def test_acting_with_masks_is_not_compiled_so_no_checkpoint_is_saved_before_each_step() -> None:
    class Saves(Reporter):
        number = 0

        def checkpoint(self, counters: Any, state: Any) -> None:
            self.number += 1

    saves = Saves()
    experiment = compose("sqn", *TINY, "compile=always", "update_ratio=1e-3", "checkpoint_every=0")
    agent, env, _ = experiment.build()
    with closing(env):
        sqn_rl.train(agent, env, experiment.run, reporters=[saves])
    assert saves.number == 1


def test_a_run_with_masks_resumes_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    settings = ["recipe=sqn_tb", *TINY, "replay=prioritized", "num_envs=3", "checkpoint_every=20"]
    train(tmp_path / "alone", *settings)
    turns = iter(range(30))
    with pytest.raises(Killed):
        train(tmp_path / "killed", *settings, die=lambda: next(turns) == 25)
    assert train(tmp_path / "killed", *settings) == "done"
    assert differences(tmp_path / "alone", tmp_path / "killed") == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masked") / "run"
    train(path, *TINY[2:], "env=gym", "env.id=masks/DictPuzzle-v0")
    return path


def test_a_loaded_policy_plays_and_reads_the_mask_of_a_dict_observation(run: Path) -> None:
    policy = load(run)
    assert len(policy.evaluate(episodes=3, greedy=False).returns) == 3
    env = DictPuzzle()
    seen = [env.reset(seed=seed)[0] for seed in range(60)]
    for greedy in (True, False):
        actions = policy.act(seen, greedy=greedy)
        assert all(each["action_mask"][action - FIRST] for each, action in zip(seen, actions, strict=True))
        assert all(each["action_mask"][policy.act(each, greedy=greedy) - FIRST] for each in seen)
    many = {key: np.array([each[key] for each in seen]) for key in seen[0]}
    assert policy.act(many).tolist() == policy.act(seen).tolist()
    pi = policy.probabilities(many)
    assert (pi[many["action_mask"] == 0] == 0).all()
    assert (policy.probabilities(many, action_mask=np.eye(4)[3])[:, 3] == 1).all()


def test_a_batch_with_masks_in_only_some_rows_is_refused(run: Path) -> None:
    policy = load(run)
    seen, _ = DictPuzzle().reset(seed=0)
    without = {key: value for key, value in seen.items() if key != "action_mask"}
    assert policy.act([without, without]).tolist() == [policy.act(without)] * 2
    with pytest.raises(
        SettingError, match=r"without action_mask: 1.*an action_mask in every row, or in none"
    ):
        policy.act([seen, without])


def test_a_film_has_the_allowed_actions_of_every_step(run: Path) -> None:
    policy = load(run)
    env = GymEnv(id="masks/DictPuzzle-v0", num_envs=1, seed=5)
    moments = [*Play(policy.actor, policy._q_net[0], env, episodes=3, greedy=False, seed=0)]
    assert moments
    for at in moments:
        assert at.allowed[at.action]
        assert (at.pi[~at.allowed] == 0).all()
    assert not all(at.allowed.all() for at in moments)


def test_a_film_frame_draws_no_bars_for_actions_that_are_not_allowed() -> None:
    allowed = torch.tensor([True, False, True])
    screen, q = np.zeros((20, 30, 3), np.uint8), torch.tensor([1.0, 99.0, 2.0])
    at = Moment(screen, q, None, 0, 1, 0, 0.0, allowed)
    frame = np.asarray(Frames("a title", ["a", "b", "c"]).draw(at))
    faint = [int(LIGHT.faint[i : i + 2], 16) for i in (1, 3, 5)]
    top = frame.shape[0] // 2 * 2 - drawing.EDGE - 3 * drawing.ROW
    rows = [frame[top + drawing.ROW * row + 5, slice(*drawing.PI)] for row in range(3)]
    assert [(row != 255).any() for row in rows] == [False, False, False]  # without π
    rows = [frame[top + drawing.ROW * row + 10, drawing.Q[0] : drawing.Q[1]] for row in range(3)]
    assert [(row == faint).all(-1).any() for row in rows] == [True, False, True]
    texts = [frame[top + drawing.ROW * row :][: drawing.ROW, slice(*drawing.NAME)] for row in range(3)]
    assert [text.min() > 80 for text in texts] == [False, True, False]  # grey


def test_a_film_of_many_actions_shows_the_chosen_and_the_best_allowed_ones() -> None:
    q = torch.arange(100.0)
    at = Moment(np.zeros((20, 30, 3), np.uint8), q, None, 3, 1, 0, 0.0, q < 90)
    assert drawing._rows(at) == [3, *range(67, 90)]


# --- before a run ------------------------------------------------------------------------------------------


def test_the_wiring_lists_masks_only_if_the_environment_gives_masks() -> None:
    def keys(*overrides: str) -> dict[str, list[str]]:
        nodes = preflight(compose("sqn", *overrides).recipe).nodes
        return {node.slot: [key for key in node.reads if "mask" in key] for node in nodes}

    of_batch = ["batch.action_mask", "batch.next_action_mask"]
    shown = keys(*TINY)
    assert (shown["actor"], shown["loss"]) == (["action_mask"], of_batch)
    assert shown["replay"] == ["action_mask", "next.action_mask"]
    assert not any(keys("hidden=[8]").values())


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("reads_masks", False), ("backup", lambda loss, q, observation: (q.mean, 0.0))],
)
def test_a_loss_that_does_not_read_masks_is_refused(
    attribute: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"sqn_rl.SQNLoss.{attribute}", value)
    with pytest.raises(RecipeError, match="the environment gives action masks, which SQNLoss does not read"):
        train(tmp_path / "run", *TINY)


class Pair(Puzzle):
    """The puzzle with an action of two choices."""

    action_space = spaces.MultiDiscrete([2, 2])

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        return super().step(FIRST + int(2 * action[0] + action[1]))


gymnasium.register("masks/Pair-v0", Pair)


def test_a_run_trains_and_acts_with_a_product_action_space_and_masks(tmp_path: Path) -> None:
    train(tmp_path / "run", *TINY[2:], "env=gym", "env.id=masks/Pair-v0")
    policy, env = load(tmp_path / "run"), Pair()
    assert len(policy.evaluate(episodes=2, greedy=False).returns) == 2
    observation, info = env.reset(seed=0)
    action = policy.act(observation, action_mask=info["action_mask"])
    assert (action.shape, action.dtype) == ((2,), env.action_space.dtype)
    env.step(action)
    masks = np.array([info["action_mask"]] * 5)
    assert policy.act(np.stack([observation] * 5), action_mask=masks).shape == (5, 2)


@pytest.mark.parametrize("name", ["Puzzle", "Pair"])
def test_eject_refuses_action_masks_and_product_action_spaces(name: str) -> None:
    recipe = compose("sqn", "env=gym", f"env.id=masks/{name}-v0").recipe
    with pytest.raises(RecipeError, match="writes no action masks, and only Discrete actions"):
        eject(recipe, "")
