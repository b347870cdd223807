"""The screen of an environment, and the names of its actions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sqn_rl import AtariEnv, AtariRamEnv, GymEnv

ATARI = {
    "game": "pong", "sticky_actions": 0.25, "frame_skip": 4, "clip_reward": True, "life_loss": False,
    "max_frames": 400, "num_envs": 2, "seed": 3, "training": False,
}  # fmt: skip
PIXELS = ATARI | {"frame_stack": 4, "noop_max": 30, "fire_reset": True, "threads": 1}
RIGHT, LEFT = 2, 3


def play(env, steps: int) -> Tensor:
    """The observations under random actions, ``[steps + 1, N, *S]``; the actions are the same each time."""
    actions = torch.randint(env.n_actions, (steps, env.num_envs), generator=torch.Generator().manual_seed(0))
    return torch.stack([env.begin(), *(env.advance(action).observation for action in actions)])


def test_an_atari_screen_is_in_colour_and_showing_it_does_not_change_the_games() -> None:
    seen, unseen = AtariEnv(**PIXELS), AtariEnv(**PIXELS)
    seen.show()
    observations = play(seen, 150)  # beyond the first games, which are cut at 100 steps
    assert torch.equal(observations, play(unseen, 150))
    screen = seen.screen()
    assert (screen.shape, screen.dtype, unseen.screen()) == ((210, 160, 3), np.uint8, None)
    newest = observations[-1, 0, -1].double()
    small = torch.from_numpy(screen.mean(-1)).view(1, 1, 210, 160)
    small = torch.nn.functional.interpolate(small, newest.shape, mode="area").squeeze()
    assert (small - newest).abs().mean() < 10  # gray is close to the mean of the colours
    assert (screen[..., 0] != screen[..., 2]).any()


def test_a_ram_environment_has_a_screen_that_changes() -> None:
    env = AtariRamEnv(**ATARI, workers=0)
    env.begin()
    before = env.screen()
    for _ in range(20):
        env.advance(torch.tensor([RIGHT, LEFT]))
    after = env.screen()
    assert before.shape == after.shape == (210, 160, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()


def test_showing_a_gymnasium_environment_does_not_change_its_games() -> None:
    seen, unseen = (
        GymEnv(id="CartPole-v1", num_envs=2, seed=1, kwargs={"max_episode_steps": 9}) for _ in range(2)
    )
    seen.show()
    assert torch.equal(play(seen, 30), play(unseen, 30))
    screen = seen.screen()
    assert (screen.shape, screen.dtype, unseen.screen()) == ((400, 600, 3), np.uint8, None)
    seen.close()


@pytest.mark.parametrize(
    ("env", "names"),
    [
        (lambda: AtariEnv(**PIXELS), ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]),
        (lambda: AtariRamEnv(**ATARI, workers=0), ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]),
        (lambda: GymEnv(id="CartPole-v1", num_envs=1, seed=0), ["left", "right"]),
        (lambda: GymEnv(id="Acrobot-v1", num_envs=1, seed=0), ["torque −1", "none", "torque +1"]),
        (lambda: GymEnv(id="FrozenLake-v1", num_envs=1, seed=0), ["0", "1", "2", "3"]),
    ],
    ids=["pixels", "ram", "cartpole", "acrobot", "frozen lake"],
)
def test_environments_name_their_actions(env, names) -> None:
    made = env()
    assert made.action_names == names
    assert len(names) == made.n_actions
