"""Templates to pages. Whatever a template prints is made inert and escaped; what is `Markup` was made by us."""

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gate.pages.inert import inert

LONGEST_TEXT = 4000


def _printed(value: object) -> object:
    return value if isinstance(value, Markup) else inert(value, LONGEST_TEXT)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates. An unknown name in one is an error, not an empty place."""
    made = Environment(
        loader=PackageLoader("gate.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["cut"] = inert
    return made


def render(template: str, **values: object) -> str:
    """A page from its template."""
    return environment().get_template(template).render(**values)


@lru_cache(maxsize=1)
def style() -> Markup:
    """The one style sheet of report and dashboard."""
    text = (files("gate.pages") / "templates" / "style.css").read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  (a file of ours, with nothing of anybody else in it)


@lru_cache(maxsize=1)
def style_source() -> str:
    """The style sheet as a content security policy names it where it stands inside the page."""
    digest = hashlib.sha256(style().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def document_policy() -> str:
    """What a self-contained document may do: show itself. It loads nothing, runs nothing, sends nothing."""
    return f"default-src 'none'; style-src {style_source()}; base-uri 'none'; form-action 'none'"
