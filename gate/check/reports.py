"""The answer as CI systems read it: JUnit XML for test reports, SARIF 2.1.0 for code scanning."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from gate.domain.permission import DECIDING, Decision
from gate.domain.question import Check, PromotionAnswer, PromotionQuestion
from gate.domain.verdict import Enforcement, Result

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
DECISION_RULE = "promotion"
FORBIDDEN_IN_XML = {c: "�" for c in range(32) if c not in (9, 10, 13)} | {0xFFFE: "�", 0xFFFF: "�"}


def junit(question: PromotionQuestion, answer: PromotionAnswer | None, failure: str = "") -> bytes:
    """A test suite with one case for the decision and one for each rule. Without an answer, its one case is an error."""
    suite = ElementTree.Element("testsuite", name="basin-gate")
    case = _case(suite, question, question.place or "promotion")
    if answer is None:
        ElementTree.SubElement(case, "error", type="unavailable", message=_text(failure))
    elif not answer.allowed:
        failed = ElementTree.SubElement(case, "failure", type=answer.decision.value, message=_text(answer.reason))
        failed.text = _text("\n".join(answer.reasons))
    elif answer.would_refuse is not None:
        ElementTree.SubElement(case, "system-out").text = _text(answer.reason)
    for check in answer.checks if answer else ():
        _checked(_case(suite, question, _title(check)), check, holds=not _watched(answer))
    cases = list(suite)
    suite.set("tests", str(len(cases)))
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(kind) is not None for case in cases)))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def sarif(question: PromotionQuestion, answer: PromotionAnswer | None, failure: str = "") -> bytes:
    """A SARIF 2.1.0 log with one result for the decision and one for each rule."""
    results = list(_results(answer)) if answer else []
    rules = list(dict.fromkeys([DECISION_RULE, *(r["ruleId"] for r in results)]))
    where = _location(question)
    for result in results:
        result |= {"ruleIndex": rules.index(result["ruleId"]), "locations": [where]}
    notes = [] if answer else [{"level": "error", "message": {"text": failure}}]
    run = {
        "tool": {
            "driver": {
                "name": "Basin Gate",
                "version": version("basin-gate"),
                "rules": [{"id": rule, "shortDescription": {"text": rule.replace("-", " ")}} for rule in rules],
            }
        },
        "invocations": [{"executionSuccessful": answer is not None, "toolExecutionNotifications": notes}],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False).encode()


def _case(suite: ElementTree.Element, question: PromotionQuestion, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_text(question.uri), name=_text(name), time="0")


def _watched(answer: PromotionAnswer | None) -> bool:
    """Whether it passes although it is not approved: what fails then is told, and holds nothing up."""
    return answer is not None and answer.would_refuse is not None


def _checked(case: ElementTree.Element, check: Check, holds: bool) -> None:
    if check.result is Result.PASS:
        return
    decides = holds and check.enforcement in DECIDING
    kind = "failure" if decides else "skipped"
    attributes = {"message": _text(check.sentence)} | ({"type": check.result.value} if decides else {})
    ElementTree.SubElement(case, kind, attributes)


def _title(check: Check) -> str:
    return f"{check.rule} ({check.capability})" if check.capability else check.rule


def _text(text: str) -> str:
    """A text without the characters that XML has no way to hold."""
    return text.translate(FORBIDDEN_IN_XML)


def _results(answer: PromotionAnswer) -> Iterator[dict[str, Any]]:
    level = {Decision.ALLOWED: "none", Decision.NEEDS_REVIEW: "warning", Decision.PENDING: "warning"}
    watched = _watched(answer)
    decided = "warning" if watched else level.get(answer.decision, "error")
    yield _result(DECISION_RULE, decided, f"{answer.decision}: {answer.reason}")
    for check in answer.checks:
        weight = _level(check)
        shown = "warning" if watched and weight == "error" else weight
        yield _result(check.rule, shown, f"{_title(check)}: {check.sentence}")


def _result(rule: str, level: str, text: str) -> dict[str, Any]:
    # The standard: whatever is no failure has level none.
    return {
        "ruleId": rule,
        "kind": "pass" if level == "none" else "fail",
        "level": level,
        "message": {"text": text},
    }


def _level(check: Check) -> str:
    if check.result is Result.PASS:
        return "none"
    if check.enforcement is Enforcement.BLOCK and check.result is Result.FAIL:
        return "error"
    return "warning" if check.enforcement in DECIDING else "note"


def _location(question: PromotionQuestion) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": f"models:/{quote(question.name, safe='')}/{question.version}"}
        },
        "logicalLocations": [{"fullyQualifiedName": question.uri, "kind": "resource"}],
    }
