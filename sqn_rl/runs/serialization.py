"""A state on disk: its tensors as a safetensors file, the rest as JSON."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sqn_rl.errors import CheckpointError
from sqn_rl.types import Piece, Rows

TENSOR, ROWS = "$tensor", "$rows"
"""Stand in the JSON for what is none."""

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls them."""


def pack(value: Any, path: str, tensors: dict[str, Tensor], rows: list[Rows]) -> Any:
    """A state as JSON.

    Args:
        value: dicts and lists of tensors, :class:`Rows`, and what JSON has.
        path: where it is in the state.
        tensors: get the tensors, by their path.
        rows: get the tables.
    """
    if isinstance(value, Tensor):
        tensors[path] = value
        return {TENSOR: path}
    if isinstance(value, Rows):
        rows.append(value)
        return {ROWS: value.table or True}  # of the first it has always been True
    if isinstance(value, Mapping):
        return {name: pack(each, f"{path}/{name}", tensors, rows) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [pack(each, f"{path}/{index}", tensors, rows) for index, each in enumerate(value)]
    return value


def unpack(value: Any, tensors: Mapping[str, Tensor], pieces: Callable[[int], Iterable[Piece]]) -> Any:
    """The state that :func:`pack` packed; for its tables, by their number, it has ``pieces``.

    Raises:
        LookupError: a tensor is not there.
    """
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return tensors[value[TENSOR]]
        if value.keys() == {ROWS}:
            return pieces(0 if value[ROWS] is True else value[ROWS])
        return {name: unpack(each, tensors, pieces) for name, each in value.items()}
    if isinstance(value, list):
        return [unpack(each, tensors, pieces) for each in value]
    return value


def tensors_file(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The contents of a safetensors file, without a copy of all tensors in memory."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # so that each is aligned
    header, at = {}, 0
    for name, tensor in ordered:
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """A file's tensors, by name; copies, as a mapped file is not aligned as arithmetic likes it.

    Raises:
        CheckpointError: it is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a mapping
                yield name, file.get_tensor(name).clone()
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as tensors ({error})") from error
