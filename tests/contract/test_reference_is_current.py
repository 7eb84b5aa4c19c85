"""The reference pages say what the code says now."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_reference_page_is_what_the_code_would_write_now(generator: ModuleType) -> None:
    written = {path.name: path.read_text() for path in (DOCS / "reference").glob("*.md")}

    assert written == generator.pages(), "run: python docs/generate_reference.py"


def test_the_reference_names_every_command_and_every_route(generator: ModuleType) -> None:
    pages = generator.pages()

    assert all(f"## `basin-gate {name}`" in pages["cli.md"] for name in ("up", "assess", "demo", "base add", "show"))
    assert all(f"## `{route}`" in pages["http.md"] for route in ("POST /webhooks/mlflow", "POST /v1/promotions"))
