"""Every optimizer of the tree moves the networks and α, whether they share a parameter group or not."""

from pathlib import Path

import pytest
import torch

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe, load_recipe
from sqn_rl.recipe.resolved import of_recipe, of_run
from sqn_rl.training.agent import AGENT_PARTS, Agent

UNFIT = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
"""One is abstract; the others need a closure, sparse gradients, or matrices only."""

BY_CLASS = [name for name in torch.optim.__all__ if name[0].isupper() and name not in UNFIT]
OPTIMIZERS = [f"optimizer={name}" for name in Catalogue().names("optimizer")]
OPTIMIZERS += [f"optimizer._target_=torch.optim.{name}" for name in BY_CLASS]


@pytest.mark.parametrize("alpha_lr", ["${lr}", "0.02"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_moves_all_learned_parameters(optimizer: str, alpha_lr: str) -> None:
    recipe = compose_recipe("sqn", optimizer, f"temperature.lr={alpha_lr}", "hidden=[16]", "num_envs=1")
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


def test_another_optimizer_class_drops_inherited_fields_that_it_does_not_take(tmp_path: Path) -> None:
    own = compose_recipe("sqn", "optimizer=adamw").fields("optimizer")
    assert own.keys() == {"lr", "weight_decay", "fused"}
    target, asked = "optimizer._target_=torch.optim.NAdam", "optimizer.momentum_decay=0.1"
    recipe = compose_recipe("sqn", "optimizer=adamw", target, asked, "lr=0.5")
    assert recipe.fields("optimizer") == {
        "lr": 0.5,
        "weight_decay": own["weight_decay"],
        "momentum_decay": 0.1,
    }
    assert recipe.part("optimizer") == "NAdam"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml").config == recipe.config
    assert of_run(tmp_path).parts["optimizer"].value == of_recipe("", recipe).parts["optimizer"].value


@pytest.mark.parametrize("asked", ["optimizer.fused=true", "+optimizer.alpha=0.9"])
def test_an_explicit_field_that_the_optimizer_class_does_not_take_is_refused(asked: str) -> None:
    with pytest.raises(RecipeError, match="NAdam has no such setting") as refused:
        compose_recipe("sqn", "optimizer=rmsprop", "optimizer._target_=torch.optim.NAdam", asked).build()
    assert refused.value.origin == f"command line: {asked}"


def test_a_recipe_may_name_another_optimizer_class(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    text = (
        "# A.\ndefaults: [sqn, override /optimizer: sgd, _self_]\noptimizer: {_target_: torch.optim.RAdam}\n"
    )
    (tmp_path / "recipes" / "mine.yaml").write_text(text)
    recipe = compose_recipe("mine", catalogue=Catalogue([tmp_path]))
    assert recipe.fields("optimizer").keys() == {"lr"}  # and not SGD's momentum
