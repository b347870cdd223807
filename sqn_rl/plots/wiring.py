"""Draw the wiring as text, as a Mermaid flowchart, or as an SVG picture.

The picture is read clockwise. Its upper row, left to right, shows how the agent acts: encoder, head, twins,
policy, environment. Its lower row, right to left, shows how it learns: replay, returns, loss, optimizer,
target networks. The temperature is in between.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import NamedTuple

from sqn_rl.recipe.graph import Entry, Graph, Node

WIDTH, COLUMN, LINE, LEFT, TOP, GAP = 232, 306, 14, 44, 104, 54
PLACES = {  # column, row
    "encoder": (0, 0), "head": (1, 0), "q_net": (2, 0), "actor": (3, 0), "env": (4, 0),
    "temperature": (3, 1),
    "target_update": (0, 2), "optimizer": (1, 2), "loss": (2, 2), "returns": (3, 2), "replay": (4, 2),
}  # fmt: skip
WITHOUT_BOX = {"layers": ("encoder", "head"), "collect": ("env",)}
"""Slots through which no data flows, and the boxes that show their changes."""
STYLE = """
text { font: 11px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif; }
.title { font-size: 16px; font-weight: 600; } .slot { font-size: 13px; font-weight: 600; }
.says { font-style: italic; } .change { font-weight: 600; } .label { font-size: 10px; }
.shape { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 10px; }
.changed { stroke-width: 3; } .absent { fill: none; stroke-width: 2; stroke-dasharray: 6 4; }
.arrow { fill: none; stroke-width: 1.3; } .under { fill: none; stroke-width: 6; }
"""
COLOURED = """
text { fill: %(ink)s; } .says, .faint, .tip { fill: %(faint)s; } .change { fill: %(change)s; }
.page { fill: %(page)s; } .under { stroke: %(page)s; } .arrow { stroke: %(faint)s; }
.acting { fill: %(acting)s; stroke: %(acts)s; } .learning { fill: %(learning)s; stroke: %(learns)s; }
.changed { fill: %(changed)s; stroke: %(differs)s; } .absent { stroke: %(differs)s; }
"""
LIGHT = {
    "page": "#ffffff", "ink": "#1f2933", "faint": "#52606d", "change": "#a84300",
    "acting": "#e3f2fd", "learning": "#f2f4f6", "changed": "#fff1c9",
    "acts": "#0072b2", "learns": "#7b8794", "differs": "#d55e00",
}  # fmt: skip
DARK = {
    "page": "#14181d", "ink": "#e6e9ec", "faint": "#a8b3be", "change": "#ffb866",
    "acting": "#12304a", "learning": "#222931", "changed": "#40310f",
    "acts": "#56b4e9", "learns": "#7b8794", "differs": "#e69f00",
}  # fmt: skip
"""The colours for readers who prefer dark pages."""


class Route(NamedTuple):
    """The way of an arrow from one box to another: vertical, horizontal, or in three or more legs."""

    start: tuple[str, float] = ("", 0)
    """The side where it starts, and the shift from the middle, or on the left and right from the header."""
    end: tuple[str, float] = ("", 0)
    """The side where it ends, and the shift there."""
    lane: str = ""
    """The lane: ``over`` or ``under`` all boxes, ``between`` the rows, or none."""


ROUTES = {
    ("env", "encoder"): Route(("top", 0), ("top", 0), "over"),
    ("returns", "encoder"): Route(("bottom", 0), ("left", 0), "under"),
    ("actor", "replay"): Route(("bottom", 80), ("top", -70), "between"),
    ("actor", "loss"): Route(("bottom", -80), ("top", 0), "between"),
    ("temperature", "loss"): Route(("left", 0), ("top", 40)),
    ("loss", "temperature"): Route(("top", 85), ("left", 28)),
    ("q_net", "loss"): Route(("bottom", -95), ("top", -95)),
    ("env", "actor"): Route(("left", 22), ("right", 22)),
}
"""Arrows that are not listed connect the facing sides of two boxes."""


def to_text(graph: Graph) -> str:
    """One block per part: the keys that it reads, and from which part; and what it writes."""
    writers = graph.writers()
    lines = []
    for node in graph.nodes:
        lines.append(f"{node.slot}  {node.part}")
        lines += [f"    changed {change}" for change in graph.changes.get(node.slot, ())]
        lines += [f"    reads   {key}  from {writers[key].slot}" for key in node.reads]
        lines += [f"    writes  {entry}" for entry in node.writes]
    shown = {node.slot for node in graph.nodes}
    for slot, changes in graph.changes.items():
        if slot not in shown:
            lines += [slot, *(f"    changed {change}" for change in changes)]
    return "\n".join(lines) + "\n"


def to_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: one box per part, and one arrow per pair of parts, with keys and shapes."""
    lines = ["flowchart LR"]
    lines += [f'    {node.slot}["{node.slot}<br/>{node.part}"]' for node in graph.nodes]
    for producer, consumer, entries in graph.arrows():
        label = "<br/>".join(f"{entry.key} {list(entry.shape)} {entry.dtype}" for entry in entries)
        lines.append(f'    {producer.slot} -- "{label}" --> {consumer.slot}')
    if changed := [node.slot for node in graph.nodes if node.slot in graph.changes]:
        lines.append("    classDef changed fill:#fff1c9,stroke:#d55e00,stroke-width:3px")
        lines.append(f"    class {','.join(changed)} changed")
    return "\n".join(lines) + "\n"


