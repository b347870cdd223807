"""The state of a ring: a little that is taken whole, and rows, each of which a checkpoint writes only once.

Legend: N environments, M finals. A row's *number* counts from the first ever appended; in the ring it lies at
that number modulo the rows that there are. Likewise a transition's number, ``row · N + environment``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sqn_rl.parts.replay.ring import ROW_BYTES, Ring
from sqn_rl.types import PIECE_BYTES, Rows

KIND = ("num_envs", "places", "observation_shape", "observation_dtype")
"""What a ring must have in common with the one whose state it loads."""

COLUMNS = {
    "frame": "_frames",
    "frames_before": "_before",
    "action": "action",
    "reward": "reward",
    "terminated": "terminated",
    "truncated": "truncated",
}
"""What a row is, and the ring's name for it."""


def ring_state(ring: Ring) -> dict[str, Any]:
    """All that can ever be read of a ring, and the order in which its places are used again."""
    ended = (ring.following > ring.places).nonzero().squeeze(-1)
    frames = ring._frames[ring._row(ring.written)]
    row_bytes = ring.num_envs * (frames[0].nbytes + ROW_BYTES)
    oldest = max(0, ring.written - ring._rows + 1)
    return {
        **_kind(ring),
        "written": ring.written,
        "next_frame": frames.clone(),
        "age": ring._age.clone(),
        "ended": ended,
        "aside": ring.following[ended],
        "aside_end": ring._aside_end,
        "free": torch.tensor(ring._free, dtype=torch.int64),
        "rows": Rows(oldest, ring.written, max(1, PIECE_BYTES // row_bytes), partial(_read, ring)),
    }


def load_ring_state(ring: Ring, state: Mapping[str, Any]) -> None:
    """Make a ring what another was.

    Args:
        ring: whatever is in it is lost.
        state: as :func:`ring_state` gives it; ``rows`` may be any iterable of such pieces.

    Raises:
        ValueError: it was another kind of ring, or rows are missing.
    """
    for name, own in _kind(ring).items():
        if state[name] != own:
            raise ValueError(f"{name} was {state[name]} in the replay saved; here it is {own}")
    ring._advance(state["written"])
    ring.following = ring._next_row(torch.arange(ring.places, device=ring.following.device))
    ring.following[state["ended"]] = state["aside"].to(ring.following)
    ring._ended = {place - place % ring.num_envs for place in state["ended"].tolist()}
    ring._aside_end, ring._free = state["aside_end"], state["free"].tolist()
    ring._age.copy_(state["age"])
    reached = max(0, ring.written - ring._rows + 1)
    for begin, end, columns in state["rows"]:
        if begin > reached:
            break
        _write(ring, begin, end, columns)
        reached = max(reached, end)
    if reached != ring.written:
        raise ValueError(f"of {ring.written} rows of the replay those from {reached} on are missing")
    newest = ring._frames[ring._row(ring.written)] = state["next_frame"].to(ring._frames)
    aside = ring.following[ring.newest]  # of a row that was cut since its piece was read
    ring._lay_aside(aside[aside > ring.places], newest[: len(aside)][aside > ring.places])


def _kind(ring: Ring) -> dict[str, Any]:
    kind = {name: getattr(ring, name) for name in KIND}
    shape, dtype = kind["observation_shape"], kind["observation_dtype"]
    return kind | {"observation_shape": list(shape), "observation_dtype": str(dtype)}


def _read(ring: Ring, begin: int, end: int) -> dict[str, Tensor]:
    """Rows from one number to another, ``[rows · N, …]``, and the finals of their transitions, ``[M, …]``.

    And of those in the row before, which a cut may have ended since that was read.
    """
    place = torch.arange(begin * ring.num_envs, end * ring.num_envs, device=ring.action.device) % ring.places
    columns = {name: getattr(ring, own).index_select(0, place) for name, own in COLUMNS.items()}
    first = max(begin - 1, ring.written - ring._window, 0)
    number = torch.arange(first * ring.num_envs, end * ring.num_envs, device=place.device)
    number = number[ring.following[number % ring.places] > ring.places]
    finals = ring._read(ring.following[number % ring.places]) if len(number) else ring._frames[:0]
    return columns | {"final_of": number, "final_frame": finals}


def _write(ring: Ring, begin: int, end: int, columns: Mapping[str, Tensor]) -> None:
    """Put rows back where they were, and those finals that still lie aside."""
    device = ring.action.device
    place = torch.arange(begin * ring.num_envs, end * ring.num_envs, device=device) % ring.places
    for name, own in COLUMNS.items():
        getattr(ring, own).index_copy_(0, place, columns[name].to(device))
    number, finals = columns["final_of"].to(device), columns["final_frame"].to(device)
    aside = ring.following[number % ring.places]
    needed = (number >= (ring.written - ring._window) * ring.num_envs) & (aside > ring.places)
    ring._lay_aside(aside[needed], finals[needed])
