"""A policy tried before it decides: replayed, explained, compared, tested by cases, its limits suggested."""

import json
import re
import shutil
from pathlib import Path

import pytest
from builders import an_estimate, an_evidence
from typer.testing import CliRunner

from gate.adapters.policy_files import SHIPPED, load_policy
from gate.cli import app
from gate.domain.checkpoint import ModelVersion
from gate.domain.evidence import Estimate, Evidence, Measurement, Name
from gate.domain.judging import judge
from gate.domain.layers import rule_changes
from gate.domain.limits import needed, suggest
from gate.domain.policy import Policy, Rule
from gate.domain.rehearsal import Judged, replay, would_change
from gate.domain.verdict import Enforcement, Outcome

DEFAULT = load_policy(SHIPPED / "default.yaml")
TIGHTER = DEFAULT.model_copy(
    update={
        "name": "tighter",
        "rules": (Rule(name="close", measurement=Name.DISPLACEMENT_RELATIVE, at_most=0.01, reason="closer"),),
    }
)


def judged(number: int, policy: Policy = DEFAULT, **changes: object) -> Judged:
    version = ModelVersion(name="m", version=str(number), created_ms=number, source="s")
    evidence = an_evidence(**changes)
    return Judged(version, evidence, judge(policy, evidence, subject=version.identity, now=0))


def moved(relative: float, number: int) -> Evidence:
    """Evidence of its own bytes, that far from its base."""
    plain = an_evidence()
    file = plain.candidate.files[0].model_copy(update={"sha256": f"{number:064x}"})
    measured = Measurement(name=Name.DISPLACEMENT_RELATIVE, estimate=Estimate.exact(relative))
    candidate = plain.candidate.model_copy(update={"files": (file,)})
    return plain.model_copy(update={"candidate": candidate, "measurements": (measured,)})


def test_judging_again_by_the_same_policy_flips_nothing() -> None:
    found = replay([(DEFAULT, judged(1)), (DEFAULT, judged(2))])

    assert (found.judged, found.flips, found.lost_rate) == (2, (), 0)


def test_a_lost_approval_is_told_with_the_rule_that_took_it() -> None:
    found = replay([(TIGHTER, judged(1)), (None, judged(2))])

    assert (found.lost, found.lost_rate, found.unmatched) == (1, 1.0, 1)
    assert [(f.version, f.before, f.after, f.rules) for f in found.flips] == [
        ("models:/m/1", Outcome.APPROVED, Outcome.BLOCKED, ("close",))
    ]
    assert found.by_rule == {"close": 1}


def test_a_version_that_would_be_let_through_is_told_with_the_rule_that_held_it() -> None:
    found = replay([(DEFAULT, judged(1, TIGHTER))])

    assert [(f.before, f.after, f.rules) for f in found.flips] == [(Outcome.BLOCKED, Outcome.APPROVED, ("close",))]
    assert found.lost_rate is None


def test_evidence_of_another_plan_is_counted() -> None:
    other = DEFAULT.model_copy(update={"plan": DEFAULT.plan.model_copy(update={"alpha": 0.01})})

    assert replay([(other, judged(1))]).other_plan == 1


def test_what_would_change_a_finding_does_change_it() -> None:
    far = judge(TIGHTER, moved(0.5, 1), subject="s", now=0).findings[0]

    assert would_change(far) == "passes once the upper bound is 0.49 lower; or with at_most 0.5 or higher"
    assert judge(_limit(0.5), moved(0.5, 1), subject="s", now=0).outcome is Outcome.APPROVED


def test_an_interval_that_straddles_says_how_many_items_would_narrow_it() -> None:
    rule = Rule(name="kept", measurement=Name.RETENTION, capability="math", at_least=-0.1, reason="r")
    measured = Measurement(name=Name.RETENTION, capability="math", estimate=an_estimate(0.0, 0.2, n=100))
    policy = DEFAULT.model_copy(update={"rules": (rule,)})

    finding = judge(policy, an_evidence(measurements=(measured,)), subject="s", now=0).findings[0]

    assert would_change(finding).startswith("about 400 items instead of 100 would decide it")


def test_a_suggested_limit_holds_the_rate_and_is_as_tight_as_the_versions_allow() -> None:
    good = [moved(i / 1000, i) for i in range(1, 201)]

    found = suggest(TIGHTER.rules[0], good, rate=0.05)

    assert (found.n, found.limit, found.not_passing) == (200, 0.197, 3)
    assert found.rate_upper is not None
    assert found.rate_upper <= 0.05
    assert sum(e.measurements[0].estimate.value > found.limit for e in good) == 3


def test_too_few_versions_are_no_ground_for_a_limit_and_the_number_needed_is_told() -> None:
    enough = needed(0.05, 0.05)

    few = suggest(TIGHTER.rules[0], [moved(0.1, i) for i in range(enough - 1)], rate=0.05)

    assert few.limit is None
    assert "expected at least 72 versions for a rate of 0.05, found 71" in few.refused
    assert suggest(TIGHTER.rules[0], [moved(0.1, i) for i in range(enough)], rate=0.05).limit == 0.1


def test_the_same_bytes_count_once() -> None:
    assert suggest(TIGHTER.rules[0], [moved(0.1, 1)] * 100, rate=0.05).n == 1


def test_a_version_that_lacks_the_measurement_counts_as_one_that_does_not_pass() -> None:
    good = [moved(0.1, i) for i in range(72)]
    lacking = good[0].model_copy(update={"measurements": ()})

    assert "1 of 72 versions lack" in suggest(TIGHTER.rules[0], [lacking, *good[1:]], rate=0.05).refused


