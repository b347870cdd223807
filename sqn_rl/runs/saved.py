"""Write and read folders with saved tensors and a manifest, and find the folder of some weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sqn_rl import disk
from sqn_rl.disk import Folder, Mark
from sqn_rl.errors import CheckpointError, is_whole, require
from sqn_rl.runs import manifest
from sqn_rl.runs.manifest import FORMAT, MANIFEST
from sqn_rl.runs.serialization import read_tensors, tensors_file

WEIGHTS = "weights.safetensors"

TARGETS = "target_q_net."
"""The prefix of the names of target copies' weights."""

LAST, BEST = "last", "best"
"""The names of the newest checkpoint, and of the weights of the best evaluation."""


def name_of(env_steps: int) -> str:
    """The name of a folder that was saved after ``env_steps`` environment steps."""
    return f"{env_steps:010d}"


def write_folder(
    folder: Folder,
    env_steps: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    run: Mapping[str, Mark],
    made_with: Mapping[str, Any],
    *,
    state: Any,
    best: int | None = None,
    replay: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write files of tensors and their manifest, in a folder named by the environment steps."""
    name = name_of(env_steps)
    with folder.folder(name + disk.PARTIAL) as beside:
        files = {file: beside.write(file, tensors_file(each)) for file, each in tensors.items()}
        content = {
            "format": FORMAT,
            "env_steps": env_steps,
            "files": {file: vars(mark) for file, mark in files.items()},
            "replay": list(replay),
            "run": {file: vars(mark) for file, mark in run.items()},
            "made_with": made_with,
            "best": best,
            "state": state,
        }
        beside.write(MANIFEST, [manifest.render(content)])
        beside.sync()
    folder.publish(name)


def read_weights(folder: Path, checkpoint: str | int = LAST) -> tuple[Path, int, dict[str, Tensor]]:
    """The weights of a checkpoint in ``folder``: their file, their environment steps, and the tensors.

    Args:
        folder: ``<run>/checkpoints``.
        checkpoint: :data:`LAST`, :data:`BEST`, or the environment steps of one that is kept.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        SettingError: ``checkpoint`` is neither a text nor a whole number.
    """
    is_name = isinstance(checkpoint, str) or is_whole(checkpoint)
    require(is_name, "checkpoint", checkpoint, f"{LAST!r}, {BEST!r}, or a number of environment steps")
    found, best = manifest.saved_in(folder), manifest.saved_in(folder / BEST)
    if not found and not best:
        raise CheckpointError(f"{folder}: no checkpoint yet")
    by_steps = {int(path.name): path for path in [*best, *found]}
    kept: dict[str | int, Path] = dict(sorted(by_steps.items()))
    for name, paths in ((LAST, found), (BEST, best)):
        if paths:
            kept[name] = paths[-1]
    checkpoint = int(checkpoint) if str(checkpoint).isdecimal() else checkpoint
    if checkpoint not in kept:
        hint = "; checkpoint_best=true keeps the best evaluation's" if checkpoint == BEST else ""
        names = ", ".join(map(str, kept))
        raise CheckpointError(f"{folder}: no checkpoint {checkpoint}; kept: {names}{hint}")
    path = kept[checkpoint]
    content = manifest.read(path)
    return path / WEIGHTS, content["env_steps"], tensors_in(path, WEIGHTS, content)


def tensors_in(path: Path, name: str, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors in one of a checkpoint's files, verified."""
    disk.verify(path / name, manifest.mark(content["files"].get(name), path))
    return dict(read_tensors(path / name))


def with_targets(weights: Mapping[str, Tensor], loss: nn.Module) -> dict[str, Tensor]:
    """Add the weights of target copies, which are not needed to act, and which a pushed folder lacks."""
    targets = {name: each for name, each in loss.state_dict().items() if name.startswith(TARGETS)}
    return targets | dict(weights)
