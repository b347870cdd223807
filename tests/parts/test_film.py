"""The film: the games of an evaluation, step by step, and how they are drawn and written to a file."""

import os
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
from sqn_rl.errors import to_install
from sqn_rl.plots import film as filming
from sqn_rl.plots import frames as drawing
from sqn_rl.plots.film import Kind, Play, film
from sqn_rl.plots.frames import DARK, EDGE, HEADER, LIGHT, ROW, WIDTH, Frames, Moment

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
def test_a_film_plays_the_games_of_an_evaluation(greedy: bool, layer: Callable) -> None:
    actor = boltzmann(network(layer))
    play = Play(actor, actor.q_net, cart(), episodes=3, greedy=greedy, seed=7)
    moments = list(play)
    assert play.evaluation == evaluate(actor, cart(), episodes=3, greedy=greedy, seed=7)
    ends = [(game, length) for game, length in enumerate(play.evaluation.lengths, 1)]
    assert [(at.episode, at.step) for at in moments] == [(g, step) for g, n in ends for step in range(n)]
    assert all(at.score == at.step for at in moments)  # CartPole gives 1 a step


def test_a_moment_has_the_screen_q_policy_and_action_of_its_step() -> None:
    actor = boltzmann(network())
    moments, seen = list(Play(actor, actor.q_net, cart(), episodes=1, greedy=True, seed=0)), cart()
    seen.show()
    observation = seen.begin()
    for at in moments:
        q_A = actor.q_net.values(observation)[:, 0].amin(0)  # policy="min"
        torch.testing.assert_close(at.q, q_A.detach())
        torch.testing.assert_close(at.pi, (q_A / ALPHA).softmax(-1).detach())
        assert at.alpha == ALPHA
        assert at.action == q_A.argmax()
        np.testing.assert_array_equal(at.screen, seen.screen())
        observation = seen.advance(torch.tensor([at.action])).observation


def test_a_moment_of_an_epsilon_greedy_actor_has_its_epsilon_greedy_policy() -> None:
    actor = EpsilonGreedyActor(q_net=network(), policy="q1", start=1.0, end=0.1, over=1.0, steps=10, seed=0)
    actor.anneal(10)
    at = next(iter(Play(actor, actor.q_net, cart(), episodes=1, greedy=False, seed=0)))
    assert at.q.argmax() == at.pi.argmax()
    assert sorted(at.pi.tolist()) == pytest.approx([0.05, 0.95])  # 0.1 / 2 and 1 - 0.1 / 2


def test_a_moment_has_the_q_networks_values_if_the_actor_has_no_q_values() -> None:
    q_net = network()
    own = PolicyActor(q_net=q_net, encoder=partial(MLP, hidden=[8]), layer=Dense, n_actions=2, seed=0)
    unknown = SimpleNamespace(device=own.device, act=own.act)
    for actor in (own, unknown):
        at = next(iter(Play(actor, q_net, cart(), episodes=1, greedy=True, seed=0)))
        torch.testing.assert_close(at.q, q_net.values(cart().begin())[0, 0].detach())
    assert at.pi is None
    known = next(iter(Play(own, q_net, cart(), episodes=1, greedy=True, seed=0)))
    torch.testing.assert_close(known.pi, own.log_policy(cart().begin())[0].exp())


SCREEN = np.random.default_rng(0).integers(0, 255, (21, 30, 3), dtype=np.uint8)
NAMES = ["up", "down", "stay"]


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def a_moment(q: list[float], pi: list[float] | None = None, **more: Any) -> Moment:
    return Moment(SCREEN, torch.tensor(q), None if pi is None else torch.tensor(pi), 1, 1, 5, 7.0, **more)


def rows_of(frame: np.ndarray, column: tuple[int, int], count: int) -> list[np.ndarray]:
    """The pixels of one column in each action's row; the rows begin below the screen and the header."""
    left, right = column
    return [frame[21 * 16 + HEADER + ROW * row :][:ROW, left : right + 1] for row in range(count)]


def bars(frame: np.ndarray, column: tuple[int, int], count: int) -> list[tuple[int, int, int]]:
    """For each row's bar: its pixels left and right of the column's middle, and 1 if the action is chosen."""
    found = []
    for row in rows_of(frame, column, count):
        line, middle = row[10], (column[1] - column[0]) // 2
        filled = [(line == rgb(colour)).all(-1) for colour in (LIGHT.bar, LIGHT.chosen)]
        which = int(filled[1].any())
        found.append((int(filled[which][:middle].sum()), int(filled[which][middle + 1 :].sum()), which))
    return found


