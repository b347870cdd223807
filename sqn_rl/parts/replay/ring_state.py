"""The state dict of a ring: a few small values, and the rows, each of which checkpoints write only once.

Several lanes share one table: its rows are in the order in which they were appended, each with its lane and
its number there. Rows that were appended after a slow lane's oldest row stay on the disk for longer.

Legend: N environments in lanes of E, R rows, M final observations. A row's *number* counts from the first
ever appended to its lane; its index in the ring is that number modulo the number of rows. A transition's
number is ``row · N + environment``.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sqn_rl.parts.replay.ring import ROW_BYTES, Ring
from sqn_rl.types import PIECE_BYTES, Piece, Rows

KIND = ("num_envs", "places", "observation_shape", "observation_dtype")
"""Attributes in which a ring must agree with a state that it loads."""


def ring_state(ring: Ring) -> dict[str, Any]:
    """All contents of a ring that can still be read, and the free list of its spill area."""
    ended = (ring.successor > ring.places).nonzero().squeeze(-1)
    frames = torch.cat([ring.frames.main[ring._row(*each)] for each in enumerate(ring._counts)])
    row_bytes = ring.lane_envs * (ring.frame_bytes + ring.optional_bytes + ROW_BYTES)
    oldest = sum(ring._forgotten) if ring.lanes > 1 else max(0, ring.row_count - ring._rows + 1)
    several = {"lanes": ring.lanes, "forgotten": [*ring._forgotten]} if ring.lanes > 1 else {}
    steps = {} if ring.states is None else {"episode_steps": ring.states.age.clone()}
    return {
        **_kind(ring),
        **several,
        **steps,
        "written": [*ring._counts] if several else ring.row_count,
        "next_frame": frames,
        "age": ring._episode_age.clone(),
        "ended": ended,
        "aside": ring.successor[ended],
        "aside_end": ring.frames.spill_end,
        "free": torch.tensor(ring.frames.free_spill, dtype=torch.int64),
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
    for name, own in {**_kind(ring), "lanes": ring.lanes}.items():
        if state.get(name, 1) != own:
            raise ValueError(f"{name} was {state.get(name, 1)} in the replay saved; here it is {own}")
    written = state["written"]
    for lane, count in enumerate(written if ring.lanes > 1 else [written]):
        ring._advance(lane, count)
    ring.successor = ring._next_row(torch.arange(ring.places, device=ring.successor.device))
    ring.successor[state["ended"]] = state["aside"].to(ring.successor)
    ring._rows_with_finals = {place - place % ring.lane_envs for place in state["ended"].tolist()}
    ring.frames.spill_end, ring.frames.free_spill = state["aside_end"], state["free"].tolist()
    ring._episode_age.copy_(state["age"])
    ring._forgotten = [*state.get("forgotten", [0])]
    if ring.states is not None:
        ring.states.age.copy_(state["episode_steps"])
    _load_rows(ring, state["rows"])
    if ring._order:
        ring._advance(ring._order[-1], ring._counts[ring._order[-1]])
    newest = state["next_frame"].to(ring.frames.main)
    for lane, count in enumerate(ring._counts):
        ring.frames.main[ring._row(lane, count)] = newest[ring.columns(lane)]
    place = ring.newest_places()
    spill = ring.successor[place.clamp(min=0)]  # of a row that was cut after its piece was read
    cut = (spill > ring.places) & (place >= 0)
    ring.frames.write_spill(spill[cut], newest[cut])


def _load_rows(ring: Ring, rows: Iterable[Piece]) -> None:
    """Write back the rows that are needed, and with several lanes their order."""
    reached = sum(ring._forgotten) if ring.lanes > 1 else max(0, ring.row_count - ring._rows + 1)
    ring._order.clear()
    for begin, end, columns in rows:
        if begin > reached:
            break
        if ring.lanes > 1:
            ring._order.extend(columns["lane"][reached - begin :].tolist())
            _write(ring, columns["lane"], columns["row"], columns)
        else:
            _write(ring, *_plain_rows(begin, end), columns)
        reached = max(reached, end)
    if reached != ring.row_count:
        raise ValueError(f"of {ring.row_count} rows of the replay those from {reached} on are missing")


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


def _plain_rows(begin: int, end: int) -> tuple[Tensor, Tensor]:
    """The lanes and the numbers of rows where there is one lane, ``[R]`` each."""
    return torch.zeros(end - begin, dtype=torch.int64), torch.arange(begin, end)


def _ordered_rows(ring: Ring, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """The lanes and the numbers of rows where there are several lanes, ``[R]`` each."""
    oldest = sum(ring._forgotten)
    order = torch.tensor([*islice(ring._order, end - oldest)], dtype=torch.int64)
    row = torch.zeros_like(order)
    for lane, forgotten in enumerate(ring._forgotten):
        own = order == lane
        row[own] = torch.arange(forgotten, forgotten + int(own.sum()))
    return order[begin - oldest :], row[begin - oldest :]


def _numbers(ring: Ring, lane_R: Tensor, row_R: Tensor) -> Tensor:
    """The numbers of these rows' transitions, ``[R · E]``."""
    first_R = row_R * ring.num_envs + lane_R * ring.lane_envs
    return (first_R.unsqueeze(-1) + torch.arange(ring.lane_envs)).flatten().to(ring.action.device)


