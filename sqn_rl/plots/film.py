"""A video of the agent playing full episodes, as :func:`sqn_rl.evaluate` does.

Legend: A actions; a picture is ``[H, W, 3]`` uint8.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sqn_rl.disk import require_replaceable, save
from sqn_rl.errors import SettingError, require, require_whole, to_install
from sqn_rl.parts.actor.base import NetworkActor, apply_user_mask
from sqn_rl.parts.actor.greedy import value_actor
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.env.checks import describe
from sqn_rl.plots.frames import DARK, LIGHT, Frames, Moment
from sqn_rl.protocols import Actor, QNetwork, submodule
from sqn_rl.training.evaluation import Evaluation, step_limit
from sqn_rl.training.player import Player
from sqn_rl.training.random_state import GLOBAL_SEED_OFFSET, RandomState


class Play:
    """Plays full episodes as :func:`sqn_rl.evaluate` does, and yields every step.

    Args:
        actor: selects the actions.
        q_net: its values are shown if the actor has none of its own.
        env: one environment, made with ``training=False``; it is set to render, and reset.
        episodes: the number of episodes.
        greedy: take the best action instead of sampling.
        seed: the seed of the sampling generator.
        max_steps: as for :func:`sqn_rl.evaluate`.
    """

    def __init__(
        self,
        actor: Actor,
        q_net: QNetwork,
        env: BatchedEnv,
        *,
        episodes: int,
        greedy: bool,
        seed: int,
        max_steps: int = 0,
    ) -> None:
        self.env, self._actor, self._episodes, self._greedy, self._seed = env, actor, episodes, greedy, seed
        self._max_steps = max_steps
        self._value_actor = value_actor(actor, q_net)
        self.evaluation, self._moments = Evaluation([], [], greedy), self._play()
        self._is_filmed = True

    def __iter__(self) -> Iterator[Moment]:
        """The remaining steps; ``evaluation`` collects the returns."""
        return self._moments

    def finish(self) -> None:
        """Play the remaining steps, without drawing them."""
        self._is_filmed = False
        deque(self, maxlen=0)

    def _play(self) -> Iterator[Moment]:
        """Play the episodes, and yield each step that is filmed before its action is executed."""
        actor, env, result = self._actor, self.env, self.evaluation
        generator = torch.Generator(device=actor.device).manual_seed(self._seed)
        random_state = RandomState(GLOBAL_SEED_OFFSET + self._seed, actor.device)
        player = Player(actor, 1)
        env.show()
        limit = step_limit(env, self._max_steps)
        with random_state:
            observation, step, score = env.begin(), 0, 0.0
        while len(result.returns) < self._episodes:
            options = env.act_options
            with random_state:
                action = player.act(observation, greedy=self._greedy, generator=generator, **options)
            if self._is_filmed:
                mask = options.get("action_mask")
                yield self._moment(player, observation, mask, int(action), step, score)
            with random_state:
                env.send(action)
                answer = env.receive()
            player.record(action, answer)
            observation, step, score = answer.observation, step + 1, score + answer.score.item()
            if answer.ended or step >= limit:
                result.returns.append(score)
                result.lengths.append(step)
                result.cut.append(not answer.ended)
                if not answer.ended:
                    player.begin()
                with random_state:
                    observation = observation if answer.ended else env.begin()
                step, score = 0, 0.0

    def _moment(
        self, player: Player, observation: Tensor, mask: Tensor | None, action: int, step: int, score: float
    ) -> Moment:
        score_BA = player.scores(observation)
        return Moment(
            screen=_screen(self.env, observation),
            q=self._values(observation) if score_BA is None else score_BA[0],
            pi=_policy(self._actor, observation, mask, score_BA),
            action=action,
            episode=len(self.evaluation.returns) + 1,
            step=step,
            score=score,
            allowed=None if mask is None else mask[0],
            alpha=_temperature(self._actor),
        )

    @torch.no_grad()
    def _values(self, observation: Tensor) -> Tensor:
        return self._value_actor.mean_scores(observation)[0]


@torch.no_grad()
def _policy(
    actor: Actor, observation: Tensor, action_mask: Tensor | None, score_BA: Tensor | None
) -> Tensor | None:
    """The policy π(·|s) of the mean weights, ``[A]``, from the scores if they are known."""
    if not isinstance(actor, NetworkActor):
        return None
    score_BA = actor.mean_scores(observation) if score_BA is None else score_BA
    return actor.probabilities(score_BA if action_mask is None else apply_user_mask(score_BA, action_mask))[0]


def _temperature(actor: Actor) -> float | None:
    temperature: Any = submodule(actor, "temperature")
    return None if temperature is None else float(temperature.alpha)


def _screen(env: BatchedEnv, observation: Tensor) -> np.ndarray:
    """The screen, or without one the newest frame that the agent sees."""
    screen = env.screen()
    if screen is None:
        frame = observation[0, -1] if env.frame_stack > 1 else observation[0]
        is_gray_image = frame.dim() == 2 and frame.dtype == torch.uint8
        require(is_gray_image, "video", env.name, "an environment that shows a screen; this one has none")
        screen = frame.numpy()
    return _picture(screen, env.name)


def _picture(screen: Any, name: str) -> np.ndarray:
    """Convert what an environment draws to ``[H, W, 3]`` uint8.

    Of a list of pictures, the last one is taken. Gray pictures get three channels; an alpha channel is left
    out. Floats are in 0..1, as in Matplotlib, or in 0..255 if one is above 1.

    Args:
        screen: what the environment drew.
        name: the name of the environment.

    Raises:
        SettingError: it is no picture.
    """
    expected = "an environment that draws a picture, [H, W, 3] in 0..255 or 0..1; it drew "
    is_list = isinstance(screen, list | tuple) and screen and isinstance(screen[-1], np.ndarray)
    try:
        pixels = np.asarray(screen[-1] if is_list else screen)
    except ValueError:  # rows of different lengths
        pixels = np.array(None)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    is_numeric = pixels.dtype.kind in "biuf"
    is_image = is_numeric and pixels.ndim == 3 and pixels.size > 0 and pixels.shape[-1] in (1, 3, 4)
    require(is_image, "video", name, expected + describe(pixels if is_numeric else screen))
    low, high = pixels.min(), pixels.max()
    require(low >= 0 and high <= 255, "video", name, f"{expected}numbers from {low} to {high}")  # not NaN
    if pixels.dtype.kind == "b" or (pixels.dtype.kind == "f" and high <= 1):
        pixels = pixels * 255.0
    colours = pixels[..., :3] if pixels.shape[-1] > 1 else pixels.repeat(3, -1)
    return np.ascontiguousarray(colours.round() if colours.dtype.kind == "f" else colours, np.uint8)


@contextmanager
def no_window() -> Iterator[None]:
    """A context in which Gymnasium's environments draw in memory, unless the user chose otherwise."""
    name = "SDL_VIDEODRIVER"
    is_set = name in os.environ
    os.environ.setdefault(name, "dummy")
    try:
        yield
    finally:
        if not is_set:
            os.environ.pop(name, None)


