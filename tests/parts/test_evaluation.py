"""Evaluation: every environment plays its quota of full games, and the actor is unchanged."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from sqn_rl import (
    MLP,
    AtariEnv,
    AtariRamEnv,
    BoltzmannActor,
    Dense,
    FixedTemperature,
    GymEnv,
    LinearHead,
    MinAtarEnv,
    QNet,
    Step,
    evaluate,
)
from sqn_rl.plots.film import Play
from sqn_rl.training.evaluation import MAX_STEPS, Evaluation, step_limit
from sqn_rl.training.state import Episodes
from sqn_rl.types import Counters


class Games:
    """Environment i plays games of ``lengths[i]`` steps; each step has score 1 and reward 0."""

    n_actions, max_steps, act_options = 2, None, MappingProxyType({})

    def __init__(self, *lengths: int) -> None:
        self.lengths, self.num_envs = torch.tensor(lengths), len(lengths)
        self.at = torch.zeros_like(self.lengths)

    def begin(self, rows: Sequence[int] | None = None) -> Tensor:
        self.at[slice(None) if rows is None else rows] = 0
        return torch.zeros(self.num_envs, 1)

    def send(self, action: Tensor) -> None:
        pass

    def receive(self) -> Step:
        self.at += 1
        ended = self.at == self.lengths
        self.at[ended] = 0
        seen, zero = torch.zeros(self.num_envs, 1), torch.zeros(self.num_envs)
        return Step(seen, seen, zero, ended, ~ended & False, ended, torch.ones(self.num_envs))


STILL = SimpleNamespace(
    device=torch.device("cpu"),
    act=lambda observation, greedy, generator: torch.zeros(len(observation), dtype=torch.int64),
)


@pytest.mark.parametrize(
    ("episodes", "quota"), [(1, (1, 0, 0)), (3, (1, 1, 1)), (8, (3, 3, 2)), (20, (7, 7, 6))]
)
def test_every_environment_plays_its_quota_so_short_games_are_not_favoured(
    episodes: int, quota: tuple[int, ...]
) -> None:
    lengths = (2, 50, 9)
    result = evaluate(STILL, Games(*lengths), episodes=episodes, greedy=True, seed=0)
    expected = [length for length, share in zip(lengths, quota, strict=True) for _ in range(share)]
    assert sorted(result.lengths) == sorted(expected)
    assert result.returns == result.lengths  # the game's own score, not the reward


# --- episodes without an end -------------------------------------------------------------------------------


class Steady(gymnasium.Env):
    """Never ends by itself; its screen shows the step number; every reward is 0.1."""

    observation_space = gymnasium.spaces.Box(0, 1e4, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.t = render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.look(), {}

    def step(self, action: int) -> Any:
        self.t += 1
        return self.look(), 0.1, False, False, {}

    def look(self) -> np.ndarray:
        return np.array([self.t], np.float32)

    def render(self) -> np.ndarray:
        return np.full((4, 4, 3), self.t % 256, np.uint8)


gymnasium.register("steady/Task-v0", Steady)


def steady(num_envs: int, **kwargs: Any) -> GymEnv:
    return GymEnv(id="steady/Task-v0", num_envs=num_envs, seed=0, training=False, kwargs=kwargs)


def test_endless_episodes_are_cut_at_max_steps_and_restarted() -> None:
    result = evaluate(STILL, Games(4, 50, 9), episodes=7, greedy=True, seed=0, max_steps=9)
    assert sorted(zip(result.lengths, result.cut, strict=True)) == [
        *[(4, False)] * 3,
        *[(9, False)] * 2,  # it ends there
        *[(9, True)] * 2,
    ]
    assert result.returns == result.lengths
    assert result.row()["cut"] == 2
    assert evaluate(STILL, Games(4, 50), episodes=2, greedy=True, seed=0).row()["cut"] == 0


def test_an_environment_is_reset_after_a_cut_episode() -> None:
    seen: list[list[int]] = []

    def act(observation: Tensor, **_: Any) -> Tensor:
        seen.append(observation[:, 0].tolist())
        return torch.zeros(len(observation), dtype=torch.int64)

    actor = SimpleNamespace(device=torch.device("cpu"), act=act)
    result = evaluate(actor, steady(2), episodes=4, greedy=True, seed=0, max_steps=3)
    assert (result.lengths, result.cut) == ([3] * 4, [True] * 4)
    assert seen == [[0, 0], [1, 1], [2, 2]] * 2


def atari(kind: type, **settings: Any) -> Any:
    more = {"workers": 0} if kind is AtariRamEnv else {"threads": 1, "frame_stack": 2, "noop_max": 9}
    more |= {} if kind is AtariRamEnv else {"fire_reset": True}
    fixed = {"game": "pong", "sticky_actions": 0.0, "clip_reward": False, "life_loss": False, "num_envs": 1}
    return kind(**fixed, **more, **settings, seed=0, training=False)


FREEWAY = {
    "game": "freeway", "sticky_action_prob": 0.0, "minimal_actions": True, "difficulty_ramping": True,
    "clip_reward": False,
}  # fmt: skip
LIMITED = {
    "CartPole": lambda: GymEnv(id="CartPole-v1", num_envs=1, seed=0, training=False),
    "a limit in kwargs": lambda: steady(1, max_episode_steps=70),
    "Pong from RAM": lambda: atari(AtariRamEnv, frame_skip=7, max_frames=240),
    "Pong from pixels": lambda: atari(AtariEnv, frame_skip=7, max_frames=240),
    "Freeway of MinAtar": lambda: MinAtarEnv(**FREEWAY, max_episode_steps=35, num_envs=1, seed=0),
}
LIMITS = {
    "CartPole": 500,
    "a limit in kwargs": 70,
    "Pong from RAM": 35,
    "Pong from pixels": 35,
    "Freeway of MinAtar": 35,
}


@pytest.mark.parametrize("name", LIMITED)
def test_an_environments_time_limit_applies_and_is_not_a_cut(name: str) -> None:
    with closing(LIMITED[name]()) as env:
        assert step_limit(env, 0) == env.max_steps == LIMITS[name]
        if name != "CartPole":  # whose pole falls
            result = evaluate(STILL, env, episodes=2, greedy=True, seed=0)
            assert (result.lengths, result.cut) == ([LIMITS[name]] * 2, [False] * 2)


def test_step_limit_is_the_given_one_or_the_default_of_27000_steps() -> None:
    assert step_limit(steady(1), 0) == MAX_STEPS == 27_000  # Atari's 108,000 frames
    assert step_limit(steady(1), 11) == 11
    assert step_limit(GymEnv(id="CartPole-v1", num_envs=1, seed=0), 11) == 11


def test_every_return_is_summed_in_double_precision() -> None:
    """A thousand rewards of 0.1: in float32 they are 99.99905."""
    expected, n = sum([0.1] * 1000), 1000
    rows: list[dict[str, Any]] = []
    reporter = SimpleNamespace(episode=rows.append)
    env, episodes = steady(1, max_episode_steps=n), Episodes(np.zeros(1), np.zeros(1, np.int64))
    env.begin()
    for _ in range(n):
        step = env.advance(torch.zeros(1, dtype=torch.int64))
        episodes.record(step.score.numpy(), step.ended.numpy(), Counters(), reporter)
    assert rows == [{"env_steps": 0, "return": expected, "length": n}]

    for limit in ({}, {"max_episode_steps": n}):  # cut by the evaluation, and by itself
        result = evaluate(STILL, steady(2, **limit), episodes=2, greedy=True, seed=0, max_steps=n)
        assert (result.returns, result.mean) == ([expected] * 2, expected)

    actor = boltzmann(steady(1))
    play = Play(actor, actor.q_net, steady(1), episodes=1, greedy=True, seed=0, max_steps=n)
    last = [*play][-1]
    assert last.score + 0.1 == expected
    assert play.evaluation.returns == [expected]


def boltzmann(env: GymEnv) -> BoltzmannActor:
    q_net = QNet(
        encoder=partial(MLP, hidden=[4]), head=LinearHead, layer=Dense, members=1, shared_encoder=False,
        observation_shape=env.observation_shape, n_actions=env.n_actions,
    )  # fmt: skip
    return BoltzmannActor(q_net=q_net, temperature=FixedTemperature(alpha=1.0), policy="q1", seed=0)


def test_a_film_of_endless_episodes_is_cut_at_max_steps() -> None:
    actor = boltzmann(steady(1))
    play = Play(actor, actor.q_net, steady(1), episodes=3, greedy=True, seed=7, max_steps=5)
    moments = [(at.episode, at.step, int(at.screen[0, 0, 0])) for at in play]
    assert moments == [(game, step, step) for game in (1, 2, 3) for step in range(5)]
    assert play.evaluation == evaluate(actor, steady(1), episodes=3, greedy=True, seed=7, max_steps=5)


# --- what is reported --------------------------------------------------------------------------------------


def test_an_evaluation_reports_mean_std_iqm_and_its_returns() -> None:
    result = Evaluation(returns=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0], lengths=[1] * 8, greedy=True)
    assert result.mean == 121 / 8
    assert result.std == pytest.approx(np.std(result.returns))
    assert result.iqm == 3.5  # of 2, 3, 4, 5: the middle half
    row = result.row()
    assert (row["episodes"], row["greedy"], row["returns"]) == (8, True, result.returns)


@pytest.mark.parametrize("greedy", [True, False])
def test_an_evaluation_does_not_change_the_actor_and_depends_on_its_seed(make_q_net, greedy: bool) -> None:
    q_net = make_q_net(n_actions=2)
    actor = BoltzmannActor(q_net=q_net, temperature=FixedTemperature(alpha=1.0), policy="q1", seed=0)
    weights, drawing, everybody = actor.state_dict(), actor.generator.get_state(), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in weights.items()}

    def play(seed: int) -> list[float]:
        env = GymEnv(id="CartPole-v1", num_envs=2, seed=5, training=False)
        return evaluate(actor, env, episodes=6, greedy=greedy, seed=seed).returns

    first = play(seed=1)
    assert play(seed=1) == first
    assert (play(seed=2) == first) == greedy
    assert torch.equal(actor.generator.get_state(), drawing)
    assert torch.equal(torch.get_rng_state(), everybody)
    assert actor.training
    for name, tensor in actor.state_dict().items():
        assert torch.equal(tensor, weights[name])