def _read(ring: Ring, begin: int, end: int) -> dict[str, Tensor]:
    """Read the rows ``[begin, end)``, ``[R · E, …]``, and their final observations, ``[M, …]``.

    Final observations of a lane's row before are included, as a cut may have ended it after it was read.
    """
    lane_R, row_R = _ordered_rows(ring, begin, end) if ring.lanes > 1 else _plain_rows(begin, end)
    number = _numbers(ring, lane_R, row_R)
    place = number % ring.places
    stored = _columns(ring) | _optional_columns(ring)
    columns = {name: column.index_select(0, place) for name, column in stored.items()}
    if ring.states is not None:
        columns |= ring.states.read(place, number // ring.num_envs)
    if ring.lanes > 1:
        columns |= {"lane": lane_R, "row": row_R}
    number = torch.cat([_candidates(ring, lane, row_R[lane_R == lane]) for lane in lane_R.unique().tolist()])
    number = number[ring.successor[number % ring.places] > ring.places]
    finals = ring.frames.read(ring.successor[number % ring.places])
    return columns | {"final_of": number, "final_frame": finals}


def _candidates(ring: Ring, lane: int, row_R: Tensor) -> Tensor:
    """The numbers of a lane's transitions, in these rows and the one before, that may have ended."""
    first = max(int(row_R[0]) - 1, ring._counts[lane] - ring._window, 0)
    row = torch.arange(first, max(first, int(row_R[-1]) + 1))
    return _numbers(ring, torch.full_like(row, lane), row)


def _write(ring: Ring, lane_R: Tensor, row_R: Tensor, columns: Mapping[str, Tensor]) -> None:
    """Write rows back to their places, and the final observations that the spill area still needs."""
    device = ring.action.device
    number = _numbers(ring, lane_R, row_R)
    place = number % ring.places
    if ring.states is not None:
        ring.states.write(place, number // ring.num_envs, columns)
    if "action_mask" in columns:
        ring.create_masks(columns["action_mask"].shape[-1])
    if "log_mu" in columns:
        ring.create_log_mu()
    optional = {name: column for name, column in _optional_columns(ring).items() if name in columns}
    for name, column in (_columns(ring) | optional).items():
        column.index_copy_(0, place, columns[name].to(device))
    number, finals = columns["final_of"].to(device), columns["final_frame"].to(device)
    spill = ring.successor[number % ring.places]
    count = torch.tensor(ring._counts, device=device)[number % ring.num_envs // ring.lane_envs]
    needed = (number // ring.num_envs >= count - ring._window) & (spill > ring.places)
    ring.frames.write_spill(spill[needed], finals[needed])
