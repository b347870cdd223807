"""No setting is accepted and then ignored: each field of each part, changed, changes what is learned."""

from functools import cache
from typing import Any

import pytest
import torch

from sqn_rl import Agent, compose
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.schema import SLOTS
from sqn_rl.runs.workers import running_engine
from sqn_rl.training.agent import AGENT_PARTS
from sqn_rl.training.collecting.learner import learn
from sqn_rl.training.loop import train

TINY = ["env=cartpole", "steps=40", "num_envs=2", "warmup_steps=12", "batch_size=8", "update_ratio=1"]
TINY += ["encoder.hidden=[8]", "replay_capacity=24", "tau=0.2"]  # so that the ring is full before the end

SHORT = ["replay.length=4", "replay.burn_in=2", "replay.stride=2", "replay_capacity=24"]

COMPLETE = {  # what a part, or one of its fields, needs besides itself to have an effect
    "actor=policy": ["loss=discrete_sac"],
    "loss=discrete_sac": ["actor=policy"],
    "actor=epsilon_greedy": ["actor.over=1"],
    "target_update=periodic": ["target_update.every=8"],
    "replay=prioritized": ["returns=n_step"],
    "replay=sharded": ["collect=inline", "collect.rows=2", "returns=n_step"],
    "q_net=lstm": ["replay=sequences", *SHORT],
    "replay=sequences": ["q_net=lstm", "returns=n_step", *SHORT],
    "loss=munchausen": ["temperature.initial=0.9"],
    "q_net=lstm q_net.clip_reward": ["env=lunarlander"],  # whose rewards are fractions
    "temperature=learned temperature.minimum": ["target_entropy=0.01"],  # so that α falls
    "temperature=annealed temperature.minimum": ["target_entropy=0.01", "temperature.start=0.01"],
    "temperature=learned temperature.maximum": ["target_entropy=0.692"],  # so that α rises
    "temperature=annealed temperature.maximum": ["target_entropy=0.692", "temperature.start=0.692"],
}
OTHERS = {  # other values, where not half of the default or its opposite
    "head.atoms": 20,
    "optimizer.momentum": 0.9,
    "actor.end": 0.8,
    "actor.policy": "min",
    "actor.start": 0.5,
    "encoder.hidden": [7],
    "loss.backup": "sampled",
    "loss.policy_source": "min",
    "optimizer.lr": 0.02,
    "q_net.members": 3,
    "replay.capacity": 20,
    "replay.stride": 3,
    "replay.epsilon": 0.5,
    "replay.shards": 1,
    "replay.td_error": "max",
    "returns.n": 2,
    "returns.soft": True,
    "target_update.every": 3,
    "temperature.lr": 0.3,
    "temperature.maximum": 0.1001,
    "temperature.minimum": 0.0999,
    "temperature.optimise": "alpha",
    "temperature.target_entropy_fraction": 0.5,
}
TOGETHER = {"temperature.target_entropy_fraction": ["temperature.target_entropy=null"]}
ELSEWHERE = ("env", "logger", "collect")  # tested in tests/parts, tests/cli and tests/scale
WITHOUT_EFFECT = [("q_net=single", "q_net.shared_encoder"), ("optimizer=adamw", "optimizer.fused")]


def fields() -> list[tuple[str, str]]:
    """Each ``slot=part``, and each field of its YAML."""
    catalogue = Catalogue()
    return [
        (f"{slot.name}={part}", f"{slot.name}.{name}")
        for slot in SLOTS
        if slot.name not in ELSEWHERE
        for part in catalogue.names(slot.name)
        for name in catalogue.read(slot.name, part).content
        if name != "_target_" and not (slot.name == "encoder" and part != "mlp")  # those see images
    ]


@cache
def learned(*overrides: str) -> tuple[tuple[float, ...], Any]:
    """The weights after a short run, and the parts' values."""
    recipe = compose("sqn", *TINY, *overrides).recipe
    parts = recipe.build()
    agent = Agent(**{name: parts[name] for name in AGENT_PARTS})
    with running_engine(parts["collect"], parts["replay"], recipe) as engine:
        if engine:
            learn(agent, parts["env"], recipe.run, parts["collect"], engine)
        else:
            train(agent, parts["env"], recipe.run)
    weights = torch.cat([each.flatten() for each in agent.loss.state_dict().values()])
    assert weights.isfinite().all()
    return tuple(weights.tolist()), recipe.config


@pytest.mark.parametrize(("part", "field"), [each for each in fields() if each not in WITHOUT_EFFECT])
def test_a_field_that_is_changed_changes_what_is_learned(part: str, field: str) -> None:
    chosen = [*COMPLETE.get(part, []), part, *COMPLETE.get(f"{part} {field}", [])]
    weights, config = learned(*chosen)
    slot, name = field.split(".")
    default = config[slot][name]
    other = OTHERS[field] if field in OTHERS else not default if isinstance(default, bool) else default / 2
    assert learned(*chosen, *TOGETHER.get(field, []), f"{field}={other}")[0] != weights
