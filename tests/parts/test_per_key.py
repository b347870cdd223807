"""Dict observations: the columns of their entries, and an encoder for each entry."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from reliability.trials import TINY, killed_and_resumed

from sqn_rl import CNN, MLP, Dense, PerKeyEncoder, SettingError, WiringError, load
from sqn_rl.parts.env.gym import GymEnv
from sqn_rl.parts.env.observations import entries_of, flatten

SPACE = spaces.Dict(
    {
        "arm": spaces.Tuple([spaces.Discrete(3), spaces.Box(-50, 50, (2, 2), np.float32)]),
        "camera": spaces.Box(0, 255, (9, 12, 3), np.uint8),
        "depth": spaces.Dict({"left": spaces.Box(0, 255, (8, 10), np.uint8), "on": spaces.MultiBinary(2)}),
        "first": spaces.Box(0, 255, (3, 9, 9), np.uint8),
        "stack": spaces.Box(0, 255, (2, 7, 8, 3), np.uint8),
    }
)


class Robot(gymnasium.Env):
    """Random observations of every kind of space, in episodes of 9 steps."""

    observation_space, action_space = SPACE, spaces.Discrete(3)

    def observe(self) -> Any:
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(99)))
        self.steps = 0
        return self.observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        return self.observe(), float(action), self.steps == 9, False, {}


gymnasium.register("per_key/Robot-v0", Robot)
ROBOT = ("env=gym", "env.id=per_key/Robot-v0")
SIZES: dict[str, Any] = {"units": 5, "channels": [3], "kernels": [3], "strides": [2], "hidden": [7]}
layer = partial(Dense, members=1)


def batch() -> tuple[list[Any], torch.Tensor]:
    SPACE.seed(0)
    answers = [SPACE.sample() for _ in range(4)]
    return answers, torch.tensor(np.array([flatten(SPACE, each) for each in answers]), dtype=torch.float32)


def test_every_entry_is_read_from_its_columns() -> None:
    answers, flat = batch()
    entries = {entry.name: entry for entry in entries_of(SPACE)}
    assert {*entries} == {"arm.0", "arm.1", "camera", "depth.left", "depth.on", "first", "stack"}
    for row, answer in enumerate(answers):
        one_hot = np.eye(3)[answer["arm"][0]]
        expected = {
            "arm.0": one_hot,
            "arm.1": answer["arm"][1].ravel(),
            "camera": answer["camera"].transpose(2, 0, 1) / 255,
            "depth.left": answer["depth"]["left"][None] / 255,
            "depth.on": answer["depth"]["on"],
            "first": answer["first"] / 255,
            "stack": answer["stack"].transpose(0, 3, 1, 2) / 255,
        }
        for name, numbers in expected.items():
            own = entries[name].of(flat)[row]
            np.testing.assert_allclose(own, numbers, atol=1e-6)
            assert entries[name].shape == numbers.shape


def test_entries_of_bytes_only_stay_bytes() -> None:
    space = spaces.Dict({"a": SPACE["camera"], "b": SPACE["first"]})
    answer = space.sample()
    flat = torch.from_numpy(flatten(space, answer))[None]
    assert flat.dtype == torch.uint8
    a, b = (entry.of(flat)[0] for entry in entries_of(space))
    assert torch.equal(a, torch.from_numpy(answer["a"]).permute(2, 0, 1))
    assert torch.equal(b, torch.from_numpy(answer["b"]))


@pytest.mark.parametrize("space", [SPACE["camera"], SPACE["depth"]["on"]])
def test_a_space_that_is_not_a_dict_has_no_entries(space: spaces.Space) -> None:
    assert entries_of(space) == []


def test_the_per_key_encoder_has_one_encoder_for_each_entry() -> None:
    _, flat = batch()
    env = GymEnv(id="per_key/Robot-v0", num_envs=1, seed=0)
    entries, scaling = env.observation_entries, env.observation_scaling
    encoder = PerKeyEncoder(
        **SIZES,
        observation_shape=env.observation_shape,
        observation_entries=entries,
        observation_scaling=scaling,
        layer=layer,
    )
    kinds = [type(each) for each in encoder.encoders]
    assert kinds == [MLP, MLP, CNN, CNN, MLP, CNN, CNN]
    features = [each(entry.of(flat)) for each, entry in zip(encoder.encoders, entries, strict=True)]
    (last,) = encoder.layers
    torch.testing.assert_close(encoder(flat), last(torch.cat(features, -1)).relu())
    assert encoder.out_features == 7
    scaled = flat[:, entries[1].columns] / 50  # bounds within a byte, but too wide to stay unscaled
    (first,) = encoder.encoders[1].layers
    torch.testing.assert_close(features[1], first(scaled).relu())


def test_a_plain_vector_or_image_is_encoded_as_a_single_entry() -> None:
    image, numbers = torch.randint(0, 256, (4, 3, 9, 9), dtype=torch.uint8), torch.randn(4, 6)
    of_image = PerKeyEncoder(**SIZES, observation_shape=(3, 9, 9), layer=layer)
    of_numbers = PerKeyEncoder(**SIZES, observation_shape=(6,), layer=layer)
    for encoder, x, kind in ((of_image, image, CNN), (of_numbers, numbers, MLP)):
        (own,) = encoder.encoders
        assert type(own) is kind
        torch.testing.assert_close(encoder(x), encoder.layers[0](own(x)).relu())


def test_without_hidden_layers_the_output_has_the_width_of_the_features() -> None:
    encoder = PerKeyEncoder(**SIZES | {"hidden": []}, observation_shape=(6,), layer=layer)
    assert (encoder.out_features, encoder(torch.randn(4, 6)).shape) == (5, (1, 4, 5))


@pytest.mark.parametrize(
    ("field", "value"), [("units", 0), ("units", "5"), ("hidden", [0]), ("channels", []), ("strides", [1, 1])]
)
def test_an_invalid_size_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(SettingError) as refusal:
        PerKeyEncoder(**SIZES | {field: value}, observation_shape=(3, 9, 9), layer=layer)
    assert refusal.value.field == field


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(WiringError, match=r"at least 3x3.*observations here are \[3, 2, 2\]"):
        PerKeyEncoder(**SIZES, observation_shape=(3, 2, 2), layer=layer)


@pytest.mark.parametrize("q_net", ["twin", "twin_shared"])
def test_a_killed_and_resumed_run_on_a_dict_space_ends_the_same_and_can_be_loaded(
    q_net: str, tmp_path: Path
) -> None:
    settings = (*ROBOT, *TINY, "recipe=sqn", "encoder=per_key", f"q_net={q_net}", "steps=200")
    trial = killed_and_resumed(tmp_path, 1, 0, *settings)
    assert (trial.differ, trial.faults) == ([], {})
    policy, (answers, flat) = load(tmp_path / "alone"), batch()
    np.testing.assert_array_equal(policy.q_values(flat), policy.q_values(answers))
    np.testing.assert_allclose(policy.q_values(answers[0]), policy.q_values(answers)[0], rtol=1e-5)


@pytest.mark.parametrize("encoder", ["mlp", "per_key"])
def test_a_run_prints_the_entries_that_it_reads_or_suggests_the_per_key_encoder(
    encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from sqn_rl.cli.run import main

    settings = [*ROBOT, *TINY, f"encoder={encoder}", "steps=70", "eval_episodes=1", f"out={tmp_path}/run"]
    assert main(settings) == 0
    printed = capsys.readouterr().out
    entries = "arm.0[3], arm.1[4], camera[3, 9, 12], depth.left[1, 8, 10], depth.on[2], first[3, 9, 9]"
    assert (entries in printed) == (encoder == "per_key")
    suggestion = "encoder       mlp, which flattens images; encoder=per_key reads them by convolutions"
    assert (suggestion in printed) == (encoder == "mlp")
