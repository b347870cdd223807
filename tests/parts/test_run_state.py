"""The state of a run: actions in a checkpoint are checked, and lost episodes are replaced."""

from typing import Any

import pytest
import torch

from sqn_rl import Agent, GymEnv, compose
from sqn_rl.errors import CheckpointError, RestoreError
from sqn_rl.training.agent import AGENT_PARTS
from sqn_rl.training.evaluation import EVALUATION_SEED
from sqn_rl.training.state import RunState
from sqn_rl.types import Counters


def make_run() -> RunState:
    parts = compose("sqn", "env=cartpole", "hidden=[4]", "num_envs=2", "replay_capacity=20").recipe.build()
    agent = Agent(**{name: parts[name] for name in AGENT_PARTS})
    return RunState(agent, parts["env"], 0, Counters())


def state_after(steps: int) -> dict[str, Any]:
    run = make_run()
    with run.random_state:
        observation = run.begin_episodes()
        for _ in range(steps):
            action = torch.zeros(2, dtype=torch.int64)
            step = run.env.advance(action)
            run.agent.replay.store(observation, action, step)
            observation = step.observation
    return run.state_dict()


@pytest.mark.parametrize("action", [-1, 2])
def test_a_checkpoint_with_an_invalid_action_is_refused(action: int) -> None:
    state = state_after(3)
    storage = state["agent"]["replay"]["_storage"]
    pieces = [(begin, end, dict(columns)) for begin, end, columns in storage["rows"]]
    pieces[0][2]["action"][1] = action
    storage["rows"] = pieces
    run = make_run()
    with run.random_state, pytest.raises(CheckpointError, match=r"an action that is not in \[0, 2\)"):
        run.resume(state, 0, lambda note: None)


def test_a_checkpoint_with_valid_actions_is_loaded() -> None:
    run = make_run()
    with run.random_state:
        run.resume(state_after(3), 0, lambda note: None)
    assert len(run.agent.replay) == 6


def test_random_numbers_resume_even_if_the_episodes_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    first, drawn = make_run(), []
    with first.random_state:
        first.begin_episodes()
        torch.rand(5)
        state = first.state_dict()

    def fail(state: object) -> None:
        raise RestoreError("played differently")

    for fails in (False, True):
        run = make_run()
        if fails:
            monkeypatch.setattr(run.env, "load_state_dict", fail)
        with run.random_state:
            run.resume(state, 0, lambda note: None)
            drawn.append(torch.rand(5))
    assert torch.equal(*drawn)


def test_replacement_episodes_differ_from_the_first_and_from_those_of_evaluations() -> None:
    state = state_after(0) | {"env": None}
    state["counters"] |= {"env_steps": EVALUATION_SEED}
    run = make_run()
    with run.random_state:
        others = [run.resume(state, 0, lambda note: None)]
    others += [GymEnv("CartPole-v1", num_envs=2, seed=seed).begin() for seed in (0, EVALUATION_SEED)]
    assert len({tuple(each.flatten().tolist()) for each in others}) == 3
