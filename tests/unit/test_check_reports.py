"""The answer to CI's question as JUnit XML and as SARIF, and the waiting for it."""

import json
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft4Validator
from pydantic import ValidationError
from rich.console import Console

from gate.check.asking import OUTAGE_PATIENCE_S, Asker
from gate.check.command import EXIT, _progress, told
from gate.check.reports import junit, sarif
from gate.client import GateClient
from gate.domain.errors import NotFound, Unavailable
from gate.domain.permission import Decision
from gate.domain.question import Check, PromotionAnswer, PromotionQuestion
from gate.domain.verdict import Enforcement, Outcome, Result

SCHEMA = json.loads((Path(__file__).parents[1] / "golden" / "schemas" / "sarif-2.1.0.json").read_text())
QUESTION = PromotionQuestion(name="help desk ✓", version="3", alias="champion")


def a_check(result: Result, enforcement: Enforcement = Enforcement.BLOCK, rule: str = "keeps-safety") -> Check:
    return Check(rule=rule, capability="safety", result=result, enforcement=enforcement, sentence=f"It is {result}.")


def an_answer(decision: Decision = Decision.ALLOWED, **changes: object) -> PromotionAnswer:
    given = {
        "subject": QUESTION.uri,
        "place": QUESTION.place,
        "protected": True,
        "decision": decision,
        "allowed": decision is Decision.ALLOWED,
        "reason": "So it is.",
        "would_refuse": None,
        "reasons": (),
        "outcome": Outcome.APPROVED,
        "policy": "default",
        "evaluation": "a" * 64,
        "verdict": "b" * 64,
        "expires_at": 1_800_000_000,
        "state": "done",
        "stage": "",
        "progress": 1.0,
        "run_url": None,
        "checks": (),
    }
    return PromotionAnswer(**(given | changes))


CHECKS = (
    a_check(Result.PASS),
    a_check(Result.FAIL, rule="keeps-math"),
    a_check(Result.INCONCLUSIVE, Enforcement.REVIEW, "stays-near"),
    a_check(Result.FAIL, Enforcement.WARN, "looks-odd"),
    a_check(Result.MISSING, Enforcement.DRY_RUN, "tried-out"),
)


@pytest.mark.parametrize("decision", list(Decision))
@pytest.mark.parametrize("checks", [(), CHECKS])
def test_the_sarif_log_fits_the_standards_schema_whatever_the_decision(decision, checks):
    log = json.loads(sarif(QUESTION, an_answer(decision, checks=checks)))
    Draft4Validator(SCHEMA).validate(log)
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    assert all((result["kind"] == "fail") == (result["level"] != "none") for result in run["results"])
    assert len(run["results"]) == 1 + len(checks)


def test_the_schema_would_notice_a_log_that_is_none():
    log = json.loads(sarif(QUESTION, an_answer()))
    log["runs"][0]["results"][0]["level"] = "dreadful"
    assert not Draft4Validator(SCHEMA).is_valid(log)


def test_a_rules_weight_is_its_level_in_sarif():
    log = json.loads(sarif(QUESTION, an_answer(Decision.DENIED, checks=CHECKS)))
    levels = {result["ruleId"]: result["level"] for result in log["runs"][0]["results"]}
    assert levels == {
        "promotion": "error",
        "keeps-safety": "none",
        "keeps-math": "error",
        "stays-near": "warning",
        "looks-odd": "note",
        "tried-out": "note",
    }


def test_without_an_answer_both_reports_say_that_it_could_not_be_asked():
    log = json.loads(sarif(QUESTION, None, "the gate is away"))
    Draft4Validator(SCHEMA).validate(log)
    invocation = log["runs"][0]["invocations"][0]
    assert invocation["executionSuccessful"] is False
    assert invocation["toolExecutionNotifications"][0]["message"]["text"] == "the gate is away"
    suite = ElementTree.fromstring(junit(QUESTION, None, "the gate is away"))[0]
    assert (suite.get("errors"), suite.get("tests"), suite.get("failures")) == ("1", "1", "0")
    assert suite.find("testcase/error").get("message") == "the gate is away"


def test_a_junit_case_stands_for_the_decision_and_for_each_rule():
    root = ElementTree.fromstring(junit(QUESTION, an_answer(Decision.DENIED, reasons=("a", "b"), checks=CHECKS)))
    suite = root[0]
    counted = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": 6, "failures": 3, "errors": 0, "skipped": 2}
    assert suite[0].find("failure").text == "a\nb"
    assert [case.get("name") for case in suite][1] == "keeps-safety (safety)"
    assert {case.get("classname") for case in suite} == {QUESTION.uri}


