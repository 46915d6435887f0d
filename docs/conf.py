"""The documentation as a site: ``python -m sphinx -W docs build/site``, after ``pip install '.[docs]'``."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

project = "torch-tvm"
author = "the torch-tvm authors"
release = version = metadata.version("torch-tvm")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"torch-tvm {release}"

myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"


def setup(app: Any) -> None:
    """What a page links beside the documentation, in the repository, is a name on the site."""

    def read(_: Any, __: str, source: list[str]) -> None:
        source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", source[0])

    app.connect("source-read", read)
