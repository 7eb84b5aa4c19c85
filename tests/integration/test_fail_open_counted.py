"""A rule that fails open is counted and kept in the audit log, once for each verdict."""

import json
from pathlib import Path

from api_stand import a_stand, judged

from gate.domain.evidence import Name
from gate.domain.verdict import Enforcement, Finding, Outcome, Result


def a_finding(rule: str, capability: str, opened: bool) -> Finding:
    return Finding(
        rule=rule,
        measurement=Name.HEADROOM,
        capability=capability,
        estimate=None,
        at_least=0.1,
        result=Result.MISSING,
        enforcement=Enforcement.WARN,
        sentence="not measured",
        failed_open=opened,
    )


def test_each_rule_that_let_a_version_through_unmeasured_is_counted_once_for_a_verdict(tmp_path: Path) -> None:
    stand = a_stand(tmp_path)
    findings = (a_finding("room", "math", True), a_finding("room", "code", True), a_finding("other", "math", False))

    judged(stand, stand.register(), findings=findings, outcome=Outcome.APPROVED)
    judged(stand, stand.register(version="4", created_ms=4), findings=findings[2:], outcome=Outcome.APPROVED)

    assert stand.ledger.statistics(stand.clock()).facts["rule failed open"] == 1
    told = [entry for entry in stand.ledger.audit_entries() if entry.event == "rule failed open"]
    assert [json.loads(entry.detail)["rule"] for entry in told] == ["room"]
    assert "gate_fail_opens_total" in stand.client.get("/metrics").text
    stand.ledger.close()
