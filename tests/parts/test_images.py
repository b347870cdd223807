"""Images of Gymnasium environments: layout, frame stacks, storage, and observations given to policies."""

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from reliability.trials import TINY, killed_and_resumed

from sqn_rl import ObservationError, Reporter, SettingError, compose, load
from sqn_rl.errors import RecipeError
from sqn_rl.parts.env.gym import GymEnv
from sqn_rl.parts.env.observations import layout_of

PICTURE = np.random.default_rng(0).integers(256, size=(18, 20, 3), dtype=np.uint8)


class Camera(gymnasium.Env):
    """Images that move by a row a step, in episodes of 9 steps; with channels first or last, or in gray."""

    action_space = spaces.Discrete(2)

    def __init__(self, channels: str = "last") -> None:
        self.channels = channels
        self.observation_space = spaces.Box(0, 255, self.picture(0).shape, np.uint8)

    def picture(self, t: int) -> np.ndarray:
        picture = np.roll(PICTURE, t, axis=0)
        return {"last": picture, "first": picture.transpose(2, 0, 1), "no": picture[..., 0]}[self.channels]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = int(self.np_random.integers(100))
        self.last = self.t + 9
        return self.picture(self.t), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return self.picture(self.t), float(action == self.t % 2), self.t >= self.last, False, {}


gymnasium.register("images/Camera-v0", Camera)
CAMERA = ("env=gym", "env.id=images/Camera-v0", "encoder=cnn")


def camera(channels: str = "last", **settings: Any) -> GymEnv:
    settings = {"num_envs": 2, "seed": 3} | settings
    return GymEnv(id="images/Camera-v0", kwargs={"channels": channels}, **settings)


@pytest.mark.parametrize(
    ("shape", "channels", "inside"),
    [
        ((64, 64, 3), "last", (3, 64, 64)),
        ((3, 64, 64), "first", (3, 64, 64)),
        ((210, 160, 3), "last", (3, 210, 160)),
        ((1, 210, 160), "first", (1, 210, 160)),
        ((8, 8, 16), "last", (16, 8, 8)),  # more channels than rows
        ((16, 8, 8), "first", (16, 8, 8)),
        ((3, 50, 3), "last", (3, 3, 50)),
        ((5, 5, 5), "last", (5, 5, 5)),
        ((84, 84), "no", (84, 84)),
        ((4, 84, 84), "first", (4, 84, 84)),  # gray frames, stacked
        ((4, 84, 84, 3), "last", (4, 3, 84, 84)),
        ((4, 3, 84, 84), "first", (4, 3, 84, 84)),
    ],
)
def test_the_layout_of_an_image_space_is_recognised(
    shape: tuple[int, ...], channels: str, inside: tuple[int, ...]
) -> None:
    layout = layout_of(spaces.Box(0, 255, shape, np.uint8))
    assert layout
    assert (layout.channels, layout.shape) == (channels, inside)
    numbers = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    arranged = layout.arranged(numbers)
    assert arranged.shape == (2, *inside)
    assert np.array_equal(arranged, np.stack([layout.arranged(each)[0] for each in numbers]))
    if channels == "last":
        assert np.array_equal(arranged[..., 1, 2, 3], numbers[..., 2, 3, 1])
    else:
        assert np.array_equal(arranged, numbers)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (64, 64, 3), np.float32),
        spaces.Box(0, 2, (5, 5, 1), np.uint8),  # codes
        spaces.Box(1, 255, (64, 64, 3), np.uint8),
        spaces.Box(0, 255, (128,), np.uint8),
        spaces.Box(0, 255, (2, 2, 64, 64, 3), np.uint8),
        spaces.Box(0, 255, (0, 64, 3), np.uint8),
        spaces.MultiBinary((4, 4)),
        spaces.Dict({"image": spaces.Box(0, 255, (64, 64, 3), np.uint8)}),
    ],
    ids=str,
)
def test_a_space_that_is_not_an_image_has_no_layout(space: spaces.Space) -> None:
    assert layout_of(space) is None


