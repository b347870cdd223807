"""The state dict of a ring: a few small values, and the rows, each of which checkpoints write only once.

All lanes share one table, with their rows in the order in which they were appended. With several lanes it
has the lane and the number of each row; with one lane a row's position in the table is its number.

Legend: N environments in lanes of E, R rows, M final observations. A row's *number* counts from the first
ever appended to its lane; its index in the ring is that number modulo the number of rows. A transition's
number is ``row · N + environment``, and its place is that number modulo the number of places.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sqn_rl.parts.replay.append_order import AppendOrder
from sqn_rl.parts.replay.ring import ROW_BYTES, Ring
from sqn_rl.types import PIECE_BYTES, Piece, Rows

KIND = ("num_envs", "places", "observation_shape", "observation_dtype")
"""Attributes in which a ring must agree with a state that it loads."""


def ring_state(ring: Ring) -> dict[str, Any]:
    """All contents of a ring that can still be read, and the free list of its spill area.

    Checkpoints keep the keys of earlier versions: ``written`` counts rows, ``age`` is the steps since each
    environment's episode began, ``aside`` the place in the spill area of the final frame of each place in
    ``ended``, and ``forgotten`` the number of rows that each lane has dropped.
    """
    next_frame = [ring.frames.main[ring._row(lane, count)] for lane, count in enumerate(ring._counts)]
    ended = (ring.successor > ring.places).nonzero().squeeze(-1)
    row_bytes = ring.lane_envs * (ring.frame_bytes + ring.optional_bytes + ROW_BYTES)
    piece_rows = max(1, PIECE_BYTES // row_bytes)
    state = {
        **_kind(ring),
        "written": [*ring._counts] if ring.lanes > 1 else ring.row_count,
        "next_frame": torch.cat(next_frame),
        "age": ring._episode_age.clone(),
        "ended": ended,
        "aside": ring.successor[ended],
        "aside_end": ring.frames.spill_end,
        "free": torch.tensor(ring.frames.free_spill, dtype=torch.int64),
        "rows": Rows(ring.order.begin, ring.order.end, piece_rows, partial(_read, ring)),
    }
    if ring.lanes > 1:
        state |= {"lanes": ring.lanes, "forgotten": [*ring.order.dropped]}
    if ring.starts is not None:
        state["episode_steps"] = ring.starts.age.clone()
    return state


def load_ring_state(ring: Ring, state: Mapping[str, Any]) -> None:
    """Load the state of another ring.

    Args:
        ring: its contents are overwritten.
        state: as returned by :func:`ring_state`; ``rows`` may be any iterable of such pieces.

    Raises:
        ValueError: it is the state of another kind of ring, or rows are missing.
    """
    for name, own in {**_kind(ring), "lanes": ring.lanes}.items():
        if state.get(name, 1) != own:
            raise ValueError(f"{name} was {state.get(name, 1)} in the replay saved; here it is {own}")
    ring.action_mask = ring.next_action_mask = ring.log_mu = None
    written = state["written"] if ring.lanes > 1 else [state["written"]]
    for lane, count in enumerate(written):
        ring._advance(lane, count)
    ring.order = AppendOrder(state.get("forgotten", [max(0, written[0] - ring._rows + 1)]))
    ring.successor = ring._next_row(torch.arange(ring.places, device=ring.successor.device))
    ring.successor[state["ended"]] = state["aside"].to(ring.successor)
    ring._rows_with_finals = {place - place % ring.lane_envs for place in state["ended"].tolist()}
    ring.frames.spill_end, ring.frames.free_spill = state["aside_end"], state["free"].tolist()
    ring._episode_age.copy_(state["age"])
    if ring.starts is not None:
        ring.starts.age.copy_(state["episode_steps"])
    _load_rows(ring, state["rows"])
    if (newest_lane := ring.order.newest_lane) is not None:
        ring._advance(newest_lane, ring._counts[newest_lane])
    _load_next_frames(ring, state["next_frame"].to(ring.frames.main))


def _load_rows(ring: Ring, rows: Iterable[Piece]) -> None:
    """Write back the rows that are needed, and their order."""
    order = ring.order
    for begin, end, columns in rows:
        if begin > order.end:
            break
        lane_R = columns.get("lane", torch.zeros(end - begin, dtype=torch.int64))
        row_R = columns.get("row", torch.arange(begin, end))
        order.extend(lane_R[order.end - begin :])
        _write(ring, lane_R, row_R, columns)
    if order.end != ring.row_count:
        raise ValueError(f"of {ring.row_count} rows of the replay those from {order.end} on are missing")


def _load_next_frames(ring: Ring, frames: Tensor) -> None:
    """Write back the next observations of the newest transitions, ``[N, *F]``: those of the lanes' last rows.

    Where one is in the spill area, a cut may have moved it there after the row was read.
    """
    for lane, count in enumerate(ring._counts):
        ring.frames.main[ring._row(lane, count)] = frames[ring.environments(lane)]
    place = ring.newest_places()
    successor = ring.successor[place.clamp(min=0)]
    spilled = (successor > ring.places) & (place >= 0)
    ring.frames.write_spill(successor[spilled], frames[spilled])


def _kind(ring: Ring) -> dict[str, Any]:
    kind = {name: getattr(ring, name) for name in KIND}
    shape, dtype = kind["observation_shape"], kind["observation_dtype"]
    return kind | {"observation_shape": list(shape), "observation_dtype": str(dtype)}


def _columns(ring: Ring) -> dict[str, Tensor]:
    """The columns of every ring, ``[places, …]``, by their names in checkpoints."""
    return {
        "frame": ring.frames.main,
        "frames_before": ring._frames_before,
        "action": ring.action,
        "reward": ring.reward,
        "terminated": ring.terminated,
        "truncated": ring.truncated,
    }


def _optional_columns(ring: Ring) -> dict[str, Tensor]:
    """The columns of a ring with action masks, or whose actors record log μ."""
    names = ("action_mask", "next_action_mask", "log_mu")
    return {name: column for name in names if (column := getattr(ring, name)) is not None}


def _numbers(ring: Ring, lane_R: Tensor, row_R: Tensor) -> Tensor:
    """The numbers of these rows' transitions, ``[R · E]``."""
    first_R = row_R * ring.num_envs + lane_R * ring.lane_envs
    return (first_R.unsqueeze(-1) + torch.arange(ring.lane_envs)).flatten().to(ring.action.device)


