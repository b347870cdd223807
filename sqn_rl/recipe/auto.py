"""What ``compile=auto`` and ``precision=auto`` choose, and why."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from sqn_rl.errors import SettingError
from sqn_rl.parts import machine
from sqn_rl.recipe.schema import Run

COMPILING_PAYS = 20_000
"""Updates: compiling takes some 10 s, and saves half a millisecond or more of each."""

NOT_COMPILED = "recurrent networks are not compiled"

SMALL_IMAGE = 36 * 36
"""Pixels below which bf16 does not pay: it was slower on MinAtar's 10 × 10, and faster on Atari's 84 × 84."""

WIDE = 6_000_000
"""Multiplications of a batch by one network's hidden layers, from which on bf16 pays for vectors.

Measured on AMX, compiled: 0.72 and 0.85 times the steps per second at 1 and 2 million, 1.02 at 4, and 1.2 to
1.6 at 8 and more. Not compiled it is slower.
"""


class Decision(NamedTuple):
    """Whether something was chosen, and why."""

    chosen: bool
    why: str


def compiling(run: Run, q_net: object = None) -> Decision:
    """Whether to compile the update.

    Args:
        run: the settings.
        q_net: the networks, if they are built already.

    Raises:
        SettingError: compiling was asked for, but there is no C++ compiler, or the networks are recurrent.
    """
    if q_net is not None and _is_recurrent(q_net):
        if run.compile == "always":
            raise SettingError("compile", run.compile, f"auto or never: {NOT_COMPILED}")
        return Decision(False, NOT_COMPILED)
    updates = int(max(0, run.steps - run.warmup_steps) * run.update_ratio)
    if run.device.startswith("cuda") and run.compile == "auto":
        return Decision(True, "updates are recorded as CUDA graphs, which takes no time")
    has_compiler = run.device != "cpu" or machine.has_cxx()
    if run.compile == "always" and not has_compiler:
        expected = f"a C++ compiler, {machine.cxx()}, which is not there; or never"
        raise SettingError("compile", run.compile, expected)
    if run.compile != "auto":
        return Decision(run.compile == "always", "as asked")
    if not has_compiler:
        return Decision(False, f"no C++ compiler, {machine.cxx()}")
    return Decision(updates >= COMPILING_PAYS, f"{updates:,} updates; it pays from {COMPILING_PAYS:,} on")


def bfloat16(run: Run, observation_shape: Sequence[int], hidden: object) -> Decision:
    """Whether encoders compute in bfloat16.

    Args:
        run: the settings.
        observation_shape: shape of one observation.
        hidden: widths of the encoder's fully connected layers; anything but whole numbers is ignored.
    """
    if run.precision != "auto":
        return Decision(run.precision == "bf16", "as asked")
    if run.device != "cpu":
        return Decision(False, "on a GPU bf16 was faster for large batches only")
    if len(observation_shape) < 3:
        layers = hidden if isinstance(hidden, list) else []
        widths = [math.prod(observation_shape), *(width for width in layers if isinstance(width, int))]
        if run.batch_size * sum(inputs * outputs for inputs, outputs in pairwise(widths)) < WIDE:
            return Decision(False, "networks are small, for which bf16 was slower")
        if not compiling(run).chosen:
            return Decision(False, "not compiled, for which bf16 was slower")
    elif math.prod(observation_shape[-2:]) < SMALL_IMAGE:
        return Decision(False, "images are small, for which bf16 was slower")
    amx = machine.has_amx()
    return Decision(amx, f"the processor has {'AMX' if amx else 'no AMX, without which bf16 was slower'}")


def precision_of(q_net: object) -> str:
    """The precision in which the encoders of a Q-network compute: ``fp32`` or ``bf16``."""
    from sqn_rl.protocols import Described  # which imports torch, and composing does not

    return q_net.precision if isinstance(q_net, Described) else "fp32"


def _is_recurrent(q_net: object) -> bool:
    from sqn_rl.parts.memory import state_size  # which imports torch, and composing does not

    return state_size(q_net) > 0