@pytest.mark.parametrize("stack", [1, 3])
def test_an_image_with_channels_first_or_last_is_the_same_input_to_an_encoder(stack: int) -> None:
    last, first = camera("last", frame_stack=stack), camera("first", frame_stack=stack)
    assert last.observation_shape == first.observation_shape == ((3,) * (stack > 1)) + (3, 18, 20)
    assert torch.equal(last.begin(), first.begin())
    for _ in range(12):
        one, other = (env.advance(torch.tensor([0, 1])) for env in (last, first))
        assert torch.equal(one.next_observation, other.next_observation)
    encoder = compose("sqn", *CAMERA, f"env.frame_stack={stack}").recipe.build()["q_net"].encoder
    assert torch.equal(encoder(one.observation), encoder(other.observation))
    outside = torch.from_numpy(PICTURE.copy())
    inside, single = last.batch_of(np.stack([PICTURE] * stack) if stack > 1 else PICTURE)
    assert single
    assert torch.equal(inside[0].reshape(-1, 18, 20)[-3:], outside.permute(2, 0, 1))


def test_a_gray_image_has_one_channel_and_a_stack_one_per_frame() -> None:
    assert camera("no").observation_shape == (1, 18, 20)
    assert torch.equal(camera("no").begin()[:, 0], camera("last").begin()[:, 0])
    assert camera("no", frame_stack=4).observation_shape == (4, 18, 20)


@pytest.mark.parametrize("channels", ["last", "first", "no"])
@pytest.mark.parametrize("stack", [1, 3])
def test_batch_of_converts_raw_observations_to_those_of_the_environment(channels: str, stack: int) -> None:
    env, outside = camera(channels, frame_stack=stack, num_envs=1), Camera(channels)
    if stack > 1:
        outside = FrameStackObservation(outside, stack, padding_type="zero")
    inside, seed = env.begin(), np.random.SeedSequence(3, spawn_key=(0, 0)).generate_state(1)[0] % 2**31
    given, _ = outside.reset(seed=int(seed))
    for _ in range(5):
        one, single = env.batch_of(given)
        both, not_single = env.batch_of(np.stack([given, given]))
        assert (single, not_single) == (True, False)
        assert torch.equal(one, inside)
        assert torch.equal(both, torch.cat([inside, inside]))
        inside, (given, *_) = env.advance(torch.tensor([0])).observation, outside.step(0)


def test_frames_are_stored_once_and_as_bytes() -> None:
    parts = compose("sqn", *CAMERA, "env.frame_stack=4", "num_envs=2", "replay_capacity=100").recipe.build()
    env, replay = parts["env"], parts["replay"]
    now, stored = env.begin(), {}
    for _ in range(40):
        step = env.advance(torch.tensor([0, 1]))
        replay.store(now, torch.tensor([0, 1]), step)
        stored |= {
            row.numpy().tobytes(): after for row, after in zip(now, step.next_observation, strict=True)
        }
        now = step.observation
    batch = replay.draw(64)
    assert batch.observation.dtype == torch.uint8
    assert batch.observation.shape == (64, 4, 3, 18, 20)
    for row, after in zip(batch.observation, batch.next_observation, strict=True):
        assert torch.equal(stored[row.numpy().tobytes()], after)
    assert replay.transition_bytes == (
        3 * 18 * 20,
        3 * 18 * 20 + 23,
    )  # one frame in memory; checkpoints have 23 more bytes


def test_a_run_notes_the_layout_of_images_and_suggests_an_encoder(tmp_path: Path) -> None:
    tiny = (*TINY, "steps=70", "eval_episodes=1", "eval_every=0", "checkpoint_every=0")
    noted: list[str] = []

    class Notes(Reporter):
        def note(self, *notes: str) -> None:
            noted.extend(notes)

    experiment = compose("sqn", *CAMERA, *tiny, f"out={tmp_path / 'run'}")
    experiment.train(reporters=[Notes()])
    line = "observation   uint8 [3, 18, 20], scaled as x/255; outside an image of shape [18, 20, 3]"
    assert f"{line} with last channels" in noted
    assert not [note for note in noted if note.startswith("encoder")]
    compose("sqn", *CAMERA, "encoder=mlp", *tiny, f"out={tmp_path / 'flat'}").train(reporters=[Notes()])
    assert "encoder       mlp, which flattens images; encoder=cnn reads them by convolutions" in noted


