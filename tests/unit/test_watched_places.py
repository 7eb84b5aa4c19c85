"""Where a policy only watches, the answer is the guard's: let pass, with the reason for which it would be refused."""

import json
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from gate.check.reports import junit, sarif
from gate.domain.permission import Answer, Decision, where_watched
from gate.domain.promotion import strictest_of
from gate.domain.question import Check, PromotionAnswer, PromotionQuestion
from gate.domain.verdict import Enforcement, Outcome, Result

QUESTION = PromotionQuestion(name="help-desk", version="3", alias="canary")


@pytest.mark.parametrize("mode", ["warn", "dry_run"])
@pytest.mark.parametrize("decision", [Decision.DENIED, Decision.PENDING, Decision.NEEDS_REVIEW])
def test_a_watched_place_lets_pass_and_says_why_it_would_be_refused(decision, mode):
    strict = Answer(decision=decision, reason="Safety fell.", outcome=Outcome.BLOCKED, policy="default")
    given = where_watched(strict, "alias 'canary'", mode)
    assert (given.allowed, given.would_refuse, given.outcome) == (True, "Safety fell.", Outcome.BLOCKED)
    assert mode in given.reason
    assert "alias 'canary'" in given.reason
    assert given.reason.endswith("would be refused there: Safety fell.")


@pytest.mark.parametrize("mode", ["enforce", None])
def test_a_place_that_is_enforced_or_kept_by_nobody_is_answered_strictly(mode):
    strict = Answer(decision=Decision.DENIED, reason="Safety fell.")
    assert where_watched(strict, "alias 'canary'", mode) is strict


def test_an_approved_version_would_be_refused_nowhere():
    approved = Answer(decision=Decision.ALLOWED, reason="Every rule holds.")
    assert where_watched(approved, "alias 'canary'", "warn") == approved
    assert approved.would_refuse is None


def test_of_several_policies_that_keep_a_model_the_strictest_counts():
    assert strictest_of(["dry_run", None, "warn"]) == "warn"
    assert strictest_of(["dry_run", "enforce", "warn"]) == "enforce"
    assert strictest_of([None, None]) is None


def an_answer(**changes):
    check = Check(
        rule="keeps-safety",
        capability=None,
        result=Result.FAIL,
        enforcement=Enforcement.BLOCK,
        sentence="Safety fell.",
    )
    given = dict.fromkeys(PromotionAnswer.model_fields) | {
        "subject": QUESTION.uri,
        "place": QUESTION.place,
        "protected": True,
        "decision": Decision.ALLOWED,
        "allowed": True,
        "reason": "Allowed, since it is only watched: Safety fell.",
        "would_refuse": "Safety fell.",
        "reasons": ("Safety fell.",),
        "checks": (check,),
    }
    return PromotionAnswer(**(given | changes))


def test_the_junit_report_tells_of_it_and_fails_nothing():
    suite = ElementTree.fromstring(junit(QUESTION, an_answer()))[0]
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "1")
    assert "only watched" in suite[0].find("system-out").text
    assert suite[1].find("skipped").get("message") == "Safety fell."


def test_the_sarif_log_warns_of_it_and_has_no_error():
    results = json.loads(sarif(QUESTION, an_answer()))["runs"][0]["results"]
    assert [result["level"] for result in results] == ["warning", "warning"]
    assert "only watched" in results[0]["message"]["text"]


def test_no_answer_refuses_and_says_that_it_would():
    with pytest.raises(ValidationError, match="would_refuse only beside allowed"):
        an_answer(decision=Decision.DENIED, allowed=False)
