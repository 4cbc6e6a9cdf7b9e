"""The site: `sphinx-build -W -b dirhtml docs site`; pages of critics are made from cards and docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

import perceptloss

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

project = "perceptloss"
author = "The perceptloss authors"
copyright = "the perceptloss authors, Apache-2.0"
version = release = perceptloss.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False


html_theme = "furo"
html_title = "perceptloss"
html_theme_options = {
    "source_repository": "https://github.com/perceptloss/perceptloss/",
    "source_branch": "main",
    "source_directory": "docs/",
}
exclude_patterns = ["_build"]


def escape_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Absolute values in docstrings are no substitutions."""
    lines[:] = ["`".join(s if i % 2 else s.replace("|", r"\|") for i, s in enumerate(n.split("`"))) for n in lines]


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx looks for pages."""
    from critic_pages import write_pages

    write_pages(HERE / "critics")
    app.connect("autodoc-process-docstring", escape_bars)
