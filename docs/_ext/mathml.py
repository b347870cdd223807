"""Formulae as MathML, which browsers render: the site needs no script and no network for them."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from sphinx.writers.html5 import HTML5Translator

BAR, LOG = r"\\bar ([A-Z])", r"\\log\b(?! *[(_])"
"""The converter sets the index of ``\\bar Q_i`` below Q, and no space between log and π."""

MOVER = r"<mover[^>]*>\s*(<mi>\w</mi>)\s*<mo[^>]*>[^<]*</mo>\s*</mover>"
"""A bar as the converter writes it: a character that many fonts draw faintly or not at all. CSS draws it."""


def _drawn(node: nodes.math | nodes.math_block, as_block: bool) -> str:
    text = re.sub(LOG, r"\\,\\log\\,", re.sub(BAR, r"{\\bar \1{}}", node.astext()))
    try:
        return re.sub(MOVER, r'<mrow class="bar">\1</mrow>', tex2mathml(text, as_block=as_block))
    except MathError as error:
        getLogger(__name__).warning("%s in %s", error, node.astext(), location=node)
        return ""


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_drawn(node, as_block=False))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{_drawn(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
