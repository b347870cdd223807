"""A value that the run or another part injects by name has one owner: no field of a part overrides it.

The parts of a recipe share the same objects and numbers.
"""

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from flat import FLAT

from sqn_rl import compose
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.build import ENV_FACTS, RUN_SETTINGS, _parameters, build
from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.schema import SLOTS

COMPLETE = {  # what a part needs besides itself
    ("actor", "policy"): ["loss=discrete_sac"],
    ("loss", "discrete_sac"): ["actor=policy"],
    ("temperature", "none"): ["loss=dqn", "actor=greedy"],
    ("q_net", "lstm"): ["replay=sequences"],
    ("replay", "sequences"): ["q_net=lstm"],
    ("replay", "sharded"): ["collect=inline"],
}


@cache
def recipe_with(slot: str, part: str) -> Recipe:
    return compose("sqn", *COMPLETE.get((slot, part), []), f"{slot}={part}").recipe


def shared() -> list[tuple[str, str, str]]:
    """Slot, part, and the name of each parameter that the run or an earlier slot provides."""
    catalogue, found, given = Catalogue(), [], {*RUN_SETTINGS}
    for slot in SLOTS:
        for part in catalogue.names(slot.name):
            target = catalogue.resolve(slot.name, catalogue.read(slot.name, part).values["_target_"])
            asked = {parameter.name for parameter in _parameters(target)} - {*slot.late_keywords}
            found += [(slot.name, part, name) for name in sorted(asked & given)]
        given |= {slot.provides} | ({*ENV_FACTS, "precision"} if slot.name == "env" else set())
    return found


def test_the_shared_parameters_include_the_known_ones() -> None:
    walked = {(slot, name) for slot, _, name in shared()}
    assert walked >= {("loss", "gamma"), ("returns", "gamma"), ("loss", "temperature"), ("replay", "steps")}
    assert walked >= {("temperature", "n_actions"), ("q_net", "precision"), ("replay", "num_envs")}


@pytest.mark.parametrize(("slot", "part", "name"), shared())
def test_a_field_that_overrides_an_injected_value_is_refused(slot: str, part: str, name: str) -> None:
    recipe = recipe_with(slot, part)
    config: dict[str, Any] = deepcopy(recipe.config)
    config[slot][name] = "another"
    with pytest.raises(
        RecipeError, match=f"{slot}.{name} = .another.: every part is given the same `{name}`"
    ):
        build(config, recipe.run, recipe.catalogue, recipe.origin)


def test_a_field_that_repeats_an_injected_value_is_accepted() -> None:
    """As in a user's YAML file: ``gamma: ${gamma}``."""
    parts = compose("sqn", "gamma=0.9", "loss.gamma=0.9", "replay.observation_shape=[4]").recipe.build()
    assert parts["loss"].gamma == parts["returns"].gamma == 0.9


@pytest.mark.parametrize("name", Catalogue().names(RECIPE))
def test_the_parts_of_a_recipe_share_one_gamma_temperature_and_q_net(name: str) -> None:
    settings = ["env=cartpole", *FLAT.get(name, ()), "gamma=0.9", "replay_capacity=1000"]
    parts = compose(name, *settings).recipe.build()
    loss, returns, actor = (parts[slot] for slot in ("loss", "returns", "actor"))
    assert loss.gamma == returns.gamma == 0.9
    assert parts["replay"].returns is returns
    assert loss.temperature is parts["temperature"] is getattr(actor, "temperature", parts["temperature"])
    assert loss.q_net is parts["q_net"]
    assert {*actor.parameters()} <= {*loss.parameters()}  # the networks that act are learned
