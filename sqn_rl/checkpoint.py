"""Weights on disk: safetensors files, written whole or not at all."""

import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sqn_rl.contracts import Loss
from sqn_rl.errors import SqnError

_NAME = re.compile(r"(\d+)\.safetensors")


class CheckpointError(SqnError):
    """A checkpoint is missing, damaged, or of another agent."""


def save_weights(folder: Path, loss: Loss, env_steps: int) -> Path:
    """Write ``loss``'s networks, target networks and temperature to ``folder/<env_steps>.safetensors``.

    The file appears under its name only when it is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{env_steps:010d}.safetensors"
    beside = path.with_suffix(".partial")
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in loss.state_dict().items()}
    save_file(tensors, beside, metadata={"env_steps": str(env_steps)})
    with open(beside, "rb+") as file:
        os.fsync(file.fileno())
    beside.replace(path)
    return path


def last_weights(folder: Path) -> Path:
    """The newest weights in ``folder``.

    Raises:
        CheckpointError: there are none.
    """
    found = sorted(path for path in folder.glob("*.safetensors") if _NAME.fullmatch(path.name))
    if not found:
        raise CheckpointError(f"{folder}: no weights here; expected files like 0000050000.safetensors")
    return found[-1]


def load_weights(path: Path, loss: Loss) -> int:
    """Load weights into ``loss``'s modules, in place, and return the environment steps they had seen.

    Raises:
        CheckpointError: the file is damaged, or its names or shapes are not those of this agent.
    """
    try:
        with safe_open(path, framework="pt") as file:
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
            env_steps = int((file.metadata() or {})["env_steps"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as weights of sqn_rl ({error})") from error
    own = loss.state_dict()
    differ = sorted(name for name in own.keys() | saved.keys() if _shape(own, name) != _shape(saved, name))
    if differ:
        name = differ[0]
        raise CheckpointError(
            f"{path}: made by another agent: {len(differ)} tensors differ, such as {name}: "
            f"{_shape(saved, name)} in the file, {_shape(own, name)} in the recipe"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    return env_steps


def _shape(tensors: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
