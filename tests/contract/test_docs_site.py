"""The documentation as a site: built without a warning, every link and anchor leads somewhere, nothing comes from elsewhere."""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
STRICT = ("--fail-on-warning", "--keep-going", "--nitpicky", "--quiet")
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src"}


class Page(HTMLParser):
    """A page's anchors, where its links lead, and what a browser fetches to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given:
            self.loads.append(given[LOADED[tag]])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "prefetch"):
            self.loads.append(given.get("href", ""))


def build(docs: Path, into: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", *STRICT, str(docs), str(into)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    built = build(DOCS, into)
    assert (built.returncode, built.stderr) == (0, "")
    return into


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {page: Page(page.read_text()) for page in sorted(site.rglob("*.html"))}


def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file(), page


def test_every_link_and_anchor_of_the_site_leads_somewhere(pages: dict[Path, Page]) -> None:
    lost, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            followed += 1
            if not there.is_file() or (parts.fragment and unquote(parts.fragment) not in pages[there].anchors):
                lost.append((path.name, link))
    assert lost == []
    assert followed > 1000


def test_no_page_loads_anything_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loads = {load for page in pages.values() for load in page.loads}
    assert len(loads) > 5
    assert [load for load in loads if urlsplit(load).scheme or load.startswith("//")] == []
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text().replace('"', "").replace("'", "")


def test_the_navigation_has_the_four_kinds_of_pages(pages: dict[Path, Page], site: Path) -> None:
    index = (site / "index.html").read_text()
    at = [index.index(f">{caption}</span>") for caption in ("Tutorial", "How-to guides", "Explanation", "Reference")]
    assert at == sorted(at)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[lost](nowhere.md)", "nowhere.md"),
        ("[lost](other.md#no-such-heading)", "no-such-heading"),
        ("![lost](nothing.png)", "nothing.png"),
    ],
)
def test_a_broken_link_anchor_or_picture_ends_the_build(tmp_path: Path, text: str, told: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(DOCS / "conf.py", docs)
    shutil.copytree(DOCS / "site", docs / "site")
    (tmp_path / "gate/pages/templates").mkdir(parents=True)
    shutil.copy(DOCS.parent / "gate/pages/templates/icon.svg", tmp_path / "gate/pages/templates")
    (docs / "other.md").write_text("# Other\n")
    (docs / "index.md").write_text(f"# Index\n\n## Part\n\n- [Other](other.md)\n\n{text}\n")

    built = build(docs, tmp_path / "site")

    assert built.returncode != 0
    assert told in built.stderr