def to_svg(graph: Graph, title: str) -> str:
    """A picture of the wiring: every box has the part's description, and what the part writes.

    Args:
        graph: the wiring; changed parts are highlighted, and list their changes.
        title: the first line.
    """
    board = _Board(graph)
    legend = list(_legend(board, graph))
    dark = f"@media (prefers-color-scheme: dark) {{{COLOURED % DARK}}}"
    width, height = LEFT + 4 * COLUMN + WIDTH + 34, board.bottom + 48
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
            f'viewBox="0 0 {width} {height:g}">',
            f"<title>{escape(title)}</title><style>{STYLE}{COLOURED % LIGHT}{dark}</style>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 10 5 0 10z" class="tip"/></marker></defs>',
            f'<rect width="{width}" height="{height:g}" class="page"/>',
            _text(LEFT, 34, title, "title"),
            *(part for arrow in graph.arrows() for part in board.arrow(*arrow)),
            *(line for box in board.boxes.values() for line in box.svg()),
            *legend,
            "</svg>\n",
        ]
    )


@dataclass
class _Box:
    """The box of a part; ``node`` is None for a slot that is empty because of a change."""

    slot: str
    node: Node | None
    changes: list[str]
    y: float = 0

    def __post_init__(self) -> None:
        column, self.row = PLACES[self.slot]
        self.x = LEFT + COLUMN * column
        says = f"{self.node.says}." if self.node and self.node.says else ""
        self.says = textwrap.wrap(says, 37, max_lines=3, placeholder=" …")
        self.changed = [line for change in self.changes for line in textwrap.wrap(change, 33)]
        self.writes = self.node.writes if self.node else ()
        self.height = 42 + LINE * (len(self.says) + len(self.changed) + len(self.writes))

    @property
    def copies(self) -> int:
        """The number of networks that it holds side by side."""
        shape = self.writes[0].shape if self.writes else ()
        return shape[0] if self.slot in ("encoder", "head", "q_net") and len(shape) > 2 else 1

    def svg(self) -> Iterator[str]:
        x, y = self.x, self.y
        sheets = range(4 * min(self.copies - 1, 3), -1, -4)  # from back to front
        size = f'width="{WIDTH}" height="{self.height}" rx="6" class="{self._kind()}"'
        yield from (f'<rect x="{x + shift}" y="{y + shift}" {size}/>' for shift in sheets)
        yield _text(x + 10, y + 18, self.slot, "slot")
        if self.copies > 1:
            yield _text(x + WIDTH - 10, y + 18, f"× {self.copies}", "slot", "end")
        yield _text(x + 10, y + 33, self.node.part if self.node else "none", "faint")
        lines = [(line, "change") for line in self.changed] + [(line, "says") for line in self.says]
        lines += [(_shaped(entry), "shape") for entry in self.writes]
        for number, (line, style) in enumerate(lines, 1):
            yield _text(x + 10, y + 34 + LINE * number, line, style)

    def _kind(self) -> str:
        """The CSS class of the box."""
        if self.node is None:
            return "absent"
        if self.changes:
            return "changed"
        return "acting" if self.row == 0 else "learning"

    def side(self, name: str, shift: float = 0) -> tuple[float, float]:
        """A point on the border: ``shift`` from the middle, or on the left and right from the header."""
        middle, header = self.x + WIDTH / 2 + shift, self.y + 26 + shift
        return {
            "left": (self.x, header),
            "right": (self.x + WIDTH, header),
            "top": (middle, self.y),
            "bottom": (middle, self.y + self.height),
        }[name]


def _straight(start: _Box, end: _Box) -> Route:
    """The route between the facing sides of two boxes."""
    if start.row == end.row:
        sides = ("right", "left") if start.x < end.x else ("left", "right")
    else:
        sides = ("bottom", "top") if start.y < end.y else ("top", "bottom")
    return Route((sides[0], 0), (sides[1], 0))


