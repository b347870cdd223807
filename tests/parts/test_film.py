"""The film: the games of an evaluation, moment by moment, and what is drawn and written of them."""

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sqn_rl import (
    MLP,
    AtariEnv,
    AtariRamEnv,
    BoltzmannActor,
    Dense,
    EpsilonGreedyActor,
    FixedTemperature,
    GymEnv,
    LinearHead,
    NoisyDense,
    PolicyActor,
    QNet,
    SettingError,
    evaluate,
)
from sqn_rl.plots import film as filming
from sqn_rl.plots.film import BAR, CHOSEN, FAINT, PANEL, Frames, Kind, Moment, Play, film

ALPHA = 0.5


def cart(seed: int = 4) -> GymEnv:
    return GymEnv(id="CartPole-v1", num_envs=1, seed=seed, training=False)


def network(layer=Dense, observation_shape=(4,), n_actions=2, observation_dtype=torch.float32) -> QNet:
    torch.manual_seed(0)
    return QNet(
        encoder=partial(MLP, hidden=[8]), head=LinearHead, layer=layer, members=2, shared_encoder=False,
        observation_shape=observation_shape, observation_dtype=observation_dtype, n_actions=n_actions,
    )  # fmt: skip


def boltzmann(q_net: QNet) -> BoltzmannActor:
    return BoltzmannActor(q_net=q_net, temperature=FixedTemperature(alpha=ALPHA), policy="min", seed=0)


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("layer", [Dense, partial(NoisyDense, sigma=0.5)], ids=["dense", "noisy"])
def test_the_games_are_those_of_an_evaluation(greedy: bool, layer: Callable) -> None:
    actor = boltzmann(network(layer))
    play = Play(actor, actor.q_net, cart(), episodes=3, greedy=greedy, seed=7)
    moments = list(play)
    assert play.evaluation == evaluate(actor, cart(), episodes=3, greedy=greedy, seed=7)
    ends = [(game, length) for game, length in enumerate(play.evaluation.lengths, 1)]
    assert [(at.episode, at.step) for at in moments] == [(g, step) for g, n in ends for step in range(n)]
    assert all(at.score == at.step for at in moments)  # CartPole gives 1 a step


def test_a_moment_is_what_the_agent_sees_and_thinks_before_it_acts() -> None:
    actor = boltzmann(network())
    moments, seen = list(Play(actor, actor.q_net, cart(), episodes=1, greedy=True, seed=0)), cart()
    seen.show()
    observation = seen.begin()
    for at in moments:
        q_A = actor.q_net.values(observation)[:, 0].amin(0)  # policy="min"
        torch.testing.assert_close(at.q, q_A.detach())
        torch.testing.assert_close(at.pi, (q_A / ALPHA).softmax(-1).detach())
        assert at.action == q_A.argmax()
        np.testing.assert_array_equal(at.screen, seen.screen())
        observation = seen.advance(torch.tensor([at.action])).observation


def test_the_policy_of_an_actor_without_temperature() -> None:
    actor = EpsilonGreedyActor(q_net=network(), policy="q1", start=1.0, end=0.1, over=1.0, steps=10, seed=0)
    actor.anneal(10)
    at = next(iter(Play(actor, actor.q_net, cart(), episodes=1, greedy=False, seed=0)))
    assert at.q.argmax() == at.pi.argmax()
    assert sorted(at.pi.tolist()) == pytest.approx([0.05, 0.95])  # 0.1 / 2, and the rest


def test_values_of_the_q_network_where_the_actor_has_none() -> None:
    q_net = network()
    own = PolicyActor(q_net=q_net, encoder=partial(MLP, hidden=[8]), layer=Dense, n_actions=2, seed=0)
    unknown = SimpleNamespace(device=own.device, act=own.act)
    for actor in (own, unknown):
        at = next(iter(Play(actor, q_net, cart(), episodes=1, greedy=True, seed=0)))
        torch.testing.assert_close(at.q, q_net.values(cart().begin())[0, 0].detach())
    assert at.pi is None
    known = next(iter(Play(own, q_net, cart(), episodes=1, greedy=True, seed=0)))
    torch.testing.assert_close(known.pi, own.log_policy(cart().begin())[0].exp())


