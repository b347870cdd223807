"""What a run takes when it takes most: memory, and room on the disk. Known before it begins."""

import os
import resource
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sqn_rl.errors import RecipeError
from sqn_rl.parts.machine import available_bytes
from sqn_rl.protocols import Sized
from sqn_rl.recipe.auto import compiling
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.schema import Run
from sqn_rl.training.agent import Agent
from sqn_rl.types import PIECE_BYTES

MB = 10**6

IMPORTED_LATE = {"matplotlib": 42 * MB}
"""What the curve imports, after the last step of preflight."""

COMPILED = 110 * MB
"""What compiling an update, and acting, leaves in the process."""

BESIDES = 20_000
"""Bytes of a checkpoint that are no tensors of the agent: its manifest, and generators."""


COPIES = 5
"""Of the networks' parameters: their targets, gradients, and an optimizer's two moments besides."""


class Needs(NamedTuple):
    """In bytes."""

    memory: int
    """Of the run, and of the processes that play its games, at the peak."""
    more: int
    """Of that, what is not in memory yet."""
    checkpoint: int
    """The last checkpoint, with the rows of the replay that it needs."""
    disk: int
    """All checkpoints while one more is written."""

    def __str__(self) -> str:
        """``1.6 GB at most; a checkpoint takes 2.3 MB``."""
        return f"{size(self.memory)} at most; a checkpoint takes {size(self.checkpoint)}"


class Shortage(NamedTuple):
    """What there is too little of."""

    setting: str
    """To blame."""
    message: str
    hint: str


def needs(run: Run, agent: Agent, played: int, requests: int = 0, *, elsewhere: bool = False) -> Needs:
    """What a run takes, to be asked after an update of its agent in this process.

    What that update took at its peak is measured: imports, networks, moments, activations. What comes later
    is added: the rows of the replay, those being written down, the games, what is compiled and imported.

    Args:
        run: the settings.
        agent: it was updated once, and its replay is empty otherwise.
        played: bytes of the games, once they are played.
        requests: in flight to actors; a checkpoint has their weights, and the actors' states.
        elsewhere: the rows of the replay are on other machines.
    """
    stored, in_memory, on_disk = 0, 0, 0
    if isinstance(agent.replay, Sized):
        stored, (in_memory, on_disk) = min(run.steps, agent.replay.capacity), agent.replay.transition_bytes
    every = run.checkpoint_every or run.steps
    peak, now = _resident_bytes()
    late = sum(size for name, size in IMPORTED_LATE.items() if name not in sys.modules)
    piece = min(PIECE_BYTES, min(stored, every) * on_disk)
    rows = stored * in_memory if run.device == "cpu" and not elsewhere else 0
    memory = peak + rows + played + max(late, piece) + COMPILED * compiling(run, agent.loss.q_net).chosen
    weights = _bytes_of(agent.loss.state_dict())
    state = _bytes_of(agent.state_dict()) + BESIDES + requests * (weights + BESIDES)
    kept = run.checkpoint_keep + 1
    best = run.checkpoint_best * (kept + 1) * (weights + BESIDES)
    disk = best + kept * state + min(run.steps, stored + kept * every) * on_disk
    return Needs(memory, max(0, memory - now), state + stored * on_disk, disk)


def shortage(need: Needs, folder: Path) -> Shortage | None:
    """What there is too little of for a run in ``folder``; None: there is enough."""
    free = available_bytes()
    if free is not None and need.more > free:
        message = f"the run takes up to {size(need.memory)} of memory, {size(need.more)} more than now"
        hint = "lower replay.capacity, batch_size, num_envs or the networks"
        return Shortage("replay.capacity", f"{message}; {size(free)} are free", hint)
    there = folder
    while not os.path.exists(there):  # or where we may not look
        there = there.parent
    saved = folder / "checkpoints"
    files = filter(os.path.isfile, saved.rglob("*") if os.path.isdir(saved) else ())
    own = sum(map(os.path.getsize, files))
    room = shutil.disk_usage(there).free + own
    if need.disk > room:
        message = f"checkpoints take up to {size(need.disk)}; {size(room)} are free in {there.absolute()}"
        hint = "lower replay.capacity or checkpoint_keep, or write to another disk: out=…"
        return Shortage("checkpoint_keep", message, hint)
    return None


def require_room(recipe: Recipe) -> None:
    """Refuse what is far too large before any of it is built.

    Raises:
        RecipeError: more environments than the replay holds steps, or larger networks than memory.
    """
    run, capacity = recipe.run, recipe.fields("replay").get("capacity")
    if isinstance(capacity, int) and run.num_envs > capacity:
        message, hint = f"expected at most the replay's capacity, {capacity:,}", "raise replay.capacity"
        raise RecipeError(message, recipe.origin("num_envs"), hint, f"num_envs = {run.num_envs:,}")
    free = available_bytes()
    if free is None or run.device != "cpu":
        return
    least = COPIES * recipe.parameter_bytes()
    if least > free:
        message = (
            f"the networks, their targets, gradients and moments take {size(least)}; {size(free)} are free"
        )
        raise RecipeError(
            message,
            recipe.origin("encoder.hidden"),
            "use smaller networks: encoder.hidden, q_net.members",
        )


def forget_peak() -> None:
    """Count the peak of this process from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _resident_bytes() -> tuple[int, int]:
    """The most that this process had in memory, and what it has now."""
    try:
        lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        sizes = {words[0]: int(words[1]) * 1024 for words in lines if words[0] in ("VmHWM:", "VmRSS:")}
        return sizes["VmHWM:"], sizes["VmRSS:"]
    except (OSError, LookupError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak


def _bytes_of(state: Any) -> int:
    """Of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(map(_bytes_of, state.values()))
    return sum(map(_bytes_of, state)) if isinstance(state, list | tuple) else 0


def size(number: int) -> str:
    """A number of bytes for people: ``1.6 GB``."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
