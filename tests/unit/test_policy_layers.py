"""Layers: what a team's policy inherits from its organisation's, and that it cannot loosen it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import a_version

from gate.adapters.policy_files import load_policies, load_policy, select_policy
from gate.domain.errors import InvalidInput
from gate.domain.policy import Policy

ACME: dict[str, Any] = {
    "name": "acme",
    "layer": "organisation",
    "match": "true",
    "enforcement": "enforce",
    "protected": {"aliases": ["champion"]},
    "on_blocked": {"notify": ["security"]},
    "validity_days": 60,
    "budget": {"gpu_seconds": 600},
    "rules": [
        {"name": "kept", "measurement": "retention", "capability": "*", "at_least": -0.1, "reason": "keep it"},
        {"name": "near", "measurement": "displacement_relative", "at_most": 0.25, "reason": "train less"},
    ],
}
TEAM: dict[str, Any] = {
    "name": "support",
    "layer": "team",
    "parent": "acme",
    "match": "version.name.startsWith('support-')",
}
NEARER = {"name": "near", "measurement": "displacement_relative", "at_most": 0.1, "reason": "train less"}
MODEL: dict[str, Any] = {
    "name": "faq",
    "layer": "model",
    "parent": "support",
    "match": "version.name == 'support-faq'",
    "rules": [{"name": "safe", "measurement": "score", "capability": "safety", "at_least": 0.9, "reason": "refuse"}],
}


def written(folder: Path, *documents: dict[str, Any]) -> Path:
    for each in documents:
        (folder / f"{each['name']}.yaml").write_text(yaml.safe_dump(each, sort_keys=False))
    return folder


def limits(policy: Policy) -> dict[str, float | str | None]:
    return {rule.name: rule.at_most if rule.at_least is None else rule.at_least for rule in policy.rules}


def test_a_layer_inherits_what_it_does_not_say_and_keeps_what_it_tightens(tmp_path: Path) -> None:
    team = {**TEAM, "protected": {"aliases": ["live"]}, "rules": [NEARER], "validity_days": 30}
    policy = load_policy(written(tmp_path, ACME, team) / "support.yaml")

    assert limits(policy) == {"near": 0.1, "kept": -0.1}
    assert policy.protected.aliases == ("champion", "live")
    assert (policy.enforcement, policy.validity_days) == ("enforce", 30)
    assert policy.budget
    assert policy.budget.gpu_seconds == 600
    assert policy.on_blocked.notify == ("security",)
    assert policy.origins == {"near": "team support", "kept": "organisation acme"}


def test_three_layers_add_up_and_the_lowest_that_matches_is_asked(tmp_path: Path) -> None:
    policies = load_policies(written(tmp_path, ACME, {**TEAM, "rules": [NEARER]}, MODEL))

    assert [policy.name for policy in policies.policies] == ["faq", "support", "acme"]
    asked = {name: select_policy(policies, a_version(name=name)) for name in ("support-faq", "support-x", "other")}
    assert {name: found and found.name for name, found in asked.items()} == {
        "support-faq": "faq",
        "support-x": "support",
        "other": "acme",
    }
    assert policies.policies[0].origins == {"safe": "model faq", "near": "team support", "kept": "organisation acme"}


def test_a_lower_layer_speaks_only_where_the_layers_above_do(tmp_path: Path) -> None:
    above = {**ACME, "match": "!version.name.endsWith('-embeddings')"}
    policies = load_policies(written(tmp_path, above, TEAM))

    asked = {n: select_policy(policies, a_version(name=n)) for n in ("support-chat", "support-embeddings")}

    assert asked["support-chat"]
    assert asked["support-chat"].name == "support"
    assert asked["support-embeddings"] is None


def test_a_change_of_the_organisations_policy_is_one_of_every_policy_below(tmp_path: Path) -> None:
    before = load_policies(written(tmp_path, ACME, TEAM)).policies[0]

    after = load_policies(written(tmp_path, {**ACME, "validity_days": 20}, TEAM)).policies[0]

    assert before.name == after.name == "support"
    assert before.digest != after.digest
    assert after.validity_days == 20


FIX = "; say it at least as strictly, leave it out to inherit it, or have the layer above loosened"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rules": [{**NEARER, "at_most": 0.5}]},
            (
                "support.yaml:6: looser than organisation acme: rules.near: expected a rule on displacement_relative at least "
                f"as strict, found only near, which is looser{FIX}"
            ),
        ),
        (
            {"rules": [{**NEARER, "enforcement": "warn"}]},
            (
                "support.yaml:6: looser than organisation acme: rules.near: expected a rule on displacement_relative at least "
                f"as strict, found only near, which is looser{FIX}"
            ),
        ),
        (
            {"rules": [{**NEARER, "when": "adapter.kind == 'full'"}]},
            (
                "support.yaml:6: looser than organisation acme: rules.near: expected a rule on displacement_relative at least "
                f"as strict, found only near, which is looser{FIX}"
            ),
        ),
        (
            {"rules": [{**NEARER, "failure": "open", "failure_reason": "new"}]},
            (
                "support.yaml:6: looser than organisation acme: rules.near: expected a rule on displacement_relative at least "
                f"as strict, found only near, which is looser{FIX}"
            ),
        ),
        (
            {"validity_days": 90},
            f"support.yaml:5: looser than organisation acme: validity_days: expected at most 60, found 90{FIX}",
        ),
        (
            {"enforcement": "dry_run"},
            f"support.yaml:5: looser than organisation acme: enforcement: expected enforce, found dry_run{FIX}",
        ),
        (
            {"budget": {"gpu_seconds": 900}},
            f"support.yaml:6: looser than organisation acme: budget.gpu_seconds: expected at most 600, found 900{FIX}",
        ),
        (
            {"on_blocked": {"notify": []}},
            f"support.yaml:6: looser than organisation acme: on_blocked.notify: expected security too{FIX}",
        ),
        (
            {"defects": {"non_finite_weights": "warn"}},
            (
                "support.yaml:6: looser than organisation acme: defects.non_finite_weights: expected block or stricter, found "
                f"warn{FIX}"
            ),
        ),
        (
            {"plan": {"alpha": 0.2}},
            f"support.yaml:6: looser than organisation acme: plan.alpha: expected at most 0.05, found 0.2{FIX}",
        ),
    ],
)
def test_a_lower_layer_that_loosens_is_refused_with_its_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = written(tmp_path, ACME, {**TEAM, **changes})

    with pytest.raises(InvalidInput) as refused:
        load_policies(folder)

    assert str(refused.value).replace(f"{tmp_path}/", "") == message


@pytest.mark.parametrize(
    ("team", "message"),
    [
        ({"parent": "nobody"}, "support.yaml:3: parent: expected a policy of that name in"),
        ({"parent": "support"}, "support.yaml:3: parent: expected a policy of that name in"),
        ({"parent": None}, "support.yaml:2: layer: expected a parent with layer: team, found none"),
        ({"layer": None}, "support.yaml:2: parent: expected layer: team or model with a parent, found None"),
        ({"layer": "organisation"}, "support.yaml:3: parent: expected layer: team or model with a parent, found"),
        ({"layer": "group"}, "support.yaml:3: parent: expected layer: team or model with a parent, found 'group'"),
    ],
)
def test_layers_that_do_not_fit_together_are_refused(tmp_path: Path, team: dict[str, Any], message: str) -> None:
    document = {key: value for key, value in {**TEAM, **team}.items() if value is not None}

    with pytest.raises(InvalidInput) as refused:
        load_policies(written(tmp_path, ACME, document))

    assert str(refused.value).replace(f"{tmp_path}/", "").startswith(message)


def test_a_parent_must_be_of_a_layer_above(tmp_path: Path) -> None:
    folder = written(tmp_path, ACME, TEAM, {**MODEL, "layer": "team"})

    with pytest.raises(InvalidInput, match="expected a parent with layer: organisation, found layer: team"):
        load_policies(folder)


def test_policies_that_name_each_other_as_parents_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, {**TEAM, "parent": "faq"}, MODEL)

    with pytest.raises(InvalidInput, match=r"expected a policy above, found '(faq|support)' below; end the circle"):
        load_policies(folder)


def test_what_is_wrong_in_a_parent_is_told_of_the_parent(tmp_path: Path) -> None:
    folder = written(tmp_path, {**ACME, "validity_days": 0}, TEAM)

    with pytest.raises(InvalidInput, match=r"acme\.yaml:11: validity_days"):
        load_policy(folder / "support.yaml")