@pytest.mark.parametrize("name", sorted(file.stem for file in SHIPPED.glob("*.yaml")))
def test_the_cases_of_a_shipped_policy_show_every_result_of_every_rule_and_every_outcome(name: str) -> None:
    ran = CliRunner().invoke(app, ["policy", "test", "--complete", "--json", str(SHIPPED / f"{name}.yaml")])

    assert ran.exit_code == 0
    run = json.loads(ran.stdout)["runs"][0]
    assert (run["failures"], run["uncovered"]) == ({}, [])
    assert set(run["outcomes"]) == set(Outcome)


@pytest.mark.parametrize(
    ("without", "unshown"),
    [("failed-measurement", "outcome: error"), ("straddles-every-limit", "inconclusive")],
    ids=["an-outcome", "a-result"],
)
def test_a_result_or_an_outcome_that_no_case_shows_ends_in_1_where_all_have_to_be_shown(
    tmp_path: Path, without: str, unshown: str
) -> None:
    policy = tmp_path / "default.yaml"
    policy.write_text((SHIPPED / "default.yaml").read_text())
    shutil.copytree(SHIPPED / "cases" / "default", tmp_path / "cases" / "default")
    (tmp_path / "cases" / "default" / f"{without}.yaml").unlink()
    told = CliRunner().invoke(app, ["policy", "test", str(policy)])
    asked = CliRunner().invoke(app, ["policy", "test", "--complete", str(policy)])

    assert (told.exit_code, asked.exit_code) == (0, 1)
    assert any(line.startswith("  shown by no case: ") and unshown in line for line in asked.stdout.splitlines())


def test_a_case_that_does_not_hold_and_a_policy_without_cases_end_in_1(tmp_path: Path) -> None:
    policy = tmp_path / "default.yaml"
    policy.write_text((SHIPPED / "default.yaml").read_text())
    without = CliRunner().invoke(app, ["policy", "test", str(policy)])
    cases = tmp_path / "cases" / "default"
    cases.mkdir(parents=True)
    (cases / "a.yaml").write_text("says: x\nevidence: {}\noutcome: approved\n")
    wrong = CliRunner().invoke(app, ["policy", "test", str(policy)])

    assert (without.exit_code, wrong.exit_code) == (1, 1)
    assert "found none; write cases" in without.stdout
    assert "expected approved, found needs_review" in wrong.stdout


def test_the_how_to_on_writing_a_policy_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (SHIPPED.parent / "docs" / "howto" / "write-a-policy.md").read_text()
    # The first of each kind: layers are shown further down.
    blocks = dict(reversed(re.findall(r"^```yaml (policy|case)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)))
    section = page.partition("## Try it before it decides")[2].partition("\n## ")[0]
    shown = re.findall(r"^\$ basin-gate (.+)\n((?:(?!\$|```).*\n)+)", section, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies" / "cases" / "support").mkdir(parents=True)
    Path("policies/support.yaml").write_text(blocks["policy"])
    Path("policies/default.yaml").write_text((SHIPPED / "default.yaml").read_text())
    Path("policies/cases/support/keeps.yaml").write_text(blocks["case"])
    Path("evidence.json").write_text(an_evidence().model_dump_json())

    for words, printed in shown:
        ran = CliRunner().invoke(app, words.split())
        assert ran.exit_code == 0
        for line in printed.splitlines():
            assert line.rstrip("…").rstrip() in ran.stdout
    assert [words.split()[1] for words, _ in shown] == ["test", "explain", "diff"]


def test_a_file_of_evidence_is_explained_rule_by_rule(tmp_path: Path) -> None:
    file = tmp_path / "evidence.json"
    file.write_text(an_evidence().model_dump_json())

    ran = CliRunner().invoke(app, ["policy", "explain", str(file), "--policy", str(SHIPPED / "default.yaml"), "--json"])

    found = json.loads(ran.stdout)
    assert found["outcome"] == "approved"
    assert {f["rule"] for f in found["findings"]} == {r.name for r in DEFAULT.rules}
    assert all(f["would_change"].startswith("stops passing once") for f in found["findings"])


def test_the_difference_of_two_policies_names_each_key_once() -> None:
    one, other = str(SHIPPED / "observe.yaml"), str(SHIPPED / "default.yaml")

    changed = json.loads(CliRunner().invoke(app, ["policy", "diff", one, other, "--json"]).stdout)["changed"]

    assert changed["enforcement"] == {"one": "dry_run", "other": "enforce"}
    assert set(changed) == {"description", "enforcement", "name", "on_approved.alias"}


@pytest.mark.parametrize(
    ("update", "change"),
    [
        ({"at_most": 0.005}, "tightened"),
        ({"enforcement": Enforcement.REVIEW}, "loosened"),
        ({"at_most": 0.005, "enforcement": Enforcement.REVIEW}, "otherwise"),
        ({"measurement": Name.BASIN_POSITION, "capability": "*"}, "otherwise"),
        ({"reason": "said better"}, "reworded"),
    ],
)
def test_the_difference_says_what_became_of_each_rule(update: dict[str, object], change: str) -> None:
    other = TIGHTER.model_copy(update={"rules": (TIGHTER.rules[0].model_copy(update=update),)})

    assert rule_changes(TIGHTER, other) == {"close": change}
    assert rule_changes(TIGHTER, TIGHTER) == {}


def test_a_rule_in_one_policy_alone_was_added_or_removed() -> None:
    more = TIGHTER.model_copy(update={"rules": (*TIGHTER.rules, DEFAULT.rules[0])})

    assert rule_changes(TIGHTER, more) == {"capabilities-kept": "added"}
    assert rule_changes(more, TIGHTER) == {"capabilities-kept": "removed"}


def _limit(at_most: float) -> Policy:
    return TIGHTER.model_copy(update={"rules": (TIGHTER.rules[0].model_copy(update={"at_most": at_most}),)})
