"""References and links that Sphinx alone would not follow.

- A name of this package that a docstring refers to leads to where its public name is documented; one that does not
  exist is an error.
- Names of other packages are links if their inventories could be read, and plain text otherwise.
- Links from a page to a file outside ``docs/`` lead to that page of the site that includes it, or offer the file.
"""

import functools
import importlib
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "README.md": "index.md",
}
"""Files outside ``docs/`` that are pages of the site."""
WHOLE = re.compile(r"```{include} (\S+)\n```")
CODE = re.compile(r"(``.*?``)")


@functools.cache
def find(name: str) -> Any:
    """What has a full name; ``None`` if nothing has."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[n:]:
            found = getattr(found, attribute, None)
        return found
    return None


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contnode: nodes.Element) -> Any:
    """A reference that Sphinx found nothing for."""
    target = node["reftarget"]
    if node.get("refdomain") == "std" and target.endswith("_policies"):  # in what fast classes inherit of SB3's text
        return contnode
    if node.get("refdomain") != "py":
        return None
    found = named(target, node)
    if found is None:  # annotations are written in every way that Python allows: only what docstrings say is checked
        return contnode if in_signature(node) else None
    objects = env.domains.python_domain.objects
    name = next((name for name in objects if callable(found) and find(name) is found), None)
    if name is None:
        return contnode
    uri = app.builder.get_relative_uri(node["refdoc"], objects[name].docname)
    return nodes.reference("", "", contnode, internal=True, refuri=f"{uri}#{objects[name].node_id}", reftitle=name)


def named(target: str, node: nodes.Element) -> Any:
    """What a reference names: by its full name, or by one that its class or a module of this package knows."""
    scopes = [node.get("py:module"), node.get("py:class")]
    scopes += [name for name in sorted(sys.modules) if name.startswith("sb3_pg_ext")]
    names = (target, *(f"{scope}.{target}" for scope in scopes if scope))
    return next((found for name in names if (found := find(name)) is not None), None)


def in_signature(node: nodes.Node) -> bool:
    """Whether a node belongs to the signature of something documented."""
    while node is not None:
        if isinstance(node, addnodes.desc_signature):
            return True
        node = node.parent
    return False


def escape_bars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape | in docstrings, which there are absolute values and conditions, never substitutions."""
    lines[:] = [
        "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in CODE.split(line))
        for line in lines
    ]


def lead_out(app: Sphinx, docname: str, source: list[str]) -> None:
    """Take in the file outside ``docs/`` that a page consists of, and rewrite links to what is outside."""
    up = "../" * (docname.count("/") + 1)
    whole = WHOLE.fullmatch(source[0].strip())
    if whole:
        text = Path(app.srcdir, whole[1]).read_text(encoding="utf-8")
        source[0] = re.sub(r"\]\((?!https?:|#)", rf"]({up}", text).replace("](../docs/", "](")

    def rewritten(match: re.Match[str]) -> str:
        text, path, fragment = match.groups()
        if path in PAGES:
            return f"[{text}]({up[3:]}{PAGES[path]}{fragment or ''})"
        return f"[{text}]({up}{path})" if Path(app.srcdir, "..", path).is_file() else text

    source[0] = re.sub(rf"\[([^\]]+)\]\({re.escape(up)}([\w./-]+)(#[\w-]+)?\)", rewritten, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("missing-reference", resolve, priority=900)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("source-read", lead_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