# --- a file -----------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of video file."""

    longest: int
    """The most frames of a film. A GIF is made in memory, with up to 400 kB per frame."""
    write: Callable[[BinaryIO, Iterable[Any], float], int]
    """Writes frames, at a number per second, and returns how many they were."""


def kind_of(path: Path) -> Kind:
    """The kind of file that a path asks for.

    Raises:
        SettingError: it ends in neither ``.gif`` nor ``.mp4``, or its folder or the extra is missing.
        OSError: there is a link, a folder or a device of that name.
    """
    kinds = {".gif": Kind(900, _write_gif), ".mp4": Kind(9000, _write_mp4)}
    require(path.suffix in kinds, "video", str(path), "a file name that ends in .mp4 or .gif")
    require(path.parent.is_dir(), "video", str(path), "a file in a folder that exists")
    require_replaceable(path)
    if path.suffix == ".mp4" and find_spec("av") is None:
        hint = f"the extra `video`, {to_install('video')}; or a .gif"
        raise SettingError("video", str(path), hint)
    return kinds[path.suffix]


def _write_gif(file: BinaryIO, frames: Iterable[Any], per_second: float) -> int:
    from PIL.Image import Dither, Quantize

    first, *rest = (frame.quantize(64, Quantize.FASTOCTREE, dither=Dither.NONE) for frame in frames)
    timing = {"duration": round(1000 / per_second), "loop": 0}
    first.save(file, format="gif", save_all=True, append_images=rest, **timing)
    return 1 + len(rest)


def _write_mp4(file: BinaryIO, frames: Iterable[Any], per_second: float) -> int:
    import av

    count = 0
    with av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=round(per_second))
        stream.pix_fmt = "yuv420p"  # every player supports it
        for count, frame in enumerate(frames, 1):
            if count == 1:
                stream.width, stream.height = frame.size
            video.mux(stream.encode(av.VideoFrame.from_image(frame)))
        video.mux(stream.encode())
    return count


def film(path: Path, title: str, play: Play, longest: int | None = None, *, dark: bool = False) -> int:
    """Record episodes, up to the most frames of the kind of file, and play the rest unrecorded.

    Args:
        path: the file to write.
        title: the first line of every picture.
        play: the episodes.
        longest: the most frames to film, if fewer; then the rest is not played.
        dark: draw for a dark background.

    Returns:
        The number of frames, one per step.

    Raises:
        SettingError: see :func:`kind_of`; or there is nothing to see, or ``longest`` is below 1.
        OSError: the file cannot be written.
    """
    require_whole("longest", longest, 1, or_null=True)
    kind, env = kind_of(path), play.env
    draw = Frames(title, env.action_names, DARK if dark else LIGHT).draw
    frames = map(draw, islice(play, kind.longest if longest is None else min(longest, kind.longest)))
    count = kind.write(file := BytesIO(), frames, 30 if env.frame_skip == 1 else 60 / env.frame_skip)
    save(path, file.getvalue())
    if longest is None:
        play.finish()
    return count
