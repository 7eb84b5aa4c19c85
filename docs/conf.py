"""How these pages become a site: ``make docs``. Sphinx with Furo and MyST; nothing in it is loaded from elsewhere.

The pages stay plain Markdown that any forge shows. What Sphinx needs besides, the tree of pages, is read from the
headings and links of ``index.md``, so that nobody keeps it twice.
"""

import re
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
project = "Basin Gate"
release = installed("basin-gate")
extensions = ["myst_parser"]
exclude_patterns = ["generate_reference.py"]
html_theme = "furo"
html_title = f"Basin Gate {release}"
html_logo = html_favicon = "../gate/pages/templates/icon.svg"
html_theme_options = {"sidebar_hide_name": False}
html_static_path = ["site"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_use_index = html_show_copyright = False
myst_heading_anchors = 4
# Names of recording rules hold colons, which the highlighter of PromQL does not know.
suppress_warnings = ["misc.highlighting_failure"]

OUTSIDE = re.compile(r"\]\((?=(?:\.\./)+(?:charts|policies|tasks|tests)/)")
LINK = re.compile(r"\]\((?P<page>[^)#]+)\.md\)")


def tree(index: str) -> Iterator[str]:
    """A hidden tree for each section of the index, of the pages it links to, and one of the pages that are left."""
    placed: set[str] = set()
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption, _, text = section.partition("\n")
        pages = [page for page in dict.fromkeys(LINK.findall(text)) if page not in placed]
        placed.update(pages)
        yield toctree(caption.strip(), pages)
    left = {page.relative_to(HERE).with_suffix("").as_posix() for page in HERE.rglob("*.md")} - placed - {"index"}
    yield toctree("Runbooks", sorted(left))


def toctree(caption: str, pages: list[str]) -> str:
    """The directive that puts pages into the site's navigation."""
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def prepare(_app: Sphinx, page: str, source: list[str]) -> None:
    """Puts the tree at the end of the index; a link to a file of the repository becomes one to a copy of the file."""
    source[0] = OUTSIDE.sub("](path:", source[0])
    if page == "index":
        source[0] += "".join(tree(source[0]))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", prepare)
