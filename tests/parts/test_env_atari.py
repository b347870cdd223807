"""AtariEnv: frame stacks, starts, settings, seeds. Its observations are tested in ``test_env_continuity``."""

import re
from typing import Any

import pytest
import torch
from ale_py import ALEInterface, roms
from torch import Tensor

from sqn_rl.errors import SettingError
from sqn_rl.parts.env.ale.atari_games import _require_ale
from sqn_rl.parts.env.atari import AtariEnv
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.training.evaluation import evaluate
from sqn_rl.types import Step

UNPLAYABLE = {"combat", "joust", "maze_craze", "warlords"}  # ROMs without rules in ALE 0.12


def make(game: str = "breakout", **settings: Any) -> AtariEnv:
    usual = {
        "sticky_actions": 0.25,
        "frame_skip": 4,
        "frame_stack": 4,
        "noop_max": 0,
        "fire_reset": False,
        "clip_reward": False,
        "life_loss": False,
        "max_frames": None,
        "threads": 1,
    }
    return AtariEnv(**{"game": game, "num_envs": 2, "seed": 0, **usual, **settings})


def play(env: AtariEnv, steps: int) -> tuple[Tensor, list[Step]]:
    first, generator = env.begin(), torch.Generator().manual_seed(0)
    actions = torch.randint(env.n_actions, (steps, env.num_envs), generator=generator)
    return first, [env.advance(action_N) for action_N in actions]


def assert_begins(observation: Tensor) -> None:
    assert not observation[:, :-1].any()
    assert observation[:, -1].flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("game", "beginning"),
    [("pong", {}), ("qbert", {"noop_max": 30}), ("breakout", {"noop_max": 30, "fire_reset": True})],
    ids=str,
)
def test_each_stack_is_the_previous_one_shifted_by_one_frame(game: str, beginning: dict[str, Any]) -> None:
    """So a replay may keep each frame once. At the start of a game all frames but the newest are zeros."""
    env = make(game, frame_skip=12, max_frames=1200, **beginning)
    before, steps = play(env, 110)
    assert_begins(before)
    for step in steps:
        assert torch.equal(step.next_observation[:, :-1], before[:, 1:])
        assert torch.equal(step.observation[~step.ended], step.next_observation[~step.ended])
        assert_begins(step.observation[step.ended])
        before = step.observation
    assert any(step.ended.any() for step in steps)


def test_the_ring_returns_the_observed_stacks_of_every_transition() -> None:
    """Though it keeps one frame per step: across ends of games, lost lives and frame limits."""
    env = make(frame_skip=8, noop_max=10, life_loss=True, max_frames=960)
    facts = {"observation_shape": env.observation_shape, "observation_dtype": env.observation_dtype}
    ring = Ring(capacity=200, num_envs=2, **facts, frame_stack=env.frame_stack, device="cpu")
    generator, now, seen = torch.Generator().manual_seed(0), env.begin(), []
    for _ in range(300):
        action = torch.randint(4, (2,), generator=generator)
        step = env.advance(action)
        ring.append(now, action, step)
        seen.append((now, step))
        now = step.observation
    assert {True, False} == {bool(step.truncated.any()) for _, step in seen if step.ended.any()}
    place = ring.place(torch.arange(len(ring)))
    assert torch.equal(ring.observe(place), torch.cat([before for before, _ in seen[-100:]]))
    assert torch.equal(
        ring.observe_next(place), torch.cat([step.next_observation for _, step in seen[-100:]])
    )


def test_a_frame_limit_truncates_without_changing_the_observations() -> None:
    """Unlike ale-py's own limit, at which the newest frame of the last stack is an old one."""
    limited, free = (play(make("pong", max_frames=limit, life_loss=True), 25)[1] for limit in (98, None))
    assert [step.ended.tolist() for step in limited] == [[i == 24] * 2 for i in range(25)]  # 100 frames
    assert [step.truncated.tolist() for step in limited] == [step.ended.tolist() for step in limited]
    for one, other in zip(limited, free, strict=True):
        assert torch.equal(one.next_observation, other.next_observation)
    assert_begins(limited[-1].observation)


def test_the_game_after_a_truncated_one_has_the_whole_frame_limit() -> None:
    _, steps = play(make("breakout", frame_skip=8, max_frames=960, num_envs=1), 380)
    ended = [i + 1 for i, step in enumerate(steps) if step.ended]
    lengths = [after - before for before, after in zip([0, *ended], ended, strict=False)]
    late = [steps[i - 1].truncated.item() for i in ended]
    assert [length == 120 for length in lengths] == late
    assert {True, False} == set(late)


