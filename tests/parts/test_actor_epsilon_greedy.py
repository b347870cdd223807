"""The ε-greedy actor: its ε is logged, is saved with the weights, and must be a probability."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sqn_rl import EpsilonGreedyActor, SettingError, compose, load


@pytest.fixture
def make_actor(make_q_net: Callable) -> Callable[..., EpsilonGreedyActor]:
    def make(**settings: Any) -> EpsilonGreedyActor:
        fall = {"start": 1.0, "end": 0.25, "over": 0.5, "steps": 1000}
        return EpsilonGreedyActor(q_net=make_q_net(), policy="q1", seed=0, **fall | settings)

    return make


def test_epsilon_is_saved_and_loaded_with_the_weights(make_actor: Callable) -> None:
    actor, other = make_actor(), make_actor()
    actor.anneal(500)
    other.load_state_dict(actor.state_dict())
    assert other.metrics() == {"epsilon": 0.25}


def test_an_epsilon_greedy_actor_module_writes_only_the_action(make_actor: Callable) -> None:
    assert make_actor().out_keys == ["action"]
    assert make_actor()(observation=torch.zeros(5, 4)).shape == (5,)


def test_weights_are_evaluated_at_the_epsilon_that_they_were_trained_with(tmp_path: Path) -> None:
    """ε starts at 1 and ends at 0, where sampled actions are greedy."""
    small = ["steps=40", "warmup_steps=20", "batch_size=8", "eval_episodes=1"]
    compose("dqn", *small, "actor.end=0", f"out={tmp_path / 'run'}").train()
    policy = load(tmp_path / "run")
    sampled, greedy = (policy.evaluate(episodes=3, greedy=greedy).returns for greedy in (False, True))
    assert sampled == greedy


BAD = [("start", -0.1), ("start", 1.1), ("end", -0.1), ("end", 1.1), ("over", 0.0), ("over", 1.1)]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_an_epsilon_setting_out_of_range_is_refused(make_actor: Callable, field: str, value: float) -> None:
    with pytest.raises(SettingError, match=f"^{field} = "):
        make_actor(**{field: value})
