"""Every optimizer of the tree moves the networks and α, whether they share a parameter group or not."""

import pytest
import torch

from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.training.agent import AGENT_PARTS, Agent


@pytest.mark.parametrize("alpha_lr", ["${lr}", "0.02"])
@pytest.mark.parametrize("name", Catalogue().names("optimizer"))
def test_it_moves_everything_that_is_learned(name: str, alpha_lr: str) -> None:
    recipe = compose_recipe(
        "sqn", f"optimizer={name}", f"temperature.lr={alpha_lr}", "hidden=[16]", "num_envs=1"
    )
    parts = recipe.build()
    agent = Agent(**{slot: parts[slot] for slot in AGENT_PARTS})
    learned = [*agent.loss.q_net.parameters(), *agent.temperature.parameters()]
    before = [parameter.detach().clone() for parameter in learned]
    observation = parts["env"].begin()
    for _ in range(8):
        action = torch.zeros(1, dtype=torch.int64)
        step = parts["env"].advance(action)
        agent.replay.store(observation, action, step)
        observation = step.observation
    for _ in range(3):
        agent.update(agent.replay.draw(8))
    for old, new in zip(before, learned, strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)
