"""The tasks that need memory: what they show, what they pay, and what they hide."""

import gymnasium
import numpy as np
import pytest

from sqn_rl.errors import SettingError
from sqn_rl.parts.env.gym import GymEnv


def test_recall_shows_the_cue_once_and_pays_for_it_at_the_flag() -> None:
    env = gymnasium.make("sqn_rl/Recall-v0", delay=3, cues=2)
    paid = []
    for seed in range(20):
        first, _ = env.reset(seed=seed)
        cue = int(first[:2].argmax())
        assert first.tolist() == [cue == 0, cue == 1, 0]
        answers = [env.step(action) for action in (cue, 1 - cue, cue)]
        assert [answer[0].tolist() for answer in answers] == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
        assert [answer[1:4] for answer in answers] == [(0, False, False)] * 3
        last = env.step(cue if seed % 2 else 1 - cue)
        assert last[0].tolist() == [0, 0, 0]
        assert last[1:4] == (seed % 2, True, False)
        paid.append(cue)
    assert set(paid) == {0, 1}


def test_masked_cartpole_is_cartpole_without_velocities() -> None:
    whole, masked = gymnasium.make("CartPole-v1"), gymnasium.make("sqn_rl/CartPoleMasked-v1")
    assert np.array_equal(whole.reset(seed=1)[0][[0, 2]], masked.reset(seed=1)[0])
    over = False
    while not over:
        expected, *rest = whole.step(1)
        observation, *others = masked.step(1)
        assert observation.shape == (2,)
        assert np.array_equal(observation, expected[[0, 2]])
        assert others == rest
        over = rest[1]
    assert masked.spec is not None
    assert masked.spec.max_episode_steps == 500


@pytest.mark.parametrize(
    "kwargs", [{"delay": 0, "cues": 2}, {"delay": 3, "cues": 1}, {"delay": 3.5, "cues": 2}]
)
def test_recall_refuses_invalid_delays_and_numbers_of_cues(kwargs: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=r"kwargs.*expected a whole number, at least"):
        GymEnv(id="sqn_rl/Recall-v0", kwargs=kwargs, num_envs=1, seed=0)


def test_the_memory_tasks_have_action_names() -> None:
    names = [
        GymEnv(id=f"sqn_rl/{id}", kwargs=kwargs, num_envs=1, seed=0).action_names
        for id, kwargs in (("CartPoleMasked-v1", {}), ("Recall-v0", {"delay": 1, "cues": 3}))
    ]
    assert names == [["left", "right"], ["cue 0", "cue 1", "cue 2"]]