@pytest.mark.parametrize("recipe", ["sqn", "sqn_dueling_per", "dqn"])
def test_a_killed_and_resumed_run_on_images_ends_the_same_and_can_be_loaded(
    recipe: str, tmp_path: Path
) -> None:
    settings = (f"recipe={recipe}", *CAMERA, *TINY, "steps=200", "env.frame_stack=2")
    trial = killed_and_resumed(tmp_path, 2, 0, *settings)
    assert (trial.differ, trial.faults) == ([], {})
    policy, env = load(tmp_path / "alone"), FrameStackObservation(Camera(), 2, padding_type="zero")
    observation, _ = env.reset(seed=0)
    assert policy.act(observation) in (0, 1)
    assert policy.act(np.stack([observation] * 3)).shape == (3,)
    by_id, by_class = (policy.evaluate(each, 2, seed=5) for each in ("images/Camera-v0", Camera))
    assert by_id.returns == by_class.returns
    assert len(by_id.returns) == 2


@pytest.mark.parametrize("encoder", ["nature_cnn", "impala_cnn", "cnn"])
def test_images_are_resized_and_grayed_by_wrappers(encoder: str) -> None:
    pytest.importorskip("cv2")
    wrappers = "env.wrappers=[{ResizeObservation: {shape: [36, 40]}}, {GrayscaleObservation: {}}]"
    settings = ("env=gym", "env.id=images/Camera-v0", f"encoder={encoder}", wrappers, "env.frame_stack=4")
    parts = compose("sqn", *settings, *TINY).recipe.build()
    assert parts["env"].observation_shape == (4, 36, 40)
    assert parts["q_net"].values(parts["env"].begin()).shape == (2, 2, 2)


@pytest.mark.parametrize("wrapper", [{"ResizeObservation": {"shape": [9, 10]}}, {"GrayscaleObservation": {}}])
def test_image_wrappers_accept_images_with_channels_first(wrapper: dict[str, Any]) -> None:
    pytest.importorskip("cv2")
    first, last = (camera(channels, wrappers=[wrapper], num_envs=2) for channels in ("first", "last"))
    assert first.observation_shape == last.observation_shape
    assert torch.equal(first.begin(), last.begin())
    for actions in torch.ones(12, 2, dtype=torch.int64):
        assert torch.equal(first.advance(actions).observation, last.advance(actions).observation)


def test_an_image_too_small_for_the_encoder_is_refused_with_both_sizes() -> None:
    with pytest.raises(RecipeError) as refusal:
        compose("sqn", *CAMERA, "encoder=nature_cnn").preflight()
    assert "NatureCNN reads images [C, H, W] of at least 36x36" in refusal.value.message
    assert "observations here are [3, 18, 20]" in refusal.value.message
    compose("sqn", *CAMERA, "encoder.kernels=[3, 3, 3]", *TINY).preflight()


@pytest.mark.parametrize("stack", [0, -1, 1.5, "2"])
def test_an_invalid_frame_stack_is_refused(stack: Any) -> None:
    with pytest.raises(SettingError, match="frame_stack"):
        camera(frame_stack=stack)


def test_an_unstacked_observation_is_refused_with_the_wrapper_that_stacks() -> None:
    wrappers = [{"TimeLimit": {"max_episode_steps": 9}}]
    env = GymEnv(id="CartPole-v1", frame_stack=4, wrappers=wrappers, num_envs=1, seed=0)
    stacked = 'CartPole-v1 in TimeLimit, FrameStackObservation(env, 4, padding_type="zero")'
    with pytest.raises(ObservationError, match=re.escape(f"give it the observations of {stacked}") + "$"):
        env.batch_of(np.zeros(4))


def test_frame_stacking_of_a_space_that_is_not_a_box_is_refused() -> None:
    with pytest.raises(SettingError, match=re.escape("observations are Discrete(16) and no Box")):
        GymEnv(id="FrozenLake-v1", frame_stack=2, num_envs=1, seed=0)
