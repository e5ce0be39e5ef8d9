"""Draws the equations of pages and docstrings."""

from typing import Any

from docutils import nodes
from mathml import is_equation, to_mathml
from sphinx.application import Sphinx


def equation_node(text: str) -> nodes.raw:
    """An equation as a node of the page."""
    return nodes.raw("", f'<div class="equation">{to_mathml(text)}</div>', format="html")


def draw(app: Sphinx, document: nodes.document) -> None:
    """Draw the equations of a page: quotations of docstrings, and indented blocks."""
    for quotation in list(document.findall(nodes.block_quote)):
        text = "\n\n".join(child.rawsource for child in quotation.children if isinstance(child, nodes.paragraph))
        text = text.replace(r"\|", "|")
        if len(quotation) and all(isinstance(child, nodes.paragraph) for child in quotation) and is_equation(text):
            quotation.replace_self(equation_node(text))
    for block in list(document.findall(nodes.literal_block)):
        if block.get("language", "none") in ("none", "default", "text", "python") and is_equation(block.astext()):
            block.replace_self(equation_node(block.astext()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-read", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
