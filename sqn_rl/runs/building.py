"""Build an agent and its environments from a recipe, with some parts given in Python."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.recipe.auto import compiling
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.schema import SLOT_NAMES
from sqn_rl.training.agent import AGENT_PARTS, Agent


class Built(NamedTuple):
    """The parts of an experiment, for a loop of one's own."""

    agent: Agent
    env: BatchedEnv
    """The training environments."""
    make_env: Callable[..., BatchedEnv]
    """Makes more environments, from ``num_envs``, ``seed`` and ``training``."""


def build_agent(recipe: Recipe, instead: Mapping[str, Callable[..., Any]]) -> Built:
    """Build a recipe's agent and environments, and set PyTorch's threads.

    Args:
        recipe: the recipe to build.
        instead: by slot, what makes the part instead of the recipe's class.

    Raises:
        RecipeError: there is no such slot, or a part cannot be built.
    """
    for slot, part in instead.items():
        if slot not in SLOT_NAMES:
            raise RecipeError("there is no such slot", "build()", did_you_mean(slot, SLOT_NAMES), slot)
        if not callable(part) or isinstance(part, nn.Module):
            message = f"expected a class or function that makes the part, got {part!r}"
            raise RecipeError(message, "build()", "functools.partial gives a class its settings", slot)
    parts = recipe.build(instead=instead)
    torch.set_num_threads(recipe.run.threads)
    compiled = compiling(recipe.run, parts["q_net"]).chosen
    agent = Agent(**{name: parts[name] for name in AGENT_PARTS}, compiled=compiled)
    return Built(agent, parts["env"], parts["make_env"])
