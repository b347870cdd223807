"""AtariRamEnv: every game that ale-py can play, and the settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ale_py import roms

from sqn_rl.errors import SettingError
from sqn_rl.parts.env.atari_ram import AtariRamEnv

UNPLAYABLE = {"combat", "joust", "maze_craze", "warlords"}  # ROMs without rules in ALE 0.12


def make(game: str = "breakout", **settings: Any) -> AtariRamEnv:
    usual = {
        "sticky_actions": 0.0,
        "frame_skip": 8,
        "clip_reward": False,
        "life_loss": False,
        "max_frames": None,
        "workers": 0,
    }
    return AtariRamEnv(**{"game": game, "num_envs": 1, "seed": 0, **usual, **settings})


@pytest.mark.slow
def test_every_playable_game_resets_steps_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for game in set(roms.get_all_rom_ids()) - UNPLAYABLE:
        env = make(game, frame_skip=4)
        assert env.begin().shape == (1, 128)
        step = env.advance(torch.tensor([env.n_actions - 1]))
        assert step.next_observation.dtype == torch.uint8
        assert (env.name, env.frame_skip) == (f"{game}-ram", 4)
    assert capfd.readouterr() == ("", "")  # no banner


@pytest.mark.parametrize("game", sorted(UNPLAYABLE))
def test_a_rom_without_rules_is_refused(game: str) -> None:
    with pytest.raises(SettingError, match="ale-py ships only the ROM"):
        make(game)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "mspacman"}, "did you mean 'ms_pacman'"),
        ({"game": "Pong"}, "did you mean 'pong'"),
        ({"game": "zzz"}, "in snake_case$"),
        ({"sticky_actions": 1.0}, r"a probability in \[0, 1\)"),
        ({"sticky_actions": -0.1}, r"a probability in \[0, 1\)"),
        ({"frame_skip": 0}, "a whole number, at least 1"),
        ({"frame_skip": 2.5}, "a whole number, at least 1"),
        ({"max_frames": 0}, "a whole number, at least 1, or null"),
        ({"clip_reward": "false"}, "True or False"),
        ({"num_envs": 0}, "a whole number, at least 1"),
        ({"seed": -1}, "a whole number, at least 0"),
    ],
)
def test_an_invalid_setting_is_refused_with_a_hint(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as error:
        make(**settings)
    assert error.value.field in settings


def play(env: AtariRamEnv, steps: int = 150) -> list[Any]:
    env.begin()
    generator = torch.Generator().manual_seed(0)
    return [env.advance(torch.randint(env.n_actions, (1,), generator=generator)) for _ in range(steps)]


def count(steps: list[Any], what: Callable[[Any], torch.Tensor]) -> int:
    return sum(int(what(step)) for step in steps)


def test_clipping_changes_the_reward_and_never_the_score() -> None:
    steps = play(make("ms_pacman", clip_reward=True), 60)
    assert any(step.score > 1 for step in steps)
    assert all(step.reward == step.score.sign() for step in steps)


def test_a_lost_life_is_terminated_but_does_not_end_the_game() -> None:
    plain, learning = play(make()), play(make(life_loss=True))
    games = count(plain, lambda step: step.ended)
    assert games >= 1
    assert count(learning, lambda step: step.ended) == games
    assert count(plain, lambda step: step.terminated) == games
    assert count(learning, lambda step: step.terminated) >= 5 * games  # Breakout gives five lives
    for one, other in zip(plain, learning, strict=True):
        assert torch.equal(one.observation, other.observation)


def test_evaluation_mode_plays_full_games_with_unclipped_rewards() -> None:
    plain = play(make("ms_pacman"))
    evaluating = play(make("ms_pacman", life_loss=True, clip_reward=True, training=False))
    assert any(step.score > 1 for step in plain)
    for one, other in zip(plain, evaluating, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:7], other[:7], strict=True))


def test_a_frame_limit_truncates() -> None:
    steps = play(make("pong", max_frames=80), 20)  # 8 frames a step
    assert [i + 1 for i, step in enumerate(steps) if step.ended] == [10, 20]
    assert all(torch.equal(step.truncated, step.ended) and not step.terminated for step in steps)


def test_games_with_sticky_actions_differ_between_seeds() -> None:
    for sticky_actions in (0.0, 0.5):
        games = [make(sticky_actions=sticky_actions, seed=seed) for seed in (0, 1)]
        pairs = zip(*map(play, games), strict=True)
        differ = any(not torch.equal(one.observation, other.observation) for one, other in pairs)
        assert differ == bool(sticky_actions)
