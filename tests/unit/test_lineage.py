"""The first place that names a base wins, and only an onboarded base can be meant."""

from typing import Any

import pytest
from builders import a_checkpoint

from gate.domain.checkpoint import Base, Lineage
from gate.domain.lineage import LineageHints, match_base, resolve_lineage

EVERY_PLACE: dict[str, Any] = {
    "version_tag": "from-version-tag",
    "model_tag": "from-model-tag",
    "mlmodel_base": "from-mlmodel",
    "adapter_base": "from-adapter",
    "source_model_name": "from-source",
    "source_is_base": True,
    "run": {"base_model": "from-run", "model_name_or_path": "from-run-too"},
}
IN_ORDER = ["version_tag", "model_tag", "mlmodel_base", "adapter_base", "source_model_name", "run"]


def a_base(name: str, digit: str = "a", **changes: Any) -> Base:
    given = {"name": name, "digest": digit * 64, "source": f"models:/{name}/1", "suite": "staged"}
    return Base(**(given | {"checkpoint": a_checkpoint()} | changes))


@pytest.mark.parametrize("silent", range(len(IN_ORDER)))
def test_places_are_asked_in_order_of_trust(silent: int) -> None:
    spoken = {k: v for k, v in EVERY_PLACE.items() if k not in IN_ORDER[:silent]}
    found = resolve_lineage(LineageHints(**spoken))
    first = EVERY_PLACE[IN_ORDER[silent]]
    assert found.reference == (first["base_model"] if isinstance(first, dict) else first)


def test_nothing_said_is_nothing_found() -> None:
    assert resolve_lineage(LineageHints(version_tag="  ", run={"lr": "1"})) == Lineage()


def test_the_place_is_remembered() -> None:
    assert resolve_lineage(LineageHints(version_tag=" base ")) == Lineage(
        reference="base", found_by="version tag gate.base"
    )


def test_where_full_weights_were_loaded_from_is_not_their_base() -> None:
    assert resolve_lineage(LineageHints(source_model_name="hf/ft")).reference is None


def test_a_revision_is_part_of_the_reference() -> None:
    hints = LineageHints(source_model_name="org/m", source_model_revision="c0ffee", source_is_base=True)
    assert resolve_lineage(hints).reference == "org/m@c0ffee"


@pytest.mark.parametrize("text", ["base", "models:/base/1", "a" * 64, "sha256:" + "a" * 64, "org/base@1"])
def test_a_base_is_meant_by_its_exact_texts(text: str) -> None:
    base = a_base("base", references=("org/base@1",))
    assert match_base(Lineage(reference=text), [a_base("other", "b"), base]) == base


@pytest.mark.parametrize("text", ["Base", "base ", "models:/base/2", "org/base", "", "a" * 63])
def test_a_text_that_is_nearly_a_bases_means_none(text: str) -> None:
    assert match_base(Lineage(reference=text), [a_base("base", references=("org/base@1",))]) is None


def test_no_reference_means_no_base() -> None:
    assert match_base(Lineage(), [a_base("base")]) is None


def test_a_text_that_two_bases_answer_to_means_neither() -> None:
    one, other = (a_base(n, d, references=("org/base",)) for n, d in (("one", "a"), ("other", "b")))
    assert match_base(Lineage(reference="org/base"), [one, other]) is None