def test_a_life_lost_at_the_frame_limit_is_terminated_and_not_truncated() -> None:
    one = {"num_envs": 1, "frame_skip": 8, "life_loss": True}
    before = next(i for i, step in enumerate(play(make(**one), 80)[1]) if step.terminated)
    step = play(make(**one, max_frames=8 * (before + 1)), before + 1)[1][before]
    assert (step.terminated.item(), step.truncated.item(), step.ended.item()) == (True, False, True)


def test_a_lost_life_is_terminated_but_does_not_end_the_game() -> None:
    plain, learning = (play(make(life_loss=on, frame_skip=8), 200)[1] for on in (False, True))
    games = sum(int(step.ended.sum()) for step in plain)
    assert games >= 2
    assert sum(int(step.terminated.sum()) for step in plain) == games
    for one, other in zip(plain, learning, strict=True):
        assert torch.equal(one.observation, other.observation)
        assert torch.equal(one.ended, other.ended)
        assert (other.terminated | ~other.ended).all()
    whole = [torch.stack([step.ended[i] for step in learning]).nonzero().max() + 1 for i in range(2)]
    for i, end in enumerate(whole):  # Breakout gives five lives
        ended, terminated = (
            sum(int(flag[i]) for flag in flags)
            for flags in zip(*((step.ended, step.terminated) for step in learning[:end]), strict=True)
        )
        assert terminated == 5 * ended


def test_evaluation_mode_plays_full_games_with_unclipped_rewards() -> None:
    learning, plain, evaluating = (
        play(make("qbert", frame_skip=8, **settings), 120)[1]
        for settings in (
            {"life_loss": True, "clip_reward": True},
            {},
            {"life_loss": True, "clip_reward": True, "training": False},
        )
    )
    assert any((step.score > 1).any() for step in plain)
    assert all(torch.equal(step.reward, step.score.sign()) for step in learning)
    assert any((step.terminated & ~step.ended).any() for step in learning)
    for one, other, clipped in zip(plain, evaluating, learning, strict=True):
        assert torch.equal(one.score, clipped.score)
        assert all(torch.equal(a, b) for a, b in zip(one[:7], other[:7], strict=True))


class Wanderer:
    """Acts at random, by the generator of the evaluation."""

    device = torch.device("cpu")

    def act(self, observation: Tensor, *, greedy: bool = False, generator: Any = None) -> Tensor:
        return torch.randint(4, (len(observation),), generator=generator)


def test_evaluation_reports_full_unclipped_games() -> None:
    plain, evaluating = (
        evaluate(Wanderer(), make(frame_skip=8, **settings), episodes=2, greedy=False, seed=3)
        for settings in ({}, {"life_loss": True, "clip_reward": True, "training": False})
    )
    assert plain == evaluating
    env, generator = make(frame_skip=8), torch.Generator().manual_seed(3)
    total, returns, observation = torch.zeros(2), {}, env.begin()
    while len(returns) < 2:
        step = env.advance(Wanderer().act(observation, generator=generator))
        total, observation = total + step.score, step.observation
        for i in step.ended.nonzero().flatten().tolist():
            returns.setdefault(i, total[i].item())
            total[i] = 0
    assert sorted(plain.returns) == sorted(returns.values())


def test_the_stream_depends_on_the_seed_and_not_on_the_threads() -> None:
    def stream(seed: int, **settings: Any) -> list[Tensor]:
        env = make("qbert", seed=seed, noop_max=20, max_frames=200, **settings)
        first, steps = play(env, 60)
        return [first, *(column for step in steps for column in step[:7])]

    one = stream(0)
    for threads in (2, 0):
        assert all(torch.equal(a, b) for a, b in zip(one, stream(0, threads=threads), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, stream(1), strict=True))


