"""Policies by the HTTP API: those in force, and drafts checked and tried by whoever writes policies."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_stand import Stand, a_stand, judged
from builders import a_version, an_evidence
from deliveries import CAPTURE_SECRET

from gate.adapters.policy_files import SHIPPED, load_policies
from gate.adapters.token_file import TokenFile
from gate.api.access import Access
from gate.domain.access import Role, made_token

TEXT = (SHIPPED / "default.yaml").read_text()
STRICT = TEXT.replace("at_most: 0.25", "at_most: 0.001")
TEAM = """\
name: team-chat
layer: team
parent: default
match: version.name.startsWith('chat-')
rules:
  - name: close
    measurement: displacement_relative
    at_most: 0.01
    reason: expected a chat model close to its base; train it for fewer steps
"""


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Two versions with an approval by the shipped policy, and a reader and a policy author who ask."""
    made = {role: made_token(role.word, role.word) for role in (Role.READER, Role.POLICY_AUTHOR)}
    (tmp_path / "tokens.yaml").write_text("".join(f"{line}\n" for _, line in made.values()))
    stand = a_stand(tmp_path, access=Access(TokenFile(tmp_path / "tokens.yaml"), (CAPTURE_SECRET,)))
    stand.client.headers["Authorization"] = f"Bearer {made[Role.POLICY_AUTHOR][0]}"
    for number in (1, 2):
        evidence = an_evidence(key=f"{number:064x}")
        judged(stand, a_version(name=f"{'chat' if number == 1 else 'code'}-llm"), evidence=evidence)
    yield stand
    stand.ledger.close()


def test_policies_in_force_are_listed_and_read_as_they_judge(stand: Stand) -> None:
    (listed,) = stand.client.get("/v1/policies").json()["policies"]
    read = stand.client.get("/v1/policies/default").json()

    (policy,) = stand.door.policies.policies
    assert (listed["name"], listed["digest"]) == ("default", policy.digest)
    assert listed["rules"] == [rule.name for rule in policy.rules]
    assert read == {"digest": policy.digest, "document": policy.model_dump(mode="json")}
    assert stand.client.get("/v1/policies/other").status_code == 404


def test_a_draft_tells_whose_approval_it_would_take_by_which_rule_and_changes_nothing(stand: Stand) -> None:
    before = [row.outcome for row in stand.ledger.evaluations()]
    found = stand.client.post("/v1/policies/replay", json={"policy": STRICT, "budget": 0.05}).json()

    assert (found["lost_rate"], found["over_budget"], found["whole"]) == (1.0, True, True)
    assert found["replay"]["by_rule"] == {"still-a-fine-tune": 2}
    assert {flip["version"] for flip in found["replay"]["flips"]} == {"models:/chat-llm/3", "models:/code-llm/3"}
    assert [row.outcome for row in stand.ledger.evaluations()] == before
    kept = stand.client.post("/v1/policies/replay", json={"policy": TEXT, "budget": 0.05}).json()
    assert (kept["lost_rate"], kept["over_budget"], kept["replay"]["flips"]) == (0, False, [])


def test_a_team_s_draft_inherits_from_the_policy_in_force_and_is_tried_on_its_own_versions_only(
    stand: Stand, tmp_path: Path
) -> None:
    (tmp_path / "organisation.yaml").write_text(f"layer: organisation\n{TEXT}")
    policies = load_policies(tmp_path / "organisation.yaml")
    stand.client.app.state.door = replace(stand.door, policies=policies)

    found = stand.client.post("/v1/policies/replay", json={"policy": TEAM}).json()

    assert "still-a-fine-tune" in found["policy"]["rules"]
    assert (found["replay"]["judged"], found["replay"]["unmatched"]) == (1, 1)
    assert [flip["version"] for flip in found["replay"]["flips"]] == ["models:/chat-llm/3"]
    loose = TEAM.replace("name: close", "name: still-a-fine-tune").replace("0.01", "0.5")
    assert "looser than organisation default" in stand.client.post("/v1/policies/replay", json={"policy": loose}).text


def test_a_replay_is_kept_in_the_audit_trail_with_who_asked(stand: Stand) -> None:
    stand.client.post("/v1/policies/replay", json={"policy": STRICT, "days": 7, "limit": 1}).raise_for_status()

    entry = stand.ledger.audit_entries()[-1]
    told = json.loads(entry.detail)
    assert (entry.event, entry.actor) == ("policy replayed", "policy_author")
    assert (told["policy"], told["days"], told["judged"], told["lost"]) == ("default", 7, 1, 1)
    assert stand.ledger.audit_break() is None


def test_a_replay_of_fewer_versions_than_there_are_says_that_it_is_not_the_whole(stand: Stand) -> None:
    found = stand.client.post("/v1/policies/replay", json={"policy": TEXT, "limit": 1}).json()
    assert (found["replay"]["judged"], found["whole"]) == (1, False)


def test_lint_says_what_a_draft_loosens_and_tightens_of_the_policy_in_force(stand: Stand) -> None:
    tighter = stand.client.post("/v1/policies/lint", json={"policy": STRICT}).json()
    looser = stand.client.post(
        "/v1/policies/lint", json={"policy": TEXT.replace("at_most: 0.25", "at_most: 0.5")}
    ).json()

    assert (tighter["problems"], tighter["loosened"]) == ([], [])
    assert tighter["rules"] == {"still-a-fine-tune": "tightened"}
    assert tighter["in_force"] == stand.door.policies.policies[0].digest != tighter["policy"]["digest"]
    assert looser["rules"] == {"still-a-fine-tune": "loosened"}
    assert len(looser["loosened"]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nruls: []\n", "draft.yaml:2: expected a known key"),
        ("[" * 50_000, "draft.yaml:1: expected at most 30 levels, found more"),
        ("a: &x 1\nb: *x\n", "found the alias *x"),
        ("name: x\nlayer: team\nparent: gone\nrules: []\n", "expected a policy that is in force, found no 'gone'"),
    ],
)
def test_a_draft_that_cannot_be_loaded_is_told_where_and_why(stand: Stand, text: str, said: str) -> None:
    (problem, *_) = stand.client.post("/v1/policies/lint", json={"policy": text}).json()["problems"]
    refused = stand.client.post("/v1/policies/replay", json={"policy": text})

    assert said in problem
    assert refused.status_code == 400
    assert said in refused.json()["detail"]
