"""Links names in prose to the reference, and escapes text in docstrings."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

OUTSIDE = {"../CHANGELOG.md": "changelog.md", "../CONTRIBUTING.md": "contributing.md"}
"""Pages above this folder, and the pages here that include them."""


class LinkNames(SphinxPostTransform):
    """Links ``sqn_rl.functional.entropy``, written as code on any page, to its documentation."""

    default_priority = 5

    def run(self, **kwargs: object) -> None:
        """Called by Sphinx for each page."""
        python = self.env.domains.python_domain
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext()
            if not re.fullmatch(r"sqn_rl(\.\w+)+", name):
                continue
            name = name if name in python.objects else name.rpartition(".")[0]  # inherited: link the class
            if name not in python.objects:
                continue
            if isinstance(literal.parent, nodes.reference | addnodes.pending_xref | nodes.title):
                continue
            there = python.objects[name]
            link = make_refnode(
                self.app.builder, self.env.docname, there.docname, there.node_id, literal.deepcopy()
            )
            literal.replace_self(link)


def _lead_here(app: Sphinx, page: str, source: list[str]) -> None:
    for outside, inside in OUTSIDE.items():
        source[0] = source[0].replace(f"]({outside})", f"]({inside})")


def _bars_are_text(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """``π(a|s)`` is no substitution of reStructuredText."""
    for number, line in enumerate(lines):
        lines[number] = re.sub(r"(``.*?``)|\|", lambda match: match[1] or r"\|", line)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_post_transform(LinkNames)
    app.connect("source-read", _lead_here)
    app.connect("autodoc-process-docstring", _bars_are_text)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
