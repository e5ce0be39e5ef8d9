"""How Sphinx builds the site: ``make docs``."""

import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from sb3_pg_ext import __version__  # noqa: E402

project = "sb3_pg_ext"
author = "The sb3_pg_ext maintainers"
project_copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "equations", "references"]
exclude_patterns = ["_build"]

myst_heading_anchors = 4
nb_execution_mode = "off"  # what came out is kept in the notebooks: make gallery
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
nitpicky = True
default_role = None
highlight_language = "none"
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"

html_theme = "furo"
html_title = f"sb3_pg_ext {version}"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

linkcheck_timeout = 10
linkcheck_anchors = True

INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "gymnasium": "https://gymnasium.farama.org/",
    "stable_baselines3": "https://stable-baselines3.readthedocs.io/en/master/",
    "sb3_contrib": "https://sb3-contrib.readthedocs.io/en/master/",
}


def reachable(address: str) -> bool:
    """Whether an inventory can be read: without a network the site is built all the same, with fewer links."""
    try:
        with urllib.request.urlopen(f"{address}objects.inv", timeout=3):
            return True
    except (urllib.error.URLError, OSError):
        return False


with ThreadPoolExecutor(len(INVENTORIES)) as pool:
    answers = pool.map(reachable, INVENTORIES.values())
intersphinx_mapping = {
    name: (url, None) for (name, url), there in zip(INVENTORIES.items(), answers, strict=True) if there
}
