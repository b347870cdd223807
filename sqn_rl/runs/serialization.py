"""Write and read a state: its tensors as a safetensors file, the rest as JSON."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sqn_rl.errors import CheckpointError
from sqn_rl.types import Piece, Rows, dtype_name

TENSOR, ROWS = "$tensor", "$rows"
"""Keys of the placeholders for values that JSON lacks."""

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
"""The names of dtypes in safetensors."""


def pack(value: Any, path: str, tensors: dict[str, Tensor], rows: list[Rows]) -> Any:
    """A state as JSON.

    Args:
        value: dicts and lists of tensors, :class:`Rows`, and JSON values.
        path: the place of the value in the state.
        tensors: receives the tensors, by their path.
        rows: receives the tables.

    Raises:
        CheckpointError: a value is none of these, a key is no text, or two tensors have the same path.
    """
    if isinstance(value, Tensor):
        if path in tensors:
            raise CheckpointError(f"{path}: two tensors in a state_dict have this path; rename a key")
        tensors[path] = value
        return {TENSOR: path}
    if isinstance(value, Rows):
        rows.append(value)
        return {ROWS: value.table or True}  # the first table has always been written as True
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise CheckpointError(f"{path}: the key {name!r} in a state_dict; expected texts as keys")
        return {name: pack(each, f"{path}/{name}", tensors, rows) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [pack(each, f"{path}/{index}", tensors, rows) for index, each in enumerate(value)]
    if not isinstance(value, str | int | float | None):
        expected = "expected tensors, numbers, texts, and lists and dicts of them"
        raise CheckpointError(f"{path}: a {type(value).__name__} in a state_dict; {expected}")
    return value


def unpack(value: Any, tensors: Mapping[str, Tensor], pieces: Callable[[int], Iterable[Piece]]) -> Any:
    """The state that :func:`pack` packed; ``pieces`` gives the rows of a table by its number.

    Raises:
        LookupError: a tensor is missing.
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
    """The contents of a safetensors file, without a copy of all tensors in memory.

    Raises:
        CheckpointError: a tensor has a dtype that safetensors lacks.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # so that each is aligned
    header, at = {}, 0
    for name, tensor in ordered:
        if tensor.dtype not in DTYPES:
            known = ", ".join(map(dtype_name, DTYPES))
            raise CheckpointError(f"{name}: a tensor of {tensor.dtype} in a state_dict; expected {known}")
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
    """A file's tensors, by name; copied, as those in a mapped file may not be aligned for arithmetic.

    Raises:
        CheckpointError: it is not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a mapping
                yield name, file.get_tensor(name).clone()
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as tensors ({error})") from error