def test_a_frame_shows_the_screen_and_below_it_differences_of_q_from_their_mean() -> None:
    """Q is 1, 2, 6: minus the mean, −2, −1, 3. The scale is 5, for which a bar has 60 pixels."""
    frames = Frames("a title", NAMES)
    frame = np.asarray(frames.draw(a_moment([1.0, 2.0, 6.0], [0.0, 0.5, 0.5])))
    assert frame.shape == (21 * 16 + HEADER + 3 * ROW + EDGE, WIDTH, 3)
    np.testing.assert_array_equal(frame[: 21 * 16 : 16, ::16], SCREEN)
    assert bars(frame, drawing.Q, 3) == [(24, 0, 0), (12, 0, 1), (0, 36, 0)]
    assert [sum(bar[:2]) for bar in bars(frame, drawing.PI, 3)] == [1, 40, 40]
    smaller = np.asarray(frames.draw(a_moment([11.0, 12.0, 16.0])))  # the mean is not in the bars
    np.testing.assert_array_equal(rows_of(smaller, drawing.Q, 3), rows_of(frame, drawing.Q, 3))


def test_a_dark_frame_is_the_same_in_other_colours() -> None:
    moment = a_moment([1.0, 2.0, 6.0], [0.0, 0.5, 0.5])
    light, dark = (np.asarray(Frames("a title", NAMES, each).draw(moment)) for each in (LIGHT, DARK))
    for ours, theirs in zip(LIGHT, DARK, strict=True):
        there = (light == rgb(ours)).all(-1)
        assert there.any()
        np.testing.assert_array_equal((dark == rgb(theirs)).all(-1), there)


@pytest.mark.parametrize(
    ("largest", "scale"),
    [(0.0, 1), (1.0, 1), (1.01, 2), (2.1, 5), (5.0, 5), (7.0, 10), (0.013, 0.02), (2e5, 2e5)],
)
def test_the_scale_of_the_q_bars_is_round_and_never_shrinks(largest: float, scale: float) -> None:
    frames = Frames("a title", NAMES)
    frames.draw(a_moment([8 + largest, 8 - largest, 8.0]))
    assert frames._scale == pytest.approx(scale)
    frames.draw(a_moment([8 + largest / 9, 8.0, 8.0]))
    assert frames._scale == pytest.approx(scale)
    frames.draw(a_moment([8 + 100 * scale, 8 - 100 * scale, 8.0], allowed=torch.tensor([False, False, True])))
    assert frames._scale == pytest.approx(scale)  # only allowed actions count
    frames.draw(a_moment([8 + 100 * scale, 8 - 100 * scale, 8.0]))
    assert frames._scale == pytest.approx(100 * scale)


