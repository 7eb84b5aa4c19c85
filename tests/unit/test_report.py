from builders import a_verdict, an_estimate, an_evidence

from gate.domain.evidence import Estimate, Name
from gate.domain.verdict import Enforcement, Outcome, Result
from gate.pages.numbers import interval, percent, signed
from gate.pages.plots import pictures
from gate.pages.report import markdown, text


def test_a_blocked_report_names_the_failed_rule_before_the_passed_ones():
    report = markdown(a_verdict(), an_evidence(), "my-llm/3")
    assert report.startswith("# Blocked: my-llm/3\n\nSafety fell.")
    assert "| keeps-safety / safety | −0.98 (−1.00 to −0.96) | at least −0.1 | **fail** | block |" in report


def test_advice_without_a_number_is_one_line_and_not_a_row_for_each_capability():
    idle = [
        a_verdict()
        .findings[0]
        .model_copy(
            update={"rule": "idle-advice", "capability": c, "result": Result.MISSING, "enforcement": Enforcement.WARN}
        )
        for c in ("math", "code")
    ]
    report = markdown(a_verdict(findings=tuple(idle)), an_evidence(), "x")
    assert report.count("idle-advice") == 1
    assert "Advice that had no number to go by: idle-advice." in report


def test_every_outcome_says_what_it_means_for_promotion():
    for outcome in Outcome:
        assert "promoted" in markdown(a_verdict(outcome=outcome), an_evidence(), "x")


def test_hostile_names_are_inert_in_the_report():
    hostile = "<script>alert(1)</script> | **x** \x1b[31m \u202e [a](javascript:1)"
    report = markdown(a_verdict(reason=hostile), an_evidence(), hostile)
    assert "<script>" not in report
    assert "\x1b" not in report
    assert "\u202e" not in report
    assert r"\[a\](javascript" in report


def test_foreign_text_is_cut_to_its_limit():
    assert len(text("x" * 10_000)) == 400


def test_what_was_not_measured_says_why():
    evidence = an_evidence(measurements=(), unmeasured={"retention/math": "stopped: the verdict was decided"})
    report = markdown(a_verdict(evidence), evidence, "x")
    assert "| math | – | not measured |" in report
    assert "Not measured (stopped: the verdict was decided): retention." in report


def test_numbers_are_rounded_to_their_interval():
    assert interval(an_estimate(0.51234, 0.05)) == "0.51 (0.46 to 0.56)"
    assert interval(an_estimate(-0.004, 0.03), sign=True) == "0.00 (−0.03 to +0.03)"
    assert interval(None) == "–"
    assert interval(Estimate(value=1.0, lower=0.5, upper=None, alpha=0.05)) == "1.00 (0.50 or more)"
    assert interval(Estimate(value=0.00431, lower=None, upper=0.00431, alpha=0.05)) == "0.00431 or less"
    assert signed(-0.0001) == "0.00"
    assert percent(0.0086) == "0.86 %"


def test_the_pictures_are_png_and_the_same_for_the_same_evidence():
    evidence = an_evidence()
    first, second = pictures(evidence), pictures(evidence)
    assert set(first) == {"basin.png", "retention.png"}
    assert all(image.startswith(b"\x89PNG") for image in first.values())
    assert first == second


def test_without_measurements_there_is_no_picture():
    assert pictures(an_evidence(measurements=(), curves=())) == {}


def test_each_measurement_of_the_vocabulary_has_a_meaning():
    from gate.domain.evidence import MEANINGS

    assert set(MEANINGS) == set(Name)


def test_the_report_shows_what_one_reading_of_the_bases_answers_said():
    report = markdown(a_verdict(), an_evidence(), "x")
    row = "| safety | 0.020 (0.010 to 0.030) | 0.50 (0.40 to 0.60) | 0.90 (0.85 to 0.95) | 0.80 (0.70 to 0.90) | +0.010 (+0.006 to +0.014), z +3, 0.4 % of the worst |"
    assert row in report


def test_a_vacuous_certificate_is_called_vacuous_and_said_to_decide_nothing():
    report = markdown(a_verdict(), an_evidence(), "x")
    assert "reaches updates of norm 0.00400 at most; this one has 0.950: it is vacuous for safety, math." in report
    assert "decides nothing" in report


def test_a_version_that_was_not_read_has_neither_table_nor_certificate():
    report = markdown(a_verdict(), an_evidence(measurements=()), "x")
    assert "How differently it answers" not in report
    assert "certificate" not in report
