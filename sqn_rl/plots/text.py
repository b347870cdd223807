"""The wiring for people, as text and as a Mermaid flowchart."""

from sqn_rl.recipe.graph import Graph


def to_text(graph: Graph) -> str:
    """One block a part: what it reads and from whom, and what it writes, with shapes and dtypes."""
    writers = graph.writers()
    lines = []
    for node in graph.nodes:
        lines.append(f"{node.slot}  {node.part}")
        lines += [f"    changed {change}" for change in graph.changes.get(node.slot, ())]
        lines += [f"    reads   {key}  from {writers[key].slot}" for key in node.reads]
        lines += [f"    writes  {entry}" for entry in node.writes]
    there = {node.slot for node in graph.nodes}
    for slot, changes in graph.changes.items():
        if slot not in there:
            lines += [slot, *(f"    changed {change}" for change in changes)]
    return "\n".join(lines) + "\n"


def to_mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: a box a part, an arrow a pair of parts, labelled with keys and shapes."""
    lines = ["flowchart LR"]
    lines += [f'    {node.slot}["{node.slot}<br/>{node.part}"]' for node in graph.nodes]
    for producer, consumer, entries in graph.arrows():
        label = "<br/>".join(f"{entry.key} {list(entry.shape)} {entry.dtype}" for entry in entries)
        lines.append(f'    {producer.slot} -- "{label}" --> {consumer.slot}')
    if changed := [node.slot for node in graph.nodes if node.slot in graph.changes]:
        lines.append("    classDef changed fill:#fff1c9,stroke:#d55e00,stroke-width:3px")
        lines.append(f"    class {','.join(changed)} changed")
    return "\n".join(lines) + "\n"
