"""The wiring for people: as text, as a Mermaid flowchart, and as an SVG picture."""

from collections.abc import Iterator
from html import escape

from sqn_rl.graph import Entry, Graph, Node

Point = tuple[float, float]


def to_text(graph: Graph) -> str:
    """One block a part: what it reads and from whom, and what it writes, with shapes and dtypes."""
    writers = graph.writers()
    lines = []
    for node in graph.nodes:
        lines.append(f"{node.slot}  {node.part}")
        lines += [f"    reads   {key}  from {writers[key].slot}" for key in node.reads]
        lines += [f"    writes  {entry}" for entry in node.writes]
    return "\n".join(lines) + "\n"


def to_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: a box a part, an arrow a pair of parts, labelled with keys and shapes."""
    lines = ["flowchart LR"]
    lines += [f'    {node.slot}["{node.slot}<br/>{node.part}"]' for node in graph.nodes]
    for producer, consumer, entries in _arrows(graph):
        label = "<br/>".join(f"{entry.key} {list(entry.shape)} {entry.dtype}" for entry in entries)
        lines.append(f'    {producer.slot} -- "{label}" --> {consumer.slot}')
    return "\n".join(lines) + "\n"


WIDTH, COLUMN, LINE, TOP = 240, 350, 15, 90
PLACES = {  # column, row
    "env": (0, 0), "encoder": (1, 0), "head": (2, 0), "q_net": (3, 0), "actor": (4, 0),
    "replay": (0, 1), "returns": (1, 1), "loss": (3, 1), "temperature": (4, 1),
    "optimizer": (3, 2), "target_update": (4, 2),
}  # fmt: skip
ROWS = (TOP, TOP + 250, TOP + 460)
STYLE = """
text { font: 11px ui-sans-serif, system-ui, sans-serif; fill: #1f2933; }
.slot { font-weight: 600; font-size: 13px; } .part { fill: #52606d; }
.shape { font-family: ui-monospace, monospace; font-size: 10px; }
.acting { fill: #e3f2fd; stroke: #0072b2; } .learning { fill: #fdf0e6; stroke: #d55e00; }
.arrow { fill: none; stroke: #52606d; stroke-width: 1.3; } .label { font-size: 10px; fill: #323f4b; }
.under { fill: none; stroke: #ffffff; stroke-width: 5; }
"""


def to_svg(graph: Graph, title: str) -> str:
    """A picture: acting above, learning below, and in every box what the part writes."""
    boxes = {node.slot: _Box(node) for node in graph.nodes}
    width = COLUMN * 4 + WIDTH + 60
    height = max(box.y + box.height for box in boxes.values()) + 40
    arrows = [
        part
        for producer, consumer, entries in _arrows(graph)
        for part in _arrow(boxes, producer, consumer, entries)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 10 5 0 10z" fill="#52606d"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            f'<text x="30" y="30" class="slot">{escape(title)}</text>',
            *arrows,
            *(box.svg() for box in boxes.values()),
            "</svg>\n",
        ]
    )


class _Box:
    def __init__(self, node: Node) -> None:
        self.node = node
        column, row = PLACES[node.slot]
        self.x, self.y = 30 + COLUMN * column, ROWS[row]
        self.height = 44 + LINE * len(node.writes)
        self.kind = "acting" if row == 0 else "learning"

    def svg(self) -> str:
        lines = [
            f'<rect x="{self.x}" y="{self.y}" width="{WIDTH}" height="{self.height}" rx="6" '
            f'class="{self.kind}"/>',
            f'<text x="{self.x + 10}" y="{self.y + 18}" class="slot">{self.node.slot}</text>',
            f'<text x="{self.x + 10}" y="{self.y + 33}" class="part">{escape(self.node.part)}</text>',
        ]
        for number, entry in enumerate(self.node.writes, 1):
            y = self.y + 35 + LINE * number
            lines.append(f'<text x="{self.x + 10}" y="{y}" class="shape">{escape(_plain(str(entry)))}</text>')
        return "\n".join(lines)

    def side(self, name: str, shift: float = 0) -> Point:
        """A point on the border; ``shift`` along it from the middle."""
        middle = (self.x + WIDTH / 2 + shift, self.y + self.height / 2 + shift)
        return {
            "left": (self.x, middle[1]),
            "right": (self.x + WIDTH, middle[1]),
            "top": (middle[0], self.y),
            "bottom": (middle[0], self.y + self.height),
        }[name]


def _arrow(boxes: dict[str, _Box], producer: Node, consumer: Node, entries: list[Entry]) -> Iterator[str]:
    """A line with a tip and the keys it carries; acting runs left to right, and back over the top."""
    start, end = boxes[producer.slot], boxes[consumer.slot]
    keys = [_plain(entry.key) for entry in entries]
    if producer.slot == "actor":
        shift = 20 if consumer.slot == "env" else -20
        over = TOP - 30 if consumer.slot == "env" else ROWS[1] - 35
        side = "top" if consumer.slot == "env" else "bottom"
        (x0, y0), (x1, y1) = start.side(side, shift), end.side("top", shift)
        yield _line([(x0, y0), (x0, over), (x1, over), (x1, y1)])
        yield _label(((x0 + x1) / 2, over - 5), keys)
    elif start.x == end.x:
        sides = ("bottom", "top") if start.y < end.y else ("top", "bottom")
        points = [start.side(sides[0]), end.side(sides[1])]
        yield _line(points)
        middle = (points[0][1] + points[1][1]) / 2 - 6 * len(keys)
        yield _label((points[0][0] + 8, middle), keys, "start")
    else:
        rightward = start.x < end.x
        shift = -12 if rightward else 12
        y = max(start.y, end.y) + min(start.height, end.height) / 2 + shift
        x0, x1 = (start.x + WIDTH, end.x) if rightward else (start.x, end.x + WIDTH)
        yield _line([(x0, y), (x1, y)])
        yield _label(
            ((x0 + x1) / 2, y - 5 if rightward else y + 12), [", ".join(keys)] if rightward else keys
        )


def _plain(key: str) -> str:
    """The key without ``batch.``, which a picture shows by its place."""
    return key.removeprefix("batch.")


def _line(points: list[Point]) -> str:
    path = " ".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{path}" class="under"/><path d="M{path}" class="arrow" marker-end="url(#tip)"/>'


def _label(at: Point, lines: list[str], anchor: str = "middle") -> str:
    rows = []
    for number, line in enumerate(lines):
        place = f'x="{at[0]:g}" y="{at[1] + 12 * number:g}" text-anchor="{anchor}"'
        rows.append(f'<text {place} class="label">{escape(line)}</text>')
    return "".join(rows)


def _arrows(graph: Graph) -> Iterator[tuple[Node, Node, list[Entry]]]:
    """The edges, those between the same two parts together."""
    together: dict[tuple[str, str], tuple[Node, Node, list[Entry]]] = {}
    for producer, consumer, entry in graph.edges():
        together.setdefault((producer.slot, consumer.slot), (producer, consumer, []))[2].append(entry)
    yield from together.values()
