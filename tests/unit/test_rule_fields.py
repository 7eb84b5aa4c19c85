"""What a rule may say besides its limit: when it applies, how sure it must be, and what it makes of a missing number."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import a_checkpoint, a_version, an_estimate, an_evidence

from gate.adapters.conditions import idle_rules
from gate.adapters.policy_files import load_policies, load_policy, policy_schema, select_policy
from gate.domain.checkpoint import Layout
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Measurement, Name, StageCost
from gate.domain.judging import decided, judge
from gate.domain.policy import Policy
from gate.domain.verdict import Enforcement, Outcome, Result

KEPT = {"name": "kept", "measurement": "retention", "capability": "*", "at_least": "margin", "reason": "keep it"}
NEAR = {"name": "near", "measurement": "displacement_relative", "at_most": 0.005, "reason": "train less"}


def document(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"name": "mine", "enforcement": "enforce", "rules": [KEPT, *rules], **changes}


def loaded(folder: Path, content: dict[str, Any]) -> Policy:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_policy(file)


@pytest.mark.parametrize(
    ("when", "applies"),
    [
        ("adapter.kind == 'adapter'", False),
        ("adapter.kind == 'full'", True),
        ("base.name == 'base'", True),
        ("base.name == 'other'", False),
        ("evidence.parameters > 1000", False),
        ("evidence.parameters <= 100 && evidence.files == 2", True),
        ("version.name.startsWith('my-')", True),
        ("version.tags['risk'] == 'low'", True),  # no such tag here: what cannot be computed holds
    ],
)
def test_a_rule_applies_where_its_condition_holds_or_cannot_be_computed(
    tmp_path: Path, when: str, applies: bool
) -> None:
    policy, evidence = loaded(tmp_path, document({**NEAR, "when": when})), an_evidence()

    idle = idle_rules(policy, evidence, a_version())
    verdict = judge(policy, evidence, subject="s", now=0, idle=idle)

    assert idle == (frozenset() if applies else {"near"})
    assert verdict.outcome is (Outcome.BLOCKED if applies else Outcome.APPROVED)
    assert any(f.rule == "near" for f in verdict.findings) is applies


def test_a_condition_on_an_adapter_reads_the_files_and_not_what_a_tag_says(tmp_path: Path) -> None:
    policy = loaded(tmp_path, document({**NEAR, "when": "adapter.kind == 'full'"}))
    claims = a_version(tags={"adapter_kind": "adapter"})

    assert idle_rules(policy, an_evidence(), claims) == frozenset()
    assert idle_rules(policy, an_evidence(candidate=a_checkpoint(layout=Layout.ADAPTER)), claims) == {"near"}


def test_of_a_folder_nothing_is_known_of_a_version_so_the_rule_applies(tmp_path: Path) -> None:
    policy = loaded(tmp_path, document({**NEAR, "when": "version.name == 'other'"}))

    assert idle_rules(policy, an_evidence()) == frozenset()


def test_only_a_rule_with_a_condition_can_be_idle(tmp_path: Path) -> None:
    policy = loaded(tmp_path, document(NEAR))

    assert judge(policy, an_evidence(), subject="s", now=0, idle={"near", "kept"}).outcome is Outcome.BLOCKED


def test_a_rule_with_a_condition_does_not_end_the_measuring_early(tmp_path: Path) -> None:
    always = loaded(tmp_path, document(NEAR))
    sometimes = loaded(tmp_path, document({**NEAR, "when": "version.name == 'x'"}))

    assert decided(always, an_evidence())
    assert not decided(sometimes, an_evidence())


@pytest.mark.parametrize(("alpha", "result"), [(0.01, Result.PASS), (0.0, Result.PASS), (0.05, Result.INCONCLUSIVE)])
def test_an_interval_decides_only_at_the_level_asked_for(tmp_path: Path, alpha: float, result: Result) -> None:
    policy = loaded(tmp_path, document({**KEPT, "name": "surely", "confidence": 0.99}, plan={"alpha": 0.01}))
    change = an_estimate(0.0, 0.05, alpha=alpha)
    evidence = an_evidence(
        capabilities=("math",),
        margins={"math": 0.1},
        measurements=(Measurement(name=Name.RETENTION, capability="math", estimate=change),),
    )

    found = next(f for f in judge(policy, evidence, subject="s", now=0).findings if f.rule == "surely")

    assert found.result is result
    assert ("holds at 0.95, less than the 0.99 asked for" in found.sentence) is (result is Result.INCONCLUSIVE)


def test_a_rule_that_fails_open_lets_an_unmeasured_version_through_and_is_marked(tmp_path: Path) -> None:
    opened = {**NEAR, "failure": "open", "failure_reason": "the measurement is new"}
    unmeasured = an_evidence(
        measurements=tuple(m for m in an_evidence().measurements if m.name is not Name.DISPLACEMENT_RELATIVE)
    )

    verdict = judge(loaded(tmp_path, document(opened)), unmeasured, subject="s", now=0)
    finding = next(f for f in verdict.findings if f.rule == "near")

    assert (verdict.outcome, finding.failed_open, finding.enforcement) == (Outcome.APPROVED, True, Enforcement.WARN)
    assert finding.sentence.endswith("the rule fails open: the measurement is new")
    closed = judge(loaded(tmp_path, document(NEAR)), unmeasured, subject="s", now=0)
    assert closed.outcome is Outcome.NEEDS_REVIEW


def test_a_rule_that_fails_open_still_blocks_what_was_measured(tmp_path: Path) -> None:
    opened = {**NEAR, "failure": "open", "failure_reason": "the measurement is new"}

    assert judge(loaded(tmp_path, document(opened)), an_evidence(), subject="s", now=0).outcome is Outcome.BLOCKED


def test_a_rule_that_fails_open_lets_nothing_through_whose_number_has_no_limit_here(tmp_path: Path) -> None:
    opened = {**KEPT, "failure": "open", "failure_reason": "the measurement is new"}
    policy = loaded(tmp_path, document(rules=[{**NEAR, "at_most": 0.5}, opened]))

    verdict = judge(policy, an_evidence(margins={"safety": 0.1}), subject="s", now=0)
    finding = next(f for f in verdict.findings if (f.rule, f.capability) == ("kept", "math"))

    assert (verdict.outcome, finding.result, finding.failed_open) == (Outcome.NEEDS_REVIEW, Result.MISSING, False)


def test_past_its_budget_nothing_is_approved_and_nothing_more_is_measured(tmp_path: Path) -> None:
    policy = loaded(tmp_path, document(budget={"gpu_seconds": 60}))
    costs = (StageCost(stage="retention", seconds=45), StageCost(stage="headroom", seconds=30))

    within, past = an_evidence(costs=costs[:1]), an_evidence(costs=costs)

    assert judge(policy, within, subject="s", now=0).outcome is Outcome.APPROVED
    verdict = judge(policy, past, subject="s", now=0)
    assert verdict.outcome is Outcome.NEEDS_REVIEW
    assert verdict.reason.startswith("Measuring took 75 seconds, more than the 60 of the policy's budget")
    assert (decided(policy, within), decided(policy, past)) == (False, True)


def test_what_is_blocked_stays_blocked_past_the_budget(tmp_path: Path) -> None:
    policy = loaded(tmp_path, document(NEAR, budget={"gpu_seconds": 1}))

    spent = an_evidence(costs=(StageCost(stage="retention", seconds=45),))

    assert judge(policy, spent, subject="s", now=0).outcome is Outcome.BLOCKED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            document({**NEAR, "failure": "open"}),
            "mine.yaml:9: rule near: expected failure_reason with failure: open and only there, found none; say why",
        ),
        (
            document({**NEAR, "failure_reason": "x"}),
            "mine.yaml:9: rule near: expected failure_reason with failure: open and only there, found one with",
        ),
        (
            document({**NEAR, "failure": "open", "failure_reason": "x", "critical": True}),
            "mine.yaml:9: rule near: expected failure: closed on a critical rule, found open; what is critical",
        ),
        (
            document({**NEAR, "confidence": 0.99}),
            (
                "mine.yaml:13: rule near: expected a confidence of at most 0.95, which plan.alpha 0.05 measures at, found "
                "0.99; set plan.alpha to 0.01 or less"
            ),
        ),
        (
            document({**NEAR, "measurement": "forward_kl", "capability": "*", "confidence": 0.9}),
            "mine.yaml:9: rule near: expected no confidence, found 0.9: the interval of forward_kl describes",
        ),
        (
            document({**NEAR, "when": "evidence.retention > 0"}),
            "mine.yaml:13: expected a known fact of evidence (parameters, files, bytes, capabilities), found 'retention'",
        ),
        (
            document({**NEAR, "when": "adapter.kind"}),
            "mine.yaml:13: rules.1.when: expected true or false, found 'unknown'; write for example",
        ),
        (
            document({**NEAR, "when": "candidate.kind == 'x'"}),
            "mine.yaml:13: rules.1.when: expected a CEL expression over version, base, adapter, evidence, found",
        ),
        (
            document(on_approved={"tags": {"gate.vsa": "x"}}),
            "mine.yaml:9: on_approved.tags: expected names outside gate.*, found ['gate.vsa']",
        ),
        (document(budget={"gpu_seconds": 0}), "mine.yaml:10: budget.gpu_seconds: input should be greater than 0"),
        (document(budget={"gpu_second": 1}), "mine.yaml:10: expected a known key (gpu_seconds), found 'gpu_second'"),
        (document(origins={"kept": "me"}), "mine.yaml:9: expected a known key (name, description"),
        (
            {"name": "mine", "rules": [{**KEPT, "when": "adapter.kind == 'full'"}]},
            "mine.yaml:1: policy mine: expected at least one deciding rule without when and with failure: closed",
        ),
    ],
)
def test_what_a_rule_cannot_mean_is_refused_with_its_line(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        loaded(tmp_path, content)

    assert str(refused.value).replace(f"{tmp_path}/", "").startswith(message)


def test_a_new_policy_watches_until_it_says_that_it_enforces(tmp_path: Path) -> None:
    silent = {key: value for key, value in document().items() if key != "enforcement"}

    assert loaded(tmp_path, silent).enforcement == "dry_run"
    assert loaded(tmp_path, document()).enforcement == "enforce"


def test_what_is_not_said_leaves_a_policys_digest_as_it_was(tmp_path: Path) -> None:
    said = loaded(tmp_path, document()).model_dump(mode="json")

    assert not {"budget", "layer", "parent", "origins", "on_blocked"} & set(said)
    assert not {"when", "confidence", "critical", "failure", "failure_reason"} & set(said["rules"][0])
    assert said["on_approved"] == {"alias": None}


def test_match_reads_what_a_version_says_of_its_base_its_adapter_and_its_submitter(tmp_path: Path) -> None:
    asked = "version.base == 'models:/llm/1' && version.adapter_kind == 'lora' && version.submitter == 'ann'"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document(match=asked)))
    policies = load_policies(tmp_path / "mine.yaml")
    said = {"gate.base": "models:/llm/1", "adapter_kind": "lora", "mlflow.user": "ann"}

    assert select_policy(policies, a_version(tags=said)) is not None
    for key in said:
        assert select_policy(policies, a_version(tags={k: v for k, v in said.items() if k != key})) is None


def test_two_policies_of_one_match_are_refused_since_the_second_would_never_be_asked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        content = {**document(match="version.name  == 'x'" if name == "a" else "version.name == 'x'"), "name": name}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))

    with pytest.raises(InvalidInput, match="found another in"):
        load_policies(tmp_path)


def test_the_schema_offers_every_key_that_may_be_written_and_none_other() -> None:
    schema = policy_schema()

    assert {"budget", "layer", "parent", "on_blocked"} <= set(schema["properties"])
    assert "origins" not in schema["properties"]
    assert {"when", "confidence", "critical", "failure", "failure_reason"} <= set(schema["$defs"]["Rule"]["properties"])
