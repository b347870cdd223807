"""Shared by the Atari environments from pixels and from RAM: checks of settings, and the console."""

import re
from functools import cache
from typing import Any

import numpy as np

from sqn_rl.errors import nearest, require

NEEDED = "0.12.1"
"""The first version of ale-py whose vector environment can reset single environments."""

SEED_EVERY = 10_000
"""Minimum steps between two seedings of an environment: seeding takes as long as about 400 steps."""


def _require_ale(installed: str) -> None:
    def parts(version: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", version)[:3]]

    if parts(installed) < parts(NEEDED):
        hint = f"pip install 'ale-py>={NEEDED}'"
        raise ImportError(f"Atari games need ale-py {NEEDED} or newer, and here is {installed}: {hint}")


try:
    import ale_py
    from ale_py import ALEInterface, LoggerMode, roms
except ImportError as error:
    if error.name == "ale_py":
        _require_ale("none")
    raise
_require_ale(ale_py.__version__)


def require_game(game: str) -> None:
    """Refuse a game that ALE does not support: loading it would end the process.

    Raises:
        SettingError: there is no such game, or only its ROM.
    """
    names = roms.get_all_rom_ids()
    require(game in names, "game", game, f"a game of ale-py's, in snake_case{nearest(game, names)}")
    playable = ALEInterface.isSupportedROM(roms.get_rom_path(game)) is not None
    require(playable, "game", game, "a game whose rules ALE knows; of this one ale-py ships only the ROM")


def console(game: str, *, seed: int, sticky_actions: float, max_frames: int | None) -> ALEInterface:
    """Create a console with the game's ROM; takes 0.2 s, mostly for booting ALE's machine."""
    ALEInterface.setLoggerMode(LoggerMode.Error)  # otherwise each prints a banner
    console = ALEInterface()
    console.setFloat("repeat_action_probability", sticky_actions)
    console.setInt("max_num_frames_per_episode", max_frames or 0)
    _, word = np.random.SeedSequence(seed).generate_state(2)  # the same word as ale-py's AtariEnv uses
    console.setInt("random_seed", int(word.astype(np.int32)))
    console.loadROM(roms.get_rom_path(game))
    return console


@cache
def actions(game: str) -> list[Any]:
    """ALE's minimal action set of the game."""
    return console(game, seed=0, sticky_actions=0.0, max_frames=None).getMinimalActionSet()
