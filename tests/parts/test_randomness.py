"""Checkpoints store every random generator of a part, wherever it is held, or the part is refused."""

import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sqn_rl import Agent, BoltzmannActor, LinearHead, OneStep, Polyak, UniformReplay, WiringError
from sqn_rl.parts.noise import Noise
from sqn_rl.training.randomness import Randomness

GENERATORS: dict[str, Callable[[], Any]] = {
    "a Generator of torch": torch.Generator,
    "a Generator of numpy": np.random.default_rng,
    "a RandomState of numpy": np.random.RandomState,
    "a Random of random": random.Random,
    "a Noise of sqn_rl": lambda: Noise(nn.Linear(1, 1)),
}


def held_by_a_module(generator: Any) -> nn.Module:
    module = nn.Linear(1, 1)
    module.rng = generator
    return module


PLACES: dict[str, Callable[[Any], Any]] = {
    "mine": lambda generator: generator,
    "mine.1": lambda generator: [0, generator],
    "mine.0": lambda generator: (generator, 0),
    "mine.a": lambda generator: {"a": generator},
    "mine.b.0.1": lambda generator: {"b": deque([(None, generator)])},
    "mine.rng": held_by_a_module,
    "mine.0.rng": lambda generator: (held_by_a_module(generator),),
}
"""How a part holds a generator, by the path in the message."""

HOLDERS: dict[str, Callable[[Agent], Any]] = {
    "loss": lambda agent: agent.loss,
    "actor": lambda agent: agent.actor,
    "target_update": lambda agent: agent.target_update,
    "temperature": lambda agent: agent.temperature,
    "head": lambda agent: agent.loss.q_net.head,
}


@pytest.fixture
def parts(make_q_net: Callable, make_temperature: Callable, make_loss: Callable) -> dict[str, Any]:
    """The parts of an agent."""
    q_net, temperature = make_q_net(), make_temperature()
    loss = make_loss(q_net, temperature)
    sizes = {"num_envs": 1, "observation_shape": (4,), "observation_dtype": torch.float32, "frame_stack": 1}
    returns = OneStep(gamma=0.99)
    return {
        "actor": BoltzmannActor(q_net=q_net, temperature=temperature, policy="q1", seed=0),
        "loss": loss,
        "target_update": Polyak(loss=loss, tau=0.05),
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
        "replay": UniformReplay(capacity=9, returns=returns, seed=0, device="cpu", **sizes),
    }


@pytest.mark.parametrize("slot", HOLDERS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_that_no_checkpoint_stores_is_refused(
    kind: str, place: str, slot: str, parts: dict[str, Any]
) -> None:
    holder = HOLDERS[slot](Agent(**parts))
    holder.mine = PLACES[place](GENERATORS[kind]())
    with pytest.raises(WiringError) as refusal:
        Agent(**parts)
    assert refusal.value.consumer == slot
    assert f"{place} is {kind}, which no checkpoint keeps; " in str(refusal.value)
    hint = "draw from a torch.Generator, and name that" if "torch" not in kind else "name it"
    hint = "name it" if "Noise" in kind else hint
    assert f"; {hint} in `randomness`" in str(refusal.value)
    assert str(refusal.value).endswith("docs/walkthroughs/own_parts.md")


class Drawing:
    """Draws numbers, and names its generator in ``randomness``."""

    def __init__(self) -> None:
        self.rngs = {"a": torch.Generator().manual_seed(3)}

    @property
    def randomness(self) -> Mapping[str, torch.Generator]:
        return self.rngs

    def draw(self) -> list[float]:
        return torch.rand(3, generator=self.rngs["a"]).tolist()


class DrawingModule(Drawing, nn.Module):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        Drawing.__init__(self)


class DrawingHead(LinearHead, DrawingModule):
    def __init__(self, **arguments: Any) -> None:
        LinearHead.__init__(self, **arguments)
        Drawing.__init__(self)


class DrawingUpdate(Drawing, Polyak):
    def __init__(self, **arguments: Any) -> None:
        Drawing.__init__(self)
        Polyak.__init__(self, **arguments)


class SavingUpdate(Polyak):
    """Stores its generator in its ``state_dict``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rng = torch.Generator().manual_seed(3)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rng.set_state(state["rng"])

    def draw(self) -> list[float]:
        return torch.rand(3, generator=self.rng).tolist()


def drawers(parts: dict[str, Any], where: str) -> list[Any]:
    """The objects that draw there; those that are not in the parts yet are added."""
    if where == "target_update":
        parts["target_update"] = DrawingUpdate(loss=parts["loss"], tau=0.1)
    elif where == "target_update's state":
        parts["target_update"] = SavingUpdate(loss=parts["loss"], tau=0.1)
    elif where == "a module in a tuple of the actor":
        parts["actor"].mine = (DrawingModule(),)
        return [*parts["actor"].mine]
    elif where == "an object of the loss":
        parts["loss"].mine = Drawing()
        return [parts["loss"].mine]
    elif where == "heads":
        return [parts["loss"].q_net.head, parts["loss"].target_q_net.head, parts["actor"].q_net.head]
    return [parts["target_update"]]


@pytest.mark.parametrize(
    "where",
    [
        "target_update",
        "target_update's state",
        "a module in a tuple of the actor",
        "an object of the loss",
        "heads",
    ],
)
def test_a_generator_in_randomness_or_in_the_state_of_a_part_is_restored(
    where: str, parts: dict[str, Any], make_q_net: Callable, make_temperature: Callable, make_loss: Callable
) -> None:
    if where == "heads":
        q_net, temperature = make_q_net(head=DrawingHead), make_temperature()
        parts["loss"] = make_loss(q_net, temperature)
        parts["actor"] = BoltzmannActor(q_net=q_net, temperature=temperature, policy="q1", seed=0)
        parts["target_update"] = Polyak(loss=parts["loss"], tau=0.1)
    drawing = drawers(parts, where)
    agent = Agent(**parts)
    for times, each in enumerate(drawing):
        for _ in range(times):
            each.draw()  # so that no two generators are in the same state
    state = agent.state_dict()
    expected = [each.draw() for each in drawing]
    assert [each.draw() for each in drawing] != expected
    agent.load_state_dict(state)
    assert [each.draw() for each in drawing] == expected


EARLIER = {
    "sqn": ([".generator.0", "._noises.0", "._noises.1"], [".generator.0", "._noise.0"]),
    "discrete_sac": (
        [".generator.0", "._noises.0", "._noises.1", "._noises.2"],
        [".generator.0", "._noise.0"],
    ),
}
"""By recipe, the names of the generators and noises of loss and actor in a checkpoint before 0.2."""


@pytest.mark.parametrize("recipe", EARLIER)
def test_generator_names_of_checkpoints_before_0_2_are_accepted(
    recipe: str, make_played_agent: Callable
) -> None:
    agent = make_played_agent(recipe, "layers=noisy")
    agent.update(next(agent.draw(8, 1)))
    agent.actor.act(torch.zeros(1, 4))
    for part, names in zip((agent.loss, agent.actor), EARLIER[recipe], strict=True):
        kept = Randomness("loss", part, stateful=False)
        state = kept.state_dict()
        assert len(state) == len(names)
        noises = [torch.randn_like(value) for value in [*state.values()][1:]]
        other = torch.Generator().manual_seed(5).get_state()
        kept.load_state_dict(dict(zip(names, [other, *noises], strict=True)))
        for value, expected in zip(kept.state_dict().values(), [other, *noises], strict=True):
            assert torch.equal(value, expected)