def _is_spilled(ring: Ring, number: Tensor) -> Tensor:
    """Whether a transition is in the ring and its next observation in the spill area, ``[*]`` → ``[*]``."""
    oldest_row = (ring.count(number) - ring._window).clamp(min=0)
    return (number // ring.num_envs >= oldest_row) & (ring.successor[number % ring.places] > ring.places)


def _read(ring: Ring, begin: int, end: int) -> dict[str, Tensor]:
    """Read the rows at positions ``[begin, end)``, ``[R · E, …]``, and their final observations, ``[M, …]``.

    Final observations of the row before each are included, as a cut may have ended it after it was read.
    """
    lane_R, row_R = ring.order.rows(begin, end)
    number = _numbers(ring, lane_R, row_R)
    place = number % ring.places
    stored = _columns(ring) | _optional_columns(ring)
    columns = {name: column.index_select(0, place) for name, column in stored.items()}
    if ring.starts is not None:
        columns |= ring.starts.read(place, number // ring.num_envs)
    if ring.lanes > 1:
        columns |= {"lane": lane_R, "row": row_R}
    candidate = torch.cat([number, number - ring.num_envs])
    final = candidate[_is_spilled(ring, candidate)].unique()
    return columns | {
        "final_of": final,
        "final_frame": ring.frames.read(ring.successor[final % ring.places]),
    }


def _write(ring: Ring, lane_R: Tensor, row_R: Tensor, columns: Mapping[str, Tensor]) -> None:
    """Write rows back to their places, and the final observations that are still in the spill area."""
    device = ring.action.device
    number = _numbers(ring, lane_R, row_R)
    place = number % ring.places
    if ring.starts is not None:
        ring.starts.write(place, number // ring.num_envs, columns)
    if "action_mask" in columns:
        ring.create_masks(columns["action_mask"].shape[-1])
    if "log_mu" in columns:
        ring.create_log_mu()
    optional = {name: column for name, column in _optional_columns(ring).items() if name in columns}
    for name, column in (_columns(ring) | optional).items():
        column.index_copy_(0, place, columns[name].to(device))
    final, frames = columns["final_of"].to(device), columns["final_frame"].to(device)
    needed = _is_spilled(ring, final)
    ring.frames.write_spill(ring.successor[final[needed] % ring.places], frames[needed])