def test_a_frame_shows_screen_and_bars() -> None:
    screen = np.random.default_rng(0).integers(0, 255, (21, 30, 3), dtype=np.uint8)
    at = Moment(screen, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.5, 0.5]), 1, 1, 5, 7.0)
    frame = np.asarray(Frames("a title", ["up", "down", "stay"]).draw(at))
    assert frame.shape == (420, 600 + PANEL, 3)  # 21 x 20 pixels high
    np.testing.assert_array_equal(frame[::20, :600:20], screen)

    def bar(row: int, x: int) -> list[int]:
        """How many pixels of a bar are filled, and with what, and how many are not."""
        line = frame[filming.TOP + filming.ROW * row + 5, 600 + filming.EDGE + x :][:51]
        colours = [BAR, CHOSEN, FAINT]
        rgb = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours]
        return [int((line == each).all(-1).sum()) for each in rgb]

    assert [bar(row, filming.Q) for row in range(3)] == [[1, 0, 50], [0, 26, 25], [51, 0, 0]]
    assert [bar(row, filming.PI) for row in range(3)] == [[1, 0, 50], [0, 26, 25], [26, 0, 25]]


def test_all_18_actions_have_a_row_and_sides_are_even() -> None:
    at = Moment(np.zeros((99, 101, 3), np.uint8), torch.zeros(18), None, 0, 1, 0, 0.0)
    frame = Frames("a title", ["UPRIGHTFIRE"] * 18).draw(at)
    assert (frame.width % 2, frame.height % 2) == (0, 0)
    assert frame.height >= filming.TOP + 18 * filming.ROW


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_file_has_a_frame_for_every_step(suffix: str, tmp_path: Path) -> None:
    path, actor = tmp_path / f"game{suffix}", boltzmann(network())
    play = Play(actor, actor.q_net, cart(), episodes=1, greedy=True, seed=0)
    count = film(path, "a title", play)
    assert [count] == play.evaluation.lengths
    if suffix == ".gif":
        with Image.open(path) as file:
            assert (file.n_frames, file.size) == (count, (600 + PANEL, 400))
    else:
        import av

        with av.open(str(path)) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert [frame.shape for frame in frames] == [(400, 600 + PANEL, 3)] * count


ATARI = {
    "game": "pong", "sticky_actions": 0.25, "frame_skip": 4, "clip_reward": True, "life_loss": False,
    "max_frames": 40, "num_envs": 1, "seed": 3, "training": False,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["ram", "pixels"])
def test_an_atari_game_is_filmed_in_colour(kind: str, tmp_path: Path) -> None:
    more = {"frame_stack": 4, "noop_max": 0, "fire_reset": False, "threads": 1}
    env = AtariRamEnv(**ATARI, workers=1) if kind == "ram" else AtariEnv(**ATARI, **more)
    facts = ("observation_shape", "observation_dtype", "n_actions")
    q_net = network(**{fact: getattr(env, fact) for fact in facts})
    play = Play(boltzmann(q_net), q_net, env, episodes=1, greedy=True, seed=0)
    assert film(tmp_path / "game.gif", "a title", play) == 10  # 40 frames
    with Image.open(tmp_path / "game.gif") as file:
        assert file.size == (320 + PANEL, 420)
        assert file.info["duration"] == 60  # 15 decisions a second are 67 ms; a GIF counts in 10
        red, _, blue = file.convert("RGB").getpixel((160, 300))
    assert red > blue + 50  # Pong's ground is brown


def test_a_film_is_bounded_and_the_games_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filming, "kind_of", lambda path: Kind(5, filming._write_gif))
    actor = boltzmann(network())
    play = Play(actor, actor.q_net, cart(), episodes=2, greedy=True, seed=0)
    assert film(tmp_path / "game.gif", "a title", play) == 5
    assert play.evaluation == evaluate(actor, cart(), episodes=2, greedy=True, seed=0)