def written(moment: Moment, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts, write = [], Frames._write
    monkeypatch.setattr(
        Frames, "_write", lambda *given, **more: texts.append(given[4]) or write(*given, **more)
    )
    Frames("a title", NAMES).draw(moment)
    return texts


def test_temperature_and_entropy_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two actions of 3 with ½ each: ln 2 of at most ln 3; of at most ln 2, if the third is not allowed."""
    pi = [0.5, 0.5, 0.0]
    assert "mean Q 2   α 0.25   entropy 0.69 of 1.10 nats" in written(
        a_moment([1, 2, 3], pi, alpha=0.25), monkeypatch
    )
    allowed = torch.tensor([True, True, False])
    texts = written(a_moment([1.0, 2.0, 99.0], pi, allowed=allowed), monkeypatch)
    assert "mean Q 1.5   entropy 0.69 of 0.69 nats" in texts
    assert texts.count("not allowed") == 1
    texts = written(a_moment([1.0, 2.0, 3.0]), monkeypatch)
    assert "mean Q 2" in texts
    assert not any("π" in text or "entropy" in text for text in texts)


LARGE = [
    [123456.789, -98765.4321, 1e-9],
    [-1.23456e30, 1.23456e30, 0],
    [1e-30, -1.23456e-30, 0],
    [0.0, 0.0, 0.0],
]


@pytest.mark.parametrize("q", LARGE)
def test_the_columns_of_a_frame_do_not_overlap(q: list[float]) -> None:
    """Between the columns, and at the edges, is nothing but the page, whatever the numbers and names."""
    names = ["UPRIGHTFIRE" * 9, "W" * 300, "Ж漢字" * 50]
    moment = a_moment(q, [1.0, 0.0, 1e-9], alpha=1e-9)._replace(
        score=-1.234567e-300, step=10**9, episode=10**9
    )
    frame = np.asarray(Frames("sqn head=dueling replay=prioritized " * 9, names).draw(moment))
    columns = [drawing.NAME, drawing.Q, drawing.Q_TEXT, drawing.PI, drawing.PI_TEXT]
    below = frame[21 * 16 + HEADER :]
    for (_, left), (right, _) in zip([(0, 0), *columns], [*columns, (WIDTH, 0)], strict=True):
        assert right - left >= 4
        assert (below[:, left + 1 : right - 1] == 255).all(), (left, right)
    assert (frame[21 * 16 :, : EDGE - 1] == 255).all()
    assert (frame[21 * 16 :, WIDTH - EDGE + 1 :] == 255).all()


@pytest.mark.parametrize(
    "shape", [(400, 600), (210, 160), (10, 10), (84, 84), (1000, 1000), (50, 2000), (2000, 3)]
)
@pytest.mark.parametrize("actions", [2, 18, 100])
def test_a_frame_has_a_fixed_width_an_even_height_and_a_filled_screen(
    shape: tuple[int, int], actions: int
) -> None:
    """All frames are as wide as text can be read on a phone; the screen fills a side, and rows the rest."""
    at = Moment(np.full((*shape, 3), 255, np.uint8), torch.zeros(actions), None, 0, 1, 0, 0.0)
    frame = Frames("a title", ["UPRIGHTFIRE"] * actions).draw(at)
    screen = frame.height - HEADER - ROW * min(actions, drawing.MOST_ROWS) - EDGE
    assert (frame.width, frame.height % 2) == (480, 0)
    assert 0 < screen <= drawing.SCREEN + 1
    picture = (np.asarray(frame)[screen // 2] == 255).all(-1).sum()
    assert picture >= WIDTH / 2 or shape[1] < shape[0] / 2  # no half of it is empty


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_file_has_a_frame_for_every_step(suffix: str, tmp_path: Path) -> None:
    path, actor = tmp_path / f"game{suffix}", boltzmann(network())
    play = Play(actor, actor.q_net, cart(), episodes=1, greedy=True, seed=0)
    count = film(path, "a title", play)
    assert [count] == play.evaluation.lengths
    if suffix == ".gif":
        with Image.open(path) as file:
            assert (file.n_frames, file.size) == (count, (WIDTH, 320 + HEADER + 2 * ROW + EDGE))
    else:
        import av

        with av.open(str(path)) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert [frame.shape for frame in frames] == [(320 + HEADER + 2 * ROW + EDGE, WIDTH, 3)] * count


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
        assert file.size == (WIDTH, 420 + HEADER + 6 * ROW + EDGE)
        assert file.info["duration"] == 60  # 15 decisions a second are 67 ms; a GIF counts in 10
        red, _, blue = file.convert("RGB").getpixel((WIDTH // 2, 300))
    assert red > blue + 50  # Pong's ground is brown


def test_a_film_ends_at_its_frame_limit_and_the_evaluation_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filming, "kind_of", lambda path: Kind(5, filming._write_gif))
    actor = boltzmann(network())
    play = Play(actor, actor.q_net, cart(), episodes=2, greedy=True, seed=0)
    assert film(tmp_path / "game.gif", "a title", play) == 5
    assert play.evaluation == evaluate(actor, cart(), episodes=2, greedy=True, seed=0)


def test_steps_beyond_the_film_are_not_drawn(tmp_path: Path) -> None:
    env, actor, drawn = cart(), boltzmann(network()), []
    screen = env.screen
    env.screen = lambda: drawn.append(1) or screen()  # type: ignore[method-assign]
    play = Play(actor, actor.q_net, env, episodes=3, greedy=True, seed=0)
    for _ in range(4):
        next(iter(play))
    play.finish()
    assert len(drawn) == 4
    assert len(play.evaluation.returns) == 3


def test_a_film_is_never_longer_than_its_file_format_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filming, "kind_of", lambda path: Kind(5, filming._write_gif))
    actor = boltzmann(network())
    play = Play(actor, actor.q_net, cart(), episodes=1, greedy=True, seed=0)
    assert film(tmp_path / "game.gif", "a title", play, longest=100) == 5


def test_no_window_restores_the_sdl_video_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "SDL_VIDEODRIVER"
    for own in (None, "x11"):
        monkeypatch.delenv(name, raising=False) if own is None else monkeypatch.setenv(name, own)
        with filming.no_window():
            assert os.environ[name] == (own or "dummy")
        assert os.environ.get(name) == own


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


def test_without_a_screen_a_film_shows_image_observations_or_is_refused() -> None:
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
def test_a_rendered_picture_of_any_format_is_shown_as_rgb_bytes(picture: Any, shown: np.ndarray) -> None:
    screen = drawn(picture)
    assert screen.dtype == np.uint8
    np.testing.assert_array_equal(screen, shown)
    Frames("a title", ["a", "b"]).draw(Moment(screen, torch.zeros(2), None, 0, 1, 0, 0.0))


@pytest.mark.parametrize(
    ("picture", "problem"),
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
def test_an_invalid_picture_is_refused_with_what_was_drawn(picture: Any, problem: str) -> None:
    expected = "expected an environment that draws a picture, [H, W, 3] in 0..255 or 0..1; it drew "
    with pytest.raises(SettingError, match=f"^video = 'unseen': {re.escape(expected + problem)}$"):
        drawn(picture)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("game.avi", r"ends in .mp4 or .gif"),
        ("no/game.gif", "a folder that exists"),
        ("game.mp4", re.escape(f"the extra `video`, {to_install('video')}; or a .gif")),
    ],
)
def test_a_film_file_that_cannot_be_written_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SettingError, match=message):
        filming.kind_of(tmp_path / name)


def test_a_missing_renderer_is_refused_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    actor = boltzmann(network())
    moments: Callable = iter(Play(actor, actor.q_net, cart(), episodes=1, greedy=True, seed=0)).__next__
    with pytest.raises(SettingError, match=re.escape(f"its renderer to be installed: {to_install('video')}")):
        moments()