def test_every_game_and_every_episode_has_a_different_seed() -> None:
    def paths(env: AtariEnv) -> Tensor:
        """What each game shows when all play the same actions: only the seed tells them apart."""
        env.begin()
        steps = [env.advance(torch.full((env.num_envs,), t % env.n_actions)) for t in range(40)]
        return torch.stack([step.next_observation[:, -1] for step in steps], 1)

    env = make("pong", num_envs=3)
    first, again = paths(env), paths(env)
    assert len(first.unique(dim=0)) == 3
    assert not torch.equal(first, again)
    assert torch.equal(first[:2], paths(make("pong", num_envs=2)))  # independent of the number of games
    other = paths(make("pong", num_envs=2, seed=1))
    assert not any(torch.equal(one, two) for one in first for two in other)
    env.set_seed(0)
    assert torch.equal(paths(env), first)


def test_a_game_begins_with_fewer_idle_frames_than_noop_max() -> None:
    waited = set()
    env = make("pong", num_envs=2, noop_max=3, sticky_actions=0.0)
    starts = {bytes(observation.numpy()) for _ in range(12) for observation in env.begin()}
    for frames in range(3):
        console = ALEInterface()
        console.setFloat("repeat_action_probability", 0.0)
        console.loadROM(roms.get_rom_path("pong"))
        console.reset_game()
        for _ in range(frames):
            console.act(console.getMinimalActionSet()[0])
        waited.add(console.getScreenGrayscale().tobytes())
    assert len(starts) == len(waited)


def test_actions_are_the_minimal_set() -> None:
    for game, number in {"pong": 6, "breakout": 4, "qbert": 6, "freeway": 3, "boxing": 18}.items():
        assert make(game).n_actions == number
    env = make("breakout", num_envs=1)
    env.begin()
    assert env._games.ale.get_action_set() == env_console("breakout").getMinimalActionSet()


def env_console(game: str) -> ALEInterface:
    console = ALEInterface()
    console.loadROM(roms.get_rom_path(game))
    return console


@pytest.mark.parametrize("action", [-1, 4])
def test_an_action_out_of_range_is_refused(action: int) -> None:
    env = make()
    env.begin()
    with pytest.raises(SettingError, match=re.escape("each in [0, 4)")):  # ale-py would wait for ever
        env.advance(torch.tensor([0, action]))
    assert env.advance(torch.tensor([0, 3])).score.shape == (2,)


def test_the_environment_has_the_configured_sizes_and_name() -> None:
    env = make("ms_pacman", frame_stack=3, frame_skip=5)
    assert (env.name, env.frame_skip, env.frame_stack) == ("ms_pacman", 5, 3)
    assert env.observation_shape == (3, 84, 84)
    assert env.observation_dtype == torch.uint8
    assert make(frame_stack=1).begin().shape == (2, 1, 84, 84)


def test_closing_the_environment_releases_the_games() -> None:
    env = make()
    env.begin()
    env.close()
    assert env._games is None


@pytest.mark.slow
def test_every_playable_game_resets_steps_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for game in set(roms.get_all_rom_ids()) - UNPLAYABLE:
        env = make(game, num_envs=1)
        assert not env.begin()[:, :-1].any()  # the newest frame is black in some games
        step = env.advance(torch.tensor([env.n_actions - 1]))
        assert step.next_observation.shape == (1, 4, 84, 84)
        assert env._games.single_action_space.n == env.n_actions
        env.close()
    assert capfd.readouterr() == ("", "")  # no banner


@pytest.mark.parametrize("game", sorted(UNPLAYABLE))
def test_a_rom_without_rules_is_refused(game: str) -> None:
    with pytest.raises(SettingError, match="ale-py ships only the ROM"):
        make(game)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "mspacman"}, "did you mean 'ms_pacman'"),
        ({"game": "zzz"}, "in snake_case$"),
        ({"sticky_actions": 1.0}, r"a probability in \[0, 1\)"),
        ({"frame_skip": 0}, "a whole number, at least 1"),
        ({"frame_stack": 0}, "a whole number, at least 1"),
        ({"frame_stack": 2.5}, "a whole number, at least 1"),
        ({"noop_max": -1}, "a whole number, at least 0"),
        ({"threads": -1}, "a whole number, at least 0"),
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


@pytest.mark.parametrize("found", ["none", "0.10.2", "0.12.0"])
def test_an_old_or_missing_ale_version_is_refused(found: str) -> None:
    with pytest.raises(
        ImportError, match=rf"newer, and here is {re.escape(found)}: pip install 'ale-py>=0.12.1'"
    ):
        _require_ale(found)


@pytest.mark.parametrize("found", ["0.12.1", "0.12.10", "0.13.0", "1.0"])
def test_a_recent_ale_version_is_accepted(found: str) -> None:
    _require_ale(found)
