"""Estimate the peak memory and the disk space of a run before it begins."""

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
from sqn_rl.parts.collect.base import Actors, Sharded
from sqn_rl.parts.machine import available_bytes
from sqn_rl.protocols import SizedReplay
from sqn_rl.recipe.auto import compiling
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.schema import Run
from sqn_rl.training.agent import Agent
from sqn_rl.types import PIECE_BYTES

MB = 10**6

IMPORTED_LATE = {"matplotlib": 42 * MB}
"""Memory of what is imported after preflight, to draw the curve."""

COMPILED = 110 * MB
"""Memory that compiling the update and acting leaves in the process."""

BESIDES = 20_000
"""Bytes of a checkpoint besides the agent's tensors: its manifest, and the states of generators."""

COPIES = 5
"""Copies of the networks' parameters: themselves, targets, gradients, and an optimizer's two moments."""


class Needs(NamedTuple):
    """The needs of a run, in bytes."""

    memory: int
    """Peak of the run and of the processes of its environments."""
    more: int
    """The part of it that is not in memory yet."""
    checkpoint: int
    """The last checkpoint, with the rows of the replay that it needs."""
    disk: int
    """All checkpoints, while one more is written."""

    def __str__(self) -> str:
        """``1.6 GB at most; a checkpoint takes 2.3 MB``."""
        return f"{size(self.memory)} at most; a checkpoint takes {size(self.checkpoint)}"


class Shortage(NamedTuple):
    """A resource of which there is too little."""

    setting: str
    """The setting to blame."""
    message: str
    hint: str


def stores_here(run: Run, replay: object, collect: object) -> bool:
    """Whether the rows of a replay will be in the memory of this machine, not of a GPU or another machine."""
    if isinstance(replay, Sharded):  # its shards store on the CPU, whatever the device
        return not (isinstance(collect, Actors) and collect.elsewhere)
    return run.device == "cpu"


def needs(run: Run, agent: Agent, env_bytes: int, requests: int = 0, *, stored_here: bool) -> Needs:
    """The needs of a run, estimated after an update of its agent in this process.

    The peak of that update is measured: imports, networks, moments, activations. What comes later is added:
    the rows of the replay and those being saved, the environments, and what is compiled or imported.

    Args:
        run: the settings.
        agent: was updated once; its replay is still nearly empty.
        env_bytes: memory of the environments, once they are played.
        requests: number in flight to actors; a checkpoint has their weights, and the actors' states.
        stored_here: see :func:`stores_here`.
    """
    stored, in_memory, on_disk = 0, 0, 0
    if isinstance(agent.replay, SizedReplay):
        stored, (in_memory, on_disk) = min(run.steps, agent.replay.capacity), agent.replay.transition_bytes
    every = run.checkpoint_every or run.steps
    peak, now = _resident_bytes()
    late = sum(size for name, size in IMPORTED_LATE.items() if name not in sys.modules)
    piece = min(PIECE_BYTES, min(stored, every) * on_disk)
    rows = stored * in_memory if stored_here else 0
    compiled = COMPILED if compiling(run, agent.loss.q_net).chosen else 0
    memory = peak + rows + env_bytes + max(late, piece) + compiled
    weights = _bytes_of(agent.loss.state_dict())
    state = _bytes_of(agent.state_dict()) + BESIDES + requests * (weights + BESIDES)
    kept = run.checkpoint_keep + 1
    best = (kept + 1) * (weights + BESIDES) if run.checkpoint_best else 0
    disk = best + kept * state + min(run.steps, stored + kept * every) * on_disk
    return Needs(memory, max(0, memory - now), state + stored * on_disk, disk)


def shortage(need: Needs, folder: Path) -> Shortage | None:
    """The resource of which there is too little for a run in ``folder``; None if there is enough of all."""
    free = available_bytes()
    if free is not None and need.more > free:
        message = f"the run takes up to {size(need.memory)} of memory, {size(need.more)} more than now"
        hint = "lower replay.capacity, batch_size, num_envs or the networks"
        return Shortage("replay.capacity", f"{message}; {size(free)} are free", hint)
    existing = folder
    while not os.path.exists(existing):  # a folder that may not be read counts as missing
        existing = existing.parent
    saved = folder / "checkpoints"
    files = filter(os.path.isfile, saved.rglob("*") if os.path.isdir(saved) else ())
    own = sum(map(os.path.getsize, files))
    room = shutil.disk_usage(existing).free + own
    if need.disk > room:
        message = f"checkpoints take up to {size(need.disk)}; {size(room)} are free in {existing.absolute()}"
        hint = "lower replay.capacity or checkpoint_keep, or write to another disk: out=…"
        return Shortage("checkpoint_keep", message, hint)
    return None


def require_room(recipe: Recipe) -> None:
    """Refuse a recipe that is far too large, before any part is built.

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
    """Measure the peak memory of this process from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _resident_bytes() -> tuple[int, int]:
    """The peak memory of this process, and its current memory."""
    try:
        lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        sizes = {words[0]: int(words[1]) * 1024 for words in lines if words[0] in ("VmHWM:", "VmRSS:")}
        return sizes["VmHWM:"], sizes["VmRSS:"]
    except (OSError, LookupError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak, peak


def _bytes_of(state: Any) -> int:
    """The bytes of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(map(_bytes_of, state.values()))
    return sum(map(_bytes_of, state)) if isinstance(state, list | tuple) else 0


def size(number: int) -> str:
    """A number of bytes for people: ``1.6 GB``."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
