"""MinAtarEnv: games, actions, settings, the screen. Its episodes are tested in ``test_env_continuity``."""

import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sqn_rl.errors import SettingError, to_install
from sqn_rl.parts.env.minatar import MinAtarEnv
from sqn_rl.types import Step

pytest.importorskip("minatar")

CHANNELS = {"asterix": 4, "breakout": 4, "freeway": 7, "seaquest": 10, "space_invaders": 6}
MINIMAL = {
    "asterix": ["NOOP", "LEFT", "UP", "RIGHT", "DOWN"],
    "breakout": ["NOOP", "LEFT", "RIGHT"],
    "freeway": ["NOOP", "UP", "DOWN"],
    "seaquest": ["NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE"],
    "space_invaders": ["NOOP", "LEFT", "RIGHT", "FIRE"],
}
LEFT, RIGHT = 1, 2


def make(game: str = "breakout", **settings: Any) -> MinAtarEnv:
    usual = {
        "sticky_action_prob": 0.0,
        "minimal_actions": True,
        "difficulty_ramping": True,
        "clip_reward": False,
        "max_episode_steps": None,
        "num_envs": 1,
        "seed": 0,
    }
    return MinAtarEnv(**{"game": game, **usual, **settings})


def play(env: MinAtarEnv, actions: list[int]) -> list[Step]:
    env.begin()
    return [env.advance(torch.full((env.num_envs,), action)) for action in actions]


def paddle(observation_NCHW: Tensor) -> Tensor:
    return observation_NCHW[:, 0, 9].int().argmax(-1)


@pytest.mark.parametrize("game", CHANNELS)
def test_a_game_has_its_channels_and_actions(game: str) -> None:
    env = make(game, num_envs=2)
    assert env.begin().shape == (2, CHANNELS[game], 10, 10)
    assert env.observation_dtype == torch.bool
    assert (env.name, env.frame_skip, env.max_steps) == (f"{game}-minatar", 1, None)
    assert env.action_names == MINIMAL[game]
    full = make(game, minimal_actions=False)
    assert full.action_names == ["NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE"]
    assert (env.n_actions, full.n_actions) == (len(MINIMAL[game]), 6)


@pytest.mark.parametrize("minimal", [True, False])
def test_actions_move_the_paddle_as_their_names_say(minimal: bool) -> None:
    env = make(minimal_actions=minimal)
    assert paddle(env.begin()) == 4
    moves = {"LEFT": -1, "RIGHT": 1}
    for action, name in enumerate(env.action_names):
        step = env.advance(env.action_names.index("RIGHT") * torch.ones(1, dtype=torch.int64))
        before, step = paddle(step.observation), env.advance(torch.tensor([action]))
        assert paddle(step.next_observation) - before == moves.get(name, 0), name
        env.begin()


@pytest.mark.parametrize("sticky", [0.0, 0.1, 0.5])
def test_a_sticky_action_repeats_the_previous_action_at_the_set_rate(sticky: float) -> None:
    env, repeated, n = make(sticky_action_prob=sticky, num_envs=20, max_episode_steps=4), 0, 0
    position, done = paddle(env.begin()), torch.zeros(20, dtype=torch.int64)  # at first NOOP is repeated
    for t in range(300):
        wanted = (LEFT, RIGHT)[t % 2]  # within 4 steps the paddle reaches no wall
        step = env.advance(torch.full((20,), wanted))
        move = paddle(step.next_observation) - position
        new, old = move == {LEFT: -1, RIGHT: 1}[wanted], move == done
        assert (new | old).all()
        differ = done != {LEFT: -1, RIGHT: 1}[wanted]
        repeated, n = repeated + int((old & differ).sum()), n + int(differ.sum())
        position, done = paddle(step.observation), move * ~step.ended
    assert n > 3000
    assert abs(repeated / n - sticky) <= 4 * (sticky * (1 - sticky) / n) ** 0.5