class _Board:
    """The boxes at their positions, and the lanes between them."""

    def __init__(self, graph: Graph) -> None:
        nodes, changes = {node.slot: node for node in graph.nodes}, dict(graph.changes)
        changed = {slot: list(changes.get(slot, ())) for slot in PLACES}
        for slot, shown_in in WITHOUT_BOX.items():
            for other in shown_in:
                changed[other] += [f"{slot}: {change}" for change in changes.get(slot, ())]
        self.boxes = {
            slot: _Box(slot, nodes.get(slot), changed[slot])
            for slot in PLACES
            if slot in nodes or changed[slot]
        }
        self.lanes, y = {"over": TOP - 34.0}, float(TOP)
        for row in range(3):
            boxes = [box for box in self.boxes.values() if box.row == row]
            for box in boxes:
                box.y = y
            y += max((box.height for box in boxes), default=0) + GAP
            if row == 0:
                self.lanes["between"] = y - GAP + 22
        self.bottom = y - GAP
        self.lanes["under"] = self.bottom + 22

    def arrow(self, producer: Node, consumer: Node, entries: list[Entry]) -> Iterator[str]:
        """The line of an arrow, and its keys: beside a vertical line, else above the longest level leg."""
        start, end = self.boxes[producer.slot], self.boxes[consumer.slot]
        is_level = start.row == end.row
        route = ROUTES.get((producer.slot, consumer.slot)) or _straight(start, end)
        points = self._points(start.side(*route.start), end.side(*route.end), route)
        yield _line(points)
        keys = _short(entries)
        legs = [leg for leg in pairwise(points) if leg[0][1] == leg[1][1]]
        if not legs:
            (x, y0), (_, y1) = points[0], points[-1]
            yield from _label(x + 8, (y0 + y1) / 2 + 4 - 6 * (len(keys) - 1), keys, "start")
            return
        (x0, y), (x1, _) = max(legs, key=lambda leg: abs(leg[0][0] - leg[1][0]))
        lines = keys if is_level and not route.lane else [", ".join(keys)]
        yield from _label((x0 + x1) / 2, y - 5 - 12 * (len(lines) - 1), lines, "middle")

    def _points(
        self, start: tuple[float, float], end: tuple[float, float], route: Route
    ) -> list[tuple[float, float]]:
        if route.lane:
            lane = self.lanes[route.lane]
            turn = [(end[0], lane)] if route.end[0] == "top" else [(LEFT - 22, lane), (LEFT - 22, end[1])]
            return [start, (start[0], lane), *turn, end]
        if start[0] != end[0] and start[1] != end[1]:
            corner = (end[0], start[1]) if route.end[0] == "top" else (start[0], end[1])
            return [start, corner, end]
        return [start, end]


def _legend(board: _Board, graph: Graph) -> Iterator[str]:
    """The legend, between the rows: the meaning of colours, and changes without a box."""
    kinds = {"acting": "acts", "learning": "learns"}
    if graph.changes:
        kinds["changed"] = "differs from the recipe sqn"
    x, y = LEFT + 20, board.lanes["between"] + 14
    for kind, meaning in kinds.items():
        yield f'<rect x="{x}" y="{y:g}" width="22" height="14" rx="3" class="{kind}"/>'
        yield _text(x + 32, y + 11, meaning)
        y += 24
    yield _text(x, y + 11, "× n: n networks side by side; twins where n is 2", "faint")
    yield _text(x, y + 29, "key [shape] dtype: what a part writes", "faint")
    for slot in (slot for slot in graph.changes if slot not in (*board.boxes, *WITHOUT_BOX)):
        for line in textwrap.wrap(f"{slot}: {', '.join(graph.changes[slot])}", 80):
            yield _text(x, y + 51, line, "change")
            y += LINE


def _shaped(entry: Entry) -> str:
    """``observation [8×128] uint8``; without ``batch.``, as the position shows it."""
    shape = f"[{'×'.join(map(str, entry.shape))}]"
    return f"{_plain(entry.key)} {shape} {entry.dtype}"


def _plain(key: str) -> str:
    return key.removeprefix("batch.")


def _short(entries: list[Entry]) -> list[str]:
    """The keys that an arrow carries; three or more of one family as ``next.*``."""
    families = [entry.key.partition(".")[0] for entry in entries]
    keys = (
        f"{family}.*" if families.count(family) > 2 else _plain(entry.key)
        for family, entry in zip(families, entries, strict=True)
    )
    return list(dict.fromkeys(keys))


def _line(points: list[tuple[float, float]]) -> str:
    path = " ".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{path}" class="under"/><path d="M{path}" class="arrow" marker-end="url(#tip)"/>'


def _label(x: float, y: float, lines: list[str], anchor: str) -> Iterator[str]:
    return (_text(x, y + 12 * number, line, "label", anchor) for number, line in enumerate(lines))


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
