"""The name of an environment, in the folders of many runs and on the pages of ``sqn-watch``."""

from pathlib import Path

import pytest

from sqn_rl.cli.terminal.many import folder_of
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.recipe.resolved import of_recipe

NAMES = {
    "env=cartpole": "CartPole-v1",
    "env=gym env.id=sqn_rl/Recall-v0": "sqn_rl/Recall-v0",
    "env=recall": "sqn_rl/Recall-v0",
    "env=atari env.game=breakout": "breakout-atari",
    "env=atari_ram env.game=breakout": "breakout-atari_ram",
    "env=minatar env.game=breakout": "breakout-minatar",
    "env=football env.scenario=academy_corner": "academy_corner-football",
    "env=football env.scenario=academy_run_to_score": "academy_run_to_score-football",
}


@pytest.mark.parametrize(("overrides", "name"), NAMES.items())
def test_environments_are_named_by_what_is_played_and_how(overrides: str, name: str) -> None:
    """A game of Atari, of its RAM and of MinAtar are three environments, and so are two scenarios."""
    recipe = compose_recipe("sqn", *overrides.split())
    assert of_recipe("sqn", recipe).environment == name
    assert folder_of("ablations", recipe) == Path("runs", "ablations", "sqn", name.replace("/", "-"))