def test_characters_that_xml_cannot_hold_do_not_break_the_report():
    reason = 'a\x00b\x1b[31m\x0b<&">'
    suite = ElementTree.fromstring(junit(QUESTION, an_answer(Decision.DENIED, reason=reason)))[0]
    assert suite[0].find("failure").get("message") == 'a�b�[31m�<&">'


def test_only_an_allowed_version_ends_with_status_0():
    assert EXIT == {Decision.ALLOWED: 0, Decision.DENIED: 1, Decision.PENDING: 2, Decision.NEEDS_REVIEW: 3}


def test_a_place_that_nothing_keeps_is_remarked_on():
    assert "is it spelt right?" in told(an_answer(protected=False))


def test_an_answer_that_contradicts_itself_is_none():
    with pytest.raises(ValidationError):
        an_answer(Decision.DENIED, allowed=True)


def test_a_question_has_at_most_one_place():
    with pytest.raises(ValidationError, match="at most one"):
        PromotionQuestion(name="a", version="1", alias="b", stage="c")


class Replies(GateClient):
    """A gate that says what it is told to; each exception is raised instead."""

    def __init__(self, *replies: object) -> None:
        super().__init__("http://gate")
        self.replies = list(replies)

    def post(self, *_: object, **__: object):
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply


def said(answer: PromotionAnswer) -> tuple[int, object]:
    return (200 if answer.allowed else 403), answer.model_dump(mode="json")


class Time:
    """A clock that moves by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


def waited(*replies: object, timeout_s: float = 600.0) -> tuple[PromotionAnswer, list[PromotionAnswer]]:
    time, heard = Time(), []
    asker = Asker(Replies(*replies), lambda: time.now, time.sleep)
    return asker.wait(QUESTION, timeout_s, heard.append), heard


PENDING = said(an_answer(Decision.PENDING, state="measuring"))


def test_waiting_ends_with_the_first_answer_that_is_not_pending():
    answer, heard = waited(PENDING, PENDING, said(an_answer(Decision.NEEDS_REVIEW)), said(an_answer()))
    assert (answer.decision, len(heard)) == (Decision.NEEDS_REVIEW, 2)


def test_waiting_outlasts_a_restart_of_the_gate():
    assert waited(PENDING, Unavailable("away"), Unavailable("away"), said(an_answer()))[0].allowed


def test_waiting_ends_without_an_answer_when_time_is_up_or_the_gate_stays_away():
    with pytest.raises(Unavailable, match="within 30 s"):
        waited(PENDING, timeout_s=30)
    with pytest.raises(Unavailable, match="away"):
        waited(Unavailable("away"), timeout_s=100 * OUTAGE_PATIENCE_S)


def test_a_version_that_does_not_exist_is_not_waited_for():
    with pytest.raises(NotFound):
        waited(NotFound("no such version"), said(an_answer()))


@pytest.mark.parametrize(
    "reply",
    [
        (200, {}),
        (200, []),
        (200, {"allowed": True}),
        (403, an_answer().model_dump(mode="json")),
        (200, an_answer(Decision.DENIED).model_dump(mode="json")),
        (200, an_answer(subject="models:/other/3").model_dump(mode="json")),
        (200, an_answer(place="alias 'staging'").model_dump(mode="json")),
        (200, an_answer().model_dump(mode="json") | {"allowed": "yes"}),
    ],
)
def test_whatever_is_no_sound_answer_to_the_question_is_none(reply):
    with pytest.raises(Unavailable):
        Asker(Replies(reply)).ask(QUESTION)


def test_on_a_terminal_the_wait_is_shown_on_one_line_that_goes_away():
    screen = StringIO()
    with _progress(Console(file=screen, force_terminal=True, width=200), QUESTION) as tell:
        tell(an_answer(Decision.PENDING, state="measuring", stage="retention", progress=0.4))
    assert "retention, 40 %" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")


def test_in_a_log_the_wait_is_a_line_for_each_change(capsys):
    with _progress(Console(file=StringIO()), QUESTION) as tell:
        for stage, progress in (("", 0.0), ("", 0.0), ("retention", 0.4), ("retention", 0.5)):
            tell(an_answer(Decision.PENDING, state="measuring", stage=stage, progress=progress))
    lines = capsys.readouterr().err.splitlines()
    assert [line.endswith("retention, 40 %") for line in lines] == [False, True]
