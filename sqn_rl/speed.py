"""What ``compile=auto`` and ``precision=auto`` choose, and why."""

import os
import shutil
from collections.abc import Sequence
from typing import NamedTuple

from sqn_rl.config import Run
from sqn_rl.errors import SettingError

COMPILING_PAYS = 20_000
"""Updates: compiling takes some 10 s, and saves half a millisecond or more of each."""


class Choice(NamedTuple):
    """What was chosen, and why."""

    chosen: bool
    why: str


def compiling(run: Run) -> Choice:
    """Whether to compile the update.

    Raises:
        SettingError: it was asked for, and there is no C++ compiler.
    """
    updates = int(max(0, run.steps - run.warmup_steps) * run.update_ratio)
    cxx = os.environ.get("CXX", "g++")
    there = run.device != "cpu" or shutil.which(cxx) is not None
    if run.compile == "always" and not there:
        raise SettingError("compile", run.compile, f"a C++ compiler, {cxx}, which is not there; or never")
    if run.compile != "auto":
        return Choice(run.compile == "always", "as asked")
    if not there:
        return Choice(False, f"no C++ compiler, {cxx}")
    return Choice(updates >= COMPILING_PAYS, f"{updates:,} updates; it pays from {COMPILING_PAYS:,} on")


def brain_floats(run: Run, observation_shape: Sequence[int]) -> Choice:
    """Whether encoders compute in bfloat16."""
    if run.precision != "auto":
        return Choice(run.precision == "bf16", "as asked")
    if len(observation_shape) < 3:
        return Choice(False, "observations are no images")
    import torch

    amx = torch.cpu._is_amx_tile_supported()
    return Choice(amx, f"the processor has {'AMX' if amx else 'no AMX, without which bf16 was slower'}")
