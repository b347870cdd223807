"""The state dict of a ring: a few small values, and the rows, each of which checkpoints write only once.

Legend: N environments, M final observations. A row's *number* counts from the first ever appended; its index
in the ring is that number modulo the number of rows. A transition's number is ``row · N + environment``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sqn_rl.parts.replay.ring import ROW_BYTES, Ring
from sqn_rl.types import PIECE_BYTES, Rows

KIND = ("num_envs", "places", "observation_shape", "observation_dtype")
"""Attributes in which a ring must agree with a state that it loads."""

COLUMNS = {
    "frame": "_frames",
    "frames_before": "_frames_before",
    "action": "action",
    "reward": "reward",
    "terminated": "terminated",
    "truncated": "truncated",
}
"""The columns of a row, and the ring's attributes that hold them."""

MASKS = {"action_mask": "action_mask", "next_action_mask": "next_action_mask"}
"""Those that a row has too where there are action masks."""


def ring_state(ring: Ring) -> dict[str, Any]:
    """All contents of a ring that can still be read, and the free list of its spill area."""
    ended = (ring.successor > ring.places).nonzero().squeeze(-1)
    frames = ring._frames[ring._row(ring.row_count)]
    row_bytes = ring.num_envs * (frames[0].nbytes + ring.mask_bytes + ROW_BYTES)
    oldest = max(0, ring.row_count - ring._rows + 1)
    return {
        **_kind(ring),
        "written": ring.row_count,
        "next_frame": frames.clone(),
        "age": ring._episode_age.clone(),
        "ended": ended,
        "aside": ring.successor[ended],
        "aside_end": ring._spill_end,
        "free": torch.tensor(ring._free_spill, dtype=torch.int64),
        "rows": Rows(oldest, ring.row_count, max(1, PIECE_BYTES // row_bytes), partial(_read, ring)),
    }


def load_ring_state(ring: Ring, state: Mapping[str, Any]) -> None:
    """Load the state of another ring.

    Args:
        ring: its contents are overwritten.
        state: as returned by :func:`ring_state`; ``rows`` may be any iterable of such pieces.

    Raises:
        ValueError: it is the state of another kind of ring, or rows are missing.
    """
    for name, own in _kind(ring).items():
        if state[name] != own:
            raise ValueError(f"{name} was {state[name]} in the replay saved; here it is {own}")
    ring._advance(state["written"])
    ring.successor = ring._next_row(torch.arange(ring.places, device=ring.successor.device))
    ring.successor[state["ended"]] = state["aside"].to(ring.successor)
    ring._rows_with_finals = {place - place % ring.num_envs for place in state["ended"].tolist()}
    ring._spill_end, ring._free_spill = state["aside_end"], state["free"].tolist()
    ring._episode_age.copy_(state["age"])
    reached = max(0, ring.row_count - ring._rows + 1)
    for begin, end, columns in state["rows"]:
        if begin > reached:
            break
        _write(ring, begin, end, columns)
        reached = max(reached, end)
    if reached != ring.row_count:
        raise ValueError(f"of {ring.row_count} rows of the replay those from {reached} on are missing")
    newest = ring._frames[ring._row(ring.row_count)] = state["next_frame"].to(ring._frames)
    spill = ring.successor[ring.newest_row]  # of a row that was cut after its piece was read
    ring._write_spill(spill[spill > ring.places], newest[: len(spill)][spill > ring.places])


def _kind(ring: Ring) -> dict[str, Any]:
    kind = {name: getattr(ring, name) for name in KIND}
    shape, dtype = kind["observation_shape"], kind["observation_dtype"]
    return kind | {"observation_shape": list(shape), "observation_dtype": str(dtype)}


def _read(ring: Ring, begin: int, end: int) -> dict[str, Tensor]:
    """Read the rows ``[begin, end)``, ``[rows · N, …]``, and their final observations, ``[M, …]``.

    Final observations of the row before are included, as a cut may have ended it after it was read.
    """
    place = torch.arange(begin * ring.num_envs, end * ring.num_envs, device=ring.action.device) % ring.places
    stored = COLUMNS if ring.action_mask is None else COLUMNS | MASKS
    columns = {name: getattr(ring, own).index_select(0, place) for name, own in stored.items()}
    first = max(begin - 1, ring.row_count - ring._window, 0)
    number = torch.arange(first * ring.num_envs, end * ring.num_envs, device=place.device)
    number = number[ring.successor[number % ring.places] > ring.places]
    finals = ring._read(ring.successor[number % ring.places]) if len(number) else ring._frames[:0]
    return columns | {"final_of": number, "final_frame": finals}


def _write(ring: Ring, begin: int, end: int, columns: Mapping[str, Tensor]) -> None:
    """Write rows back to their places, and the final observations that the spill area still needs."""
    device = ring.action.device
    place = torch.arange(begin * ring.num_envs, end * ring.num_envs, device=device) % ring.places
    stored = COLUMNS
    if "action_mask" in columns:
        ring.masks(columns["action_mask"].shape[-1])
        stored = COLUMNS | MASKS
    for name, own in stored.items():
        getattr(ring, own).index_copy_(0, place, columns[name].to(device))
    number, finals = columns["final_of"].to(device), columns["final_frame"].to(device)
    spill = ring.successor[number % ring.places]
    needed = (number >= (ring.row_count - ring._window) * ring.num_envs) & (spill > ring.places)
    ring._write_spill(spill[needed], finals[needed])
