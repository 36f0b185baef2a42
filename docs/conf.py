"""Sphinx configuration."""

project = "Quartet"
author = "The Quartet developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Quartet"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "params_style"), ("Differs", "params_style")]


def _escape(*arguments):
    """Docstrings are written for people and editors: a bar is an absolute value there, never a substitution."""
    lines = arguments[-1]
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app):
    """Register the hook before napoleon sees the docstrings."""
    app.connect("autodoc-process-docstring", _escape, priority=100)
