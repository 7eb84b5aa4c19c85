"""The published schemas of what the gate signs are those of the code, and the documents on file keep to them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders import a_verdict, an_evidence

from gate.domain.attestation import measurement_schema, measurement_statement, summary_schema
from gate.domain.revocation import revocations_schema
from gate.domain.waiver import waiver_schema

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "docs" / "reference" / "attestations"
GOLDEN = ROOT / "tests" / "golden" / "attestations"
SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "summary": summary_schema,
    "measurement": measurement_schema,
    "revocations": revocations_schema,
    "waiver": waiver_schema,
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_that_of_the_code(name: str) -> None:
    text = json.dumps(SCHEMAS[name](), indent=2, sort_keys=True) + "\n"

    assert (PUBLISHED / f"{name}.schema.json").read_text() == text, f"write this to {name}.schema.json:\n{text}"


@pytest.mark.parametrize("name", ["summary", "revocations"])
def test_the_document_on_file_keeps_to_the_published_schema(name: str) -> None:
    document, schema = json.loads((GOLDEN / f"{name}.json").read_text()), SCHEMAS[name]()

    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"more": 1}, schema)


def test_a_measurement_keeps_to_the_published_schema_and_one_with_a_word_of_its_own_does_not() -> None:
    predicate = measurement_statement(an_evidence(), a_verdict())["predicate"]

    jsonschema.validate(predicate, measurement_schema())
    predicate["evidence"]["measurements"][0]["name"] = "charm"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(predicate, measurement_schema())