class Unseen:
    """An environment that shows nothing but what the agent sees."""

    name, frame_stack, action_names, max_steps = "unseen", 1, ["a", "b"], None
    act_options = MappingProxyType({})

    def __init__(self, observation: torch.Tensor, frame_stack: int = 1) -> None:
        self.begin, self.frame_stack = (lambda: observation), frame_stack
        self.show = self.screen = lambda: None


STILL = SimpleNamespace(device=torch.device("cpu"), act=lambda *_, **__: torch.tensor([0]))


def first(observation: torch.Tensor, **more: int) -> Moment:
    q_net = network(observation_shape=observation.shape[1:], observation_dtype=observation.dtype)
    return next(iter(Play(STILL, q_net, Unseen(observation, **more), episodes=1, greedy=True, seed=0)))


def test_what_the_agent_sees_where_there_is_no_screen() -> None:
    stack = torch.arange(2 * 6 * 5, dtype=torch.uint8).view(1, 2, 6, 5)
    np.testing.assert_array_equal(first(stack, frame_stack=2).screen[..., 2], stack[0, 1])
    with pytest.raises(SettingError, match="video = 'unseen': expected an environment that shows a screen"):
        first(torch.zeros(1, 4))


def drawn(picture: Any) -> np.ndarray:
    env = Unseen(torch.zeros(1, 4))
    env.screen = lambda: picture
    moments = iter(Play(STILL, network(), env, episodes=1, greedy=True, seed=0))
    return next(moments).screen


RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize(
    ("picture", "shown"),
    [
        (RGB, RGB),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(np.float64), RGB),  # above 1, so in 0..255
        (RGB / 255, RGB),
        (np.zeros((2, 4, 3)), RGB * 0),
        (RGB > 7, (RGB > 7) * np.uint8(255)),
        ([RGB * 0, RGB], RGB),  # a list of frames: the last
        ((RGB,), RGB),
        (RGB.tolist(), RGB),
        (RGB[..., 0], RGB[..., :1].repeat(3, -1)),
        (RGB[..., :1], RGB[..., :1].repeat(3, -1)),
        (np.concatenate([RGB, RGB[..., :1]], -1), RGB),  # with alpha
    ],
)
def test_what_an_environment_draws_is_shown(picture: Any, shown: np.ndarray) -> None:
    screen = drawn(picture)
    assert screen.dtype == np.uint8
    np.testing.assert_array_equal(screen, shown)
    Frames("a title", ["a", "b"]).draw(Moment(screen, torch.zeros(2), None, 0, 1, 0, 0.0))


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ([], "[0] float64"),
        ("a picture", "'a picture'"),
        (RGB.transpose(2, 1, 0), "[3, 4, 2] uint8"),
        (RGB[:0], "[0, 4, 3] uint8"),
        (RGB + 0j, "[2, 4, 3] complex128"),
        (RGB - 1.0, "numbers from -1.0 to 22.0"),
        (RGB * 12.0, "numbers from 0.0 to 276.0"),
        (RGB * np.nan, "numbers from nan to nan"),
        ([[1, 2], [3]], "[[1, 2], [3]]"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any, said: str) -> None:
    expected = "expected an environment that draws a picture, [H, W, 3] in 0..255 or 0..1; it drew "
    with pytest.raises(SettingError, match=f"^video = 'unseen': {re.escape(expected + said)}$"):
        drawn(picture)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("game.avi", r"ends in .mp4 or .gif"),
        ("no/game.gif", "a folder that exists"),
        ("game.mp4", r"the extra `video`, pip install 'sqn_rl\[video\]'; or a .gif"),
    ],
)
def test_a_file_that_cannot_be(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SettingError, match=message):
        filming.kind_of(tmp_path / name)


def test_what_draws_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    actor = boltzmann(network())
    moments: Callable = iter(Play(actor, actor.q_net, cart(), episodes=1, greedy=True, seed=0)).__next__
    with pytest.raises(SettingError, match=r"its renderer to be installed: pip install 'sqn_rl\[video\]'"):
        moments()
