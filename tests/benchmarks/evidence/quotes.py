"""What the algorithm pages quote of the report: a table between two comments in each page."""

import textwrap
from collections.abc import Mapping, Sequence

from .plan import ABLATIONS, FAMILIES, SOFT_MEAN, TUNED_MEAN
from .report import REFERENCE, Shares, average, of_families
from .runs import ROOT
from .tables import enough, table

BEGIN, END = "<!-- from the evidence -->", "<!-- end -->"
PAGES: Mapping[str, Sequence[str]] = {
    "sqn": (SOFT_MEAN, *ABLATIONS, "sqn"),
    "dqn": ("dqn", REFERENCE, SOFT_MEAN),
    "n_step": ("dqn_n3", "dqn"),
    "rainbow": ("rainbow", REFERENCE, "sqn_best"),
    "munchausen": ("munchausen_dqn", "dqn", SOFT_MEAN),
    "discrete_sac": ("discrete_sac", "sqn", SOFT_MEAN),
    "tree_backup": ("sqn_best", "sqn_tb", SOFT_MEAN),
}
"""Page → the agents that it quotes, first the one that it is about."""

HOW = """From [the evidence](../results/evidence.md): interquartile means over tasks and seeds, with 95 %
intervals; 0 is random play and 1 the mean of double DQN. *Area* is the return during training, *final* that
of the last weights."""

NOTES: Mapping[str, str] = {
    "sqn": "`sqn` has the minimum of the twins.",
    SOFT_MEAN: "`sqn, soft mean` is today's `sqn`, with the settings that were chosen for the minimum.",
    TUNED_MEAN: "`sqn, soft mean, tuned` has τ = 0.15.",
    "sqn, small α": "The other variants have the minimum, and the settings of `sqn`.",
    "dqn_n3": "`dqn_n3` is `recipe=dqn returns=n_step`.",
}
"""What a page says of an agent in its table."""


def quote(agents: Sequence[str], families: Mapping[str, tuple[Shares, Shares]]) -> str:
    """The table of some agents, of families in which the first has runs enough for an interval."""
    first = agents[0]
    shown = {
        family: shares
        for family, shares in families.items()
        if first in shares[0] and enough(shares[0][first])
    }
    heads = [f"{family}: {what}" for family in shown for what in ("area", "final")]
    lines = []
    for agent in dict.fromkeys(agents):
        cells = [
            average(shares[agent]) if agent in shares and enough(shares[agent]) else "–"
            for both in shown.values()
            for shares in both
        ]
        if any(cell != "–" for cell in cells):
            lines.append([f"`{agent}`", *cells])
    if not lines:
        return ""
    notes = " ".join(NOTES[name] for name in NOTES if any(line[0] == f"`{name}`" for line in lines))
    how = textwrap.fill(f"{HOW} {notes}", 120, break_on_hyphens=False)
    return f"{how}\n\n{table(['agent', *heads], lines)}"


def quoted(page: str, text: str) -> str:
    """A page with ``text`` between its two comments."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "".join([before, BEGIN, f"\n\n{text}\n\n" if text else "\n", END, after])


def write() -> None:
    """Write the quotes into the algorithm pages."""
    families = of_families([*FAMILIES])
    for name, agents in PAGES.items():
        file = ROOT / "docs" / "algorithms" / f"{name}.md"
        file.write_text(quoted(file.read_text(), quote(agents, families)))
