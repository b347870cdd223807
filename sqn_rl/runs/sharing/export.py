"""Export a trained policy to a file for other programs: ONNX, or PyTorch's exported program."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from sqn_rl.disk import require_replaceable, save
from sqn_rl.errors import RecipeError, SettingError, explain, require, to_install
from sqn_rl.parts.actor.base import NetworkActor, ValueActor
from sqn_rl.runs.policy import Policy
from sqn_rl.training.player import Player
from sqn_rl.types import dtype_name

ONNX, PT2 = ".onnx", ".pt2"

SETTINGS = ("device=cpu", "precision=fp32")
"""Overrides for the recipe of an exported policy: other programs compute in float32."""


def require_exportable(path: Path) -> None:
    """Check that a file of this name can be written, before anything is built.

    Raises:
        SettingError: it ends in neither ``.onnx`` nor ``.pt2``, or its folder or the extra is missing.
        OSError: there is a link, a folder or a device of that name.
    """
    require(path.suffix in (ONNX, PT2), "output", str(path), "a file name that ends in .onnx or .pt2")
    require(path.parent.is_dir(), "output", str(path), "a file in a folder that exists")
    require_replaceable(path)
    if path.suffix == ONNX and not (find_spec("onnx") and find_spec("onnxscript")):
        expected = f"the extra `export`: {to_install('export')}; or a .pt2"
        raise SettingError("output", str(path), expected)


def export(policy: Policy, path: Path) -> str:
    """Write the network of a policy: from a batch of observations to the scores by which it acts.

    The input ``observation`` is ``[batch, *S]``, flattened as in training but not scaled, in the dtype of the
    environment. The output ``action_value``, or ``logits`` of a policy network, is ``[batch, A]`` float32.
    Its largest is the greedy action. It is :meth:`Policy.forward`, for any batch size.

    Args:
        policy: made with :data:`SETTINGS`.
        path: the file, a ``.onnx`` or a ``.pt2``.

    Returns:
        A text that describes the input and the output.

    Raises:
        SettingError: see :func:`require_exportable`.
        RecipeError: the networks are recurrent, or PyTorch cannot export a part.
        OSError: the file cannot be written.
    """
    require_exportable(path)
    if Player(policy.actor, num_envs=1).is_recurrent:
        hint = "run it in Python: sqn_rl.load(run).player()"
        raise RecipeError("recurrent networks cannot be exported", hint=hint)
    spec, file = policy.observation_spec, BytesIO()
    has_logits = isinstance(policy.actor, NetworkActor) and not isinstance(policy.actor, ValueActor)
    score = "logits" if has_logits else "action_value"
    example = torch.zeros(2, *spec.shape, dtype=spec.dtype)
    sizes = {"observation": {0: Dim("batch")}}
    learned = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    try:
        program = torch.export.export(policy.requires_grad_(False), (example,), dynamic_shapes=sizes)
        if path.suffix == PT2:
            torch.export.save(program, file)
        else:
            file.write(_onnx(program, score))
    except Exception as error:  # a user's part may raise anything
        raise RecipeError(f"the policy cannot be exported: {explain(error)}") from error
    finally:
        for parameter in learned:
            parameter.requires_grad_()
    save(path, file.getvalue())
    dtype, shape = dtype_name(spec.dtype), ", ".join(map(str, spec.shape))
    return f"observation {dtype} [batch, {shape}] -> {score} float32 [batch, {policy.n_actions}]"


def _onnx(program: ExportedProgram, score: str) -> bytes:
    names: dict[str, Any] = {"input_names": ["observation"], "output_names": [score]}
    with _quiet():
        exported = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert exported is not None
    return exported.model_proto.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages of PyTorch's exporter about its own code and about missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