def test_a_time_limit_truncates_and_returns_the_true_final_observation() -> None:
    steps = play(make("freeway", max_episode_steps=5), [1] * 10)
    assert [t + 1 for t, step in enumerate(steps) if step.ended] == [5, 10]
    assert all(torch.equal(step.truncated, step.ended) and not step.terminated for step in steps)
    longer = play(make("freeway", max_episode_steps=6), [1] * 6)
    assert torch.equal(steps[4].next_observation, longer[4].observation)
    assert not torch.equal(steps[4].next_observation, steps[4].observation)


def test_a_lost_ball_at_the_time_limit_is_terminated() -> None:
    last = next(t + 1 for t, step in enumerate(play(make(), [LEFT] * 12)) if step.ended)
    for limit, terminated in {last - 1: False, last: True}.items():
        *_, step = play(make(max_episode_steps=limit), [LEFT] * limit)
        assert step.ended
        assert (step.terminated, step.truncated) == (terminated, not terminated)


def test_an_episode_becomes_harder_unless_difficulty_ramping_is_off() -> None:
    def seen(**settings: Any) -> Tensor:
        env = make("asterix", num_envs=16, **settings)
        generator = torch.Generator().manual_seed(0)
        env.begin()
        return torch.stack(
            [env.advance(torch.randint(5, (16,), generator=generator)).observation for _ in range(200)]
        )

    ramping, steady = seen(), seen(difficulty_ramping=False)
    assert torch.equal(ramping[:100], steady[:100])  # it becomes harder every 100 steps
    assert not torch.equal(ramping, steady)


@pytest.mark.parametrize(("training", "reward"), [(True, 1), (False, 10)])
def test_clipping_changes_only_the_training_reward_and_never_the_score(training: bool, reward: int) -> None:
    env = make("seaquest", clip_reward=True, training=training)
    env.begin()
    (game,) = env._games
    game.diver_count, game.sub_y, game.surface = 6, 1, False  # a full submarine surfaces, with a full tank
    step = env.advance(torch.tensor([env.action_names.index("UP")]))
    assert (step.reward.item(), step.score.item()) == (reward, 10)


@pytest.mark.parametrize("game", CHANNELS)
def test_the_screen_has_minatars_colours(game: str) -> None:
    from minatar.gym import BaseEnv

    env = make(game, difficulty_ramping=False)
    env.begin()
    reference = BaseEnv(game, render_mode="rgb_array", difficulty_ramping=False)
    reference.game.env = env._games[0]
    for action in [*range(env.n_actions)] * 3:
        env.advance(torch.tensor([action]))
    screen = env.screen()
    assert (screen.shape, screen.dtype) == ((200, 200, 3), np.uint8)
    np.testing.assert_allclose(screen[10::20, 10::20] / 255, reference.render(), atol=0.02)
    assert (screen == screen[::20, ::20].repeat(20, 0).repeat(20, 1)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "brekout"}, "one of asterix, .*; did you mean 'breakout'"),
        ({"game": "Seaquest"}, "did you mean 'seaquest'"),
        ({"game": [3]}, "a text"),
        ({"sticky_action_prob": 1.0}, r"a probability in \[0, 1\)"),
        ({"sticky_action_prob": -0.1}, r"a probability in \[0, 1\)"),
        ({"max_episode_steps": 0}, "a whole number, at least 1, or null"),
        ({"max_episode_steps": 2.5}, "a whole number, at least 1, or null"),
        ({"num_envs": 0}, "a whole number, at least 1"),
        ({"seed": -1}, "a whole number, at least 0"),
    ],
)
def test_an_invalid_setting_is_refused_with_what_is_expected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as error:
        make(**settings)
    assert error.value.field in settings


def test_only_minatars_games_are_imported_and_a_missing_minatar_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "minatar", raising=False)
    make("freeway").begin()
    assert "minatar" not in sys.modules  # which imports matplotlib and seaborn
    monkeypatch.setitem(sys.modules, "minatar", None)
    with pytest.raises(SettingError, match=re.escape(to_install("minatar"))):
        make()
