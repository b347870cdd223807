"""``precision=bf16``: with every encoder, head and kind of layer, on any processor."""

import pytest
import torch

from sqn_rl import Experiment, compose
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import Recipe
from sqn_rl.training.agent import AGENT_PARTS, Agent

SMALL = ("num_envs=1", "batch_size=4", "replay_capacity=100", "hidden=[16]", "layers=dense")


def make(*overrides: str) -> Experiment:
    return compose("sqn", "env=atari", *SMALL, *overrides)


def losses(recipe: Recipe, *, compiled: bool = False) -> dict[str, torch.Tensor]:
    """The losses of one batch of screens, after a check that gradients and weights are float32."""
    parts = recipe.build()
    agent = Agent(**{name: parts[name] for name in AGENT_PARTS}, compiled=compiled)
    env, replay = parts["env"], parts["replay"]
    observation = env.begin()
    for _ in range(6):
        action = torch.zeros(1, dtype=torch.int64)
        env.send(action)
        step = env.receive()
        replay.store(observation, action, step)
        observation = step.observation
    env.close()
    batch = replay.draw(4)
    terms, gradients, numbers = agent._gradients(batch)
    assert numbers.isfinite().all()
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    assert {weight.dtype for weight in agent.loss.parameters()} == {torch.float32}
    agent.update(batch)
    assert agent.runs_compiled is compiled
    return terms.losses


@pytest.mark.parametrize("encoder", Catalogue().names("encoder"))
@pytest.mark.parametrize("head", Catalogue().names("head"))
def test_every_encoder_and_head_learns_in_bfloat16(encoder: str, head: str) -> None:
    parts = f"encoder={encoder}", f"head={head}"
    make(*parts, "precision=bf16").preflight()
    rounded = losses(make(*parts, "precision=bf16").recipe)
    exact = losses(make(*parts, "precision=fp32").recipe)
    for name, loss in exact.items():
        torch.testing.assert_close(rounded[name], loss, rtol=2**-5, atol=2**-7)
    assert any(rounded[name] != loss for name, loss in exact.items())


@pytest.mark.parametrize("layers", Catalogue().names("layers"))
def test_every_kind_of_layer_learns_in_bfloat16(layers: str) -> None:
    losses(make(f"layers={layers}", "precision=bf16").recipe)


def test_bfloat16_with_vector_observations_passes_preflight() -> None:
    compose("sqn", *SMALL, "precision=bf16").preflight()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_compiled_bfloat16_losses_are_equal_within_rounding() -> None:
    recipe = make("precision=bf16").recipe
    torch.testing.assert_close(losses(recipe, compiled=True), losses(recipe), rtol=2**-6, atol=2**-8)
