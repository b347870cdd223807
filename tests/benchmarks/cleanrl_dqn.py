"""CleanRL's ``dqn.py`` and ``dqn_atari.py``, as they are, from a checkout that this project does not contain.

They were written for Gymnasium 0.29: what it called otherwise is given its old name.
"""

import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import ale_py
import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation, GrayscaleObservation
from race import Baton

SETTINGS: dict[str, dict[str, Any]] = {
    "dqn": {
        "env_id": "CartPole-v1",
        "learning_rate": 2e-3,
        "buffer_size": 50_000,
        "batch_size": 128,
        "train_frequency": 1,
        "target_network_frequency": 100,
    },
    "dqn_atari": {
        "env_id": "PongNoFrameskip-v4",
        "buffer_size": 10_000,
        "batch_size": 32,
        "train_frequency": 4,
    },
}


def run(baton: Baton, folder: str, script: str) -> None:
    """Train until the race is over.

    Args:
        baton: called at each step.
        folder: the checkout.
        script: ``dqn`` or ``dqn_atari``.
    """
    settings = SETTINGS[script] | {"learning_starts": 128, "exploration_fraction": 0.1, "seed": 0}
    settings["total_timesteps"] = baton.steps + baton.leg
    sys.path.insert(0, folder)
    sys.modules["tyro"] = tyro = ModuleType("tyro")
    tyro.cli = lambda kind: kind(**settings)  # type: ignore[attr-defined]  # a module that is none
    gymnasium.register_envs(ale_py)
    gymnasium.wrappers.GrayScaleObservation = GrayscaleObservation
    gymnasium.wrappers.FrameStack = FrameStackObservation
    gymnasium.vector.SyncVectorEnv = lambda makers: Turns(makers, baton)
    runpy.run_path(str(Path(folder, "cleanrl", f"{script}.py")), run_name="__main__")


class Turns(SyncVectorEnv):
    """Checks at each step whether to continue, and reports the end of an episode in the old way."""

    def __init__(self, makers: Any, baton: Baton) -> None:
        super().__init__(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        self.baton, self.played = baton, 0

    def step(self, actions: Any) -> Any:
        """As :class:`SyncVectorEnv`."""
        *answer, info = super().step(actions)
        self.played += 1
        if "final_info" in info:
            ended = info.pop("final_info")
            if "episode" in ended:
                self.baton.returns.append(float(ended["episode"]["r"][0]))
            info["final_observation"] = info.pop("final_obs")
        if not self.baton.tick(self.played):
            raise SystemExit
        return (*answer, info)
