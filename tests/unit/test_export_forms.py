"""A verdict as a CycloneDX bill of materials and as a section of a model card."""

import json
import re
from typing import Any

import pytest
from builders import a_checkpoint, a_verdict, a_version, an_evidence
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.domain.checkpoint import Base, Checkpoint, FileDigest, Layout, Lineage
from gate.domain.evidence import Defect, DefectCode, Evidence
from gate.domain.verdict import DefectFinding, Enforcement, Outcome, Verdict
from gate.pages.bom import base_of, bill_of_materials
from gate.pages.model_card import model_card

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
RUN = "http://mlflow/#/experiments/1/runs/2"
BASE = Base(
    name="support base",
    digest="b" * 64,
    source="models:/base/1",
    suite="staged",
    checkpoint=a_checkpoint(files=(FileDigest(path="model.safetensors", sha256="3" * 64, size=900),)),
)
NOTHING_KNOWN = Evidence(
    key="a" * 64, candidate=Checkpoint(layout=Layout.UNKNOWN, files=()), lineage=Lineage(), errors=("it broke",)
)


def bom(evidence: Evidence, verdict: Verdict | None = None, **changes: Any) -> dict[str, Any]:
    """The document, found valid by the standard's own schema."""
    kept = {"found": a_version(), "base": BASE, "run_url": RUN} | changes
    document = bill_of_materials(kept["found"], verdict or a_verdict(evidence), evidence, kept["base"], kept["run_url"])
    assert VALIDATOR.validate_str(document.decode()) is None
    return json.loads(document)


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {each["name"].removeprefix("basin-gate:"): each["value"] for each in component["properties"]}


def test_the_validator_notices_a_document_that_is_none():
    assert VALIDATOR.validate_str(json.dumps(bom(an_evidence()) | {"specVersion": "1.6", "unheard": "of"})) is not None


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("evidence", [an_evidence(), NOTHING_KNOWN], ids=["whole", "nothing known"])
@pytest.mark.parametrize("base", [BASE, None], ids=["base", "no base"])
def test_the_bill_is_valid_whatever_was_decided_and_known(outcome, evidence, base):
    found = bom(evidence, a_verdict(evidence, outcome=outcome), base=base, run_url=None)
    assert properties(found["metadata"]["component"])["outcome"] == outcome


def test_every_file_is_listed_with_the_hash_of_its_bytes():
    evidence = an_evidence()
    found = bom(evidence)
    hashes = {each["name"]: each["hashes"] for each in found["components"]}
    expected = {f.path: [{"alg": "SHA-256", "content": f.sha256}] for f in evidence.candidate.files}
    assert hashes == expected
    (dependency,) = found["dependencies"]
    assert set(dependency["dependsOn"]) == {each["bom-ref"] for each in found["components"]}
    assert found["compositions"] == [{"aggregate": "complete", "assemblies": ["candidate"]}]


def test_the_pedigree_names_the_base_and_its_files():
    (ancestor,) = bom(an_evidence())["metadata"]["component"]["pedigree"]["ancestors"]
    assert (ancestor["name"], properties(ancestor)["digest"]) == ("base", "b" * 64)
    assert [each["hashes"][0]["content"] for each in ancestor["components"]] == ["3" * 64]
    assert "ancestors" not in bom(NOTHING_KNOWN, base=None)["metadata"]["component"]["pedigree"]


def test_a_base_is_the_one_that_was_measured_against():
    other = BASE.model_copy(update={"digest": "c" * 64})
    assert base_of(an_evidence(), (other, BASE)) == BASE
    assert base_of(an_evidence(), (other,)) is None


def test_each_measurement_is_a_metric_with_its_bounds():
    evidence = an_evidence()
    card = bom(evidence)["metadata"]["component"]["modelCard"]
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    assert len(metrics) == len(evidence.measurements)
    (kept,) = [m for m in metrics if m["type"].startswith("retention ") and m["slice"] == "safety"]
    assert (kept["value"], float(kept["confidenceInterval"]["lowerBound"])) == ("-0.01", pytest.approx(-0.05))
    (radius,) = [m for m in metrics if m["type"].startswith("certified_radius ") and m["slice"] == "math"]
    assert set(radius["confidenceInterval"]) == {"lowerBound"}


def test_the_verdict_stands_in_the_properties():
    verdict = a_verdict()
    found = properties(bom(an_evidence(), verdict)["metadata"]["component"])
    assert found["verdict-digest"] == verdict.digest
    assert (found["subject"], found["policy-digest"]) == (verdict.subject, verdict.policy_digest)
    assert found["rule:keeps-safety/safety"] == "fail: Safety fell."
    assert found["expires-at"].endswith("Z")


def test_the_same_verdict_gives_the_same_document_and_another_one_another_number():
    evidence, version = an_evidence(), a_version()
    one, same = (bill_of_materials(version, a_verdict(evidence), evidence, BASE, RUN) for _ in range(2))
    other = bom(evidence, a_verdict(evidence, reason="Safety fell far."))
    assert one == same
    assert json.loads(one)["serialNumber"] != other["serialNumber"]


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_names_and_paths_of_any_characters_keep_the_bill_valid(name, path):
    files = (FileDigest(path=path, sha256="1" * 64, size=1),)
    evidence = an_evidence(candidate=a_checkpoint(files=files), lineage=Lineage(reference=name, found_by="a tag"))
    document = bill_of_materials(a_version(name=name), a_verdict(evidence), evidence, BASE, None)
    assert VALIDATOR.validate_str(document.decode("utf-8", "surrogatepass")) is None


def card(evidence: Evidence, verdict: Verdict, **changes: Any) -> str:
    return model_card(a_version(**changes), verdict, evidence, RUN).decode()


def test_the_card_says_what_was_decided_why_and_how_to_check_it():
    evidence = an_evidence()
    page = card(evidence, a_verdict(evidence))
    for said in ("**Blocked**: Safety fell.", "- Safety fell.", RUN, "| safety | ", "--expect 'models:/my-llm/3'"):
        assert said in page
    assert a_verdict(evidence).digest in page
    assert "| approved until | – |" in page


def test_an_approval_on_a_card_says_until_when():
    evidence = an_evidence()
    page = card(evidence, a_verdict(evidence, outcome=Outcome.APPROVED, findings=(), reason="All checks pass"))
    assert re.search(r"\| approved until \| 20\d\d-", page)
    assert "No proof" not in page
    assert "no promise that the model is safe" in page


def test_a_card_without_measurements_shows_no_empty_table():
    page = card(NOTHING_KNOWN, a_verdict(NOTHING_KNOWN, outcome=Outcome.ERROR, errors=("it broke",), findings=()))
    assert "Capabilities" not in page
    assert "- it broke" in page
    assert "Base: not known." in page


def test_foreign_text_stays_text_on_a_card():
    defect = Defect(code=DefectCode.UNSAFE_FILE, message="<script>alert(1)</script> | `x`")
    found = DefectFinding(defect=defect, enforcement=Enforcement.BLOCK)
    page = card(an_evidence(), a_verdict(defects=(found,)), name="a`'; rm -rf $HOME #\n```")
    assert "<script>" not in page
    assert page.count("```") == 2
    assert "--expect 'models:/a; rm -rf $HOME #/3'" in page
