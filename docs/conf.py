"""The reading site: `make book` copies docs/*.md and the notebooks side by side and builds them, without running any.

What a page shows are the committed outputs. Nothing is loaded from elsewhere: formulas become MathML when the site is
built, so that it works from disk.
"""

import hashlib
import json
import re
import tomllib
from base64 import b64decode
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Small-sample deep learning for biomedical images"
author = "The authors of the notebooks"
copyright = "Apache-2.0 (code), CC BY 4.0 (text and figures)"
version = release = PROJECT["version"]
language = "en"

extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # committed notebooks have no live widgets
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

html_theme = "sphinx_book_theme"
html_title = project
html_show_sphinx = False
html_show_search_summary = False  # it would fetch the pages that were found, which no browser allows from disk
html_context = {"default_mode": "light"}  # figures have a white ground
html_theme_options = {"use_download_button": True, "show_toc_level": 2}
if address := PROJECT.get("urls", {}).get("repository"):  # where it is published, if it is
    html_theme_options |= {
        "repository_url": address,
        "repository_branch": f"v{version}",
        "path_to_docs": "notebooks",
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"},
    }
html_css_files = ["book.css"]
html_static_path = ["_static"]

FOLDED = {"setup": "hide-input", "display": "hide-input", "solution": "hide-cell"}  # tags of ours and of MyST-NB
ALTS = {}  # sha256 of a figure → its alternative text


def read_notebook(app, docname, source) -> None:
    """Remember the alternative texts of a notebook's figures, fold what is not read first, and leave out the badges."""
    if Path(app.env.doc2path(docname)).suffix != ".ipynb":
        return
    book = json.loads(source[0])
    for cell in book["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(r"<!-- badges -->.*?<!-- /badges -->\n*", "", text, flags=re.S)
        tags = cell["metadata"].get("tags", [])
        cell["metadata"]["tags"] = tags + [FOLDED[tag] for tag in tags if tag in FOLDED]
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                pixels = b64decode("".join(output["data"][kind]))
                ALTS[hashlib.sha256(pixels).hexdigest()] = output["metadata"][kind]["alt"]
    source[0] = json.dumps(book)


def add_alternative_texts(app, doctree) -> None:
    """Figures are stored under their sha256: give each its text."""
    for image in doctree.findall(nodes.image):
        image["alt"] = ALTS.get(Path(image["uri"]).stem, image.get("alt", ""))


def visit_math(self, node) -> None:
    """A formula in a line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def visit_math_block(self, node) -> None:
    """A formula of its own, which scrolls if the page is narrower."""
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    """What Sphinx calls."""
    app.connect("source-read", read_notebook)
    app.connect("doctree-read", add_alternative_texts)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
