"""The pages on policies: what is in force, rule by rule, and drafts tried on what was judged."""

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from api_stand import Stand, judged
from builders import a_version, an_evidence
from token_stand import HTML, Tokens, signed_in, with_tokens

from gate.adapters.policy_files import SHIPPED, load_policies
from gate.domain.access import Role
from gate.domain.verdict import Outcome

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e'\" onload=x"
TEXT = (SHIPPED / "default.yaml").read_text()
STRICT = TEXT.replace("at_most: 0.25", "at_most: 0.001")
TEAM = """\
name: team-chat
description: <script>alert(1)</script>
layer: team
parent: default
match: version.name.startsWith('<b>')
protected: {aliases: ["<img src=x>"], modes: {"<img src=x>": warn}}
waivers: {max_days: 7}
rules:
  - name: close
    measurement: displacement_relative
    at_most: 0.01
    critical: true
    when: evidence.parameters > 1.0
    reason: <script>alert(2)</script>
"""


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path)


@pytest.fixture
def stand(tmp_path: Path, tokens: Tokens) -> Iterator[Stand]:
    """The gate with one version that is approved and one that is blocked by the shipped policy."""
    with with_tokens(tmp_path, tokens) as made:
        made.client.headers.update(tokens.header(Role.POLICY_AUTHOR) | HTML)
        judged(made, a_version(name="chat-llm"), evidence=an_evidence(key="1" * 64))
        judged(made, a_version(name="code-llm"), evidence=an_evidence(key="2" * 64), outcome=Outcome.BLOCKED)
        yield made


def in_layers(stand: Stand, folder: Path) -> None:
    """The shipped policy of the organisation and, below it, a team's with hostile words in it."""
    (folder / "layers").mkdir()
    (folder / "layers" / "organisation.yaml").write_text(f"layer: organisation\n{TEXT}\nwaivers: {{max_days: 30}}\n")
    (folder / "layers" / "team.yaml").write_text(TEAM)
    stand.client.app.state.door = replace(stand.door, policies=load_policies(folder / "layers"))


def test_the_policies_in_force_are_listed_with_what_was_judged_under_them(stand: Stand) -> None:
    page = stand.client.get("/policies").text
    assert '<a href="/policies/default">default</a>' in page
    assert "every version" in page
    assert "aliases approved, champion, production; stage Production" in page
    assert "<b>1</b> approved" in page
    assert "<b>1</b> blocked" in page
    assert "2026-" in page
    assert '<a href="/policies" aria-current="page">' in page


def test_a_policy_is_read_rule_by_rule_with_its_limits_and_its_text(stand: Stand) -> None:
    page = stand.client.get("/policies/default").text
    for rule in stand.door.policies.policies[0].rules:
        assert f"<h3>{rule.name} " in page
        assert rule.reason in page
    assert "at least minus the margin that the suite gives the capability" in page
    assert "at most 0.25" in page
    assert "it grants none" in page
    assert "custom code: <b>blocks</b>" in page
    assert "\n  at_most: 0.25\n" in page
    assert "1 approved, 1 blocked" in page


def test_a_policy_that_is_not_in_force_is_a_page_that_says_so(stand: Stand) -> None:
    answer = stand.client.get("/policies/<script>")
    assert (answer.status_code, "<script>" in answer.text) == (404, False)
    assert "expected a policy in force" in answer.text


def test_a_layer_says_what_it_tightens_and_where_each_rule_was_written(stand: Stand, tmp_path: Path) -> None:
    in_layers(stand, tmp_path)
    page = stand.client.get("/policies/team-chat").text
    assert "team, tightens default" in page
    assert page.count("inherited from organisation default") == 6
    assert "critical: it must be measured" in page
    assert "for 7 days at most" in page
    assert "(only warned of)" in page


def test_what_a_policy_says_is_inert_on_its_pages(stand: Stand, tmp_path: Path) -> None:
    in_layers(stand, tmp_path)
    for address in ("/policies", "/policies/team-chat"):
        page = stand.client.get(address).text
        assert "<script>" not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;" in page


def test_a_draft_shows_whom_it_would_decide_otherwise_and_changes_nothing(stand: Stand) -> None:
    before = [row.outcome for row in stand.ledger.evaluations()]
    answer = stand.client.post("/replay", data={"draft": STRICT, "days": "30", "budget": "5"})
    page = answer.text

    assert answer.status_code == 200
    assert "rule still-a-fine-tune: <b>tightened</b>" in page
    assert "1 of 1 (100 %)" in page
    assert "budget of 5 % exceeded" in page
    assert "still-a-fine-tune: <b>2</b>" in page
    linked = set(re.findall(r'<a href="/evaluations/(\w+)">models:/\w+-llm/3</a>', page))
    assert linked == {row.request.key for row in stand.ledger.evaluations()}
    assert [row.outcome for row in stand.ledger.evaluations()] == before
    assert stand.ledger.audit_entries()[-1].actor == "policy_author"
    assert "<span>policy_author</span>" in page


def test_the_text_of_a_policy_in_force_is_replayed_as_that_policy(stand: Stand, tmp_path: Path) -> None:
    in_layers(stand, tmp_path)
    for name in ("default", "team-chat"):
        form = stand.client.get(f"/replay?policy={name}").text
        found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", form, re.DOTALL)
        assert found is not None
        checked = stand.client.post("/replay", data={"draft": html.unescape(found[1]), "only_check": "true"})
        assert "as it is in force.</p>" in checked.text
        assert "Nothing: it is policy" in checked.text
        assert "What it would have decided" not in checked.text


def test_a_draft_that_cannot_be_loaded_is_shown_with_its_line_and_stays_in_the_form(stand: Stand) -> None:
    draft = TEXT.replace("rules:", "ruls: # <script>")
    answer = stand.client.post("/replay", data={"draft": draft})
    line = draft.splitlines().index("ruls: # <script>") + 1

    assert answer.status_code == 400
    assert f'<h3>Line {line} <code class="soft">ruls: # &lt;script&gt;</code>' in answer.text
    assert "<dt>expected</dt><dd>a known key" in answer.text
    assert "<dt>found</dt><dd>&#39;ruls&#39;</dd>" in answer.text
    assert "<dt>to mend it</dt><dd>did you mean &#39;rules&#39;?</dd>" in answer.text
    assert "capability: &quot;*&quot;\n" in answer.text
    assert "<script>" not in answer.text
    assert stand.ledger.audit_entries()[-1].event != "policy replayed"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"draft": TEXT, "days": "0"}, "found at days"),
        ({"draft": TEXT, "budget": "101"}, "found at budget"),
        ({"days": "7"}, "found at draft"),
        ({"draft": TEXT, "file": "/etc/passwd"}, "found at file"),
    ],
    ids=["no days", "a budget above all", "no draft", "an unknown field"],
)
def test_a_replay_that_is_not_filled_in_well_says_where(stand: Stand, given: dict[str, str], said: str) -> None:
    answer = stand.client.post("/replay", data=given)
    assert (answer.status_code, said in answer.text, 'role="alert"' in answer.text) == (400, True, True)


def test_a_form_longer_than_any_policy_is_refused(stand: Stand) -> None:
    assert stand.client.post("/replay", data={"draft": "x" * 500_000}).status_code == 413


def test_only_a_policy_author_replays_and_only_from_the_gate_s_own_page(stand: Stand, tokens: Tokens) -> None:
    assert "needs somebody signed in" in stand.client.get("/replay", headers=tokens.header(Role.SUBMITTER)).text
    del stand.client.headers["authorization"]
    for role, origin, status in (
        (Role.SUBMITTER, "same-origin", 403),
        (Role.POLICY_AUTHOR, "cross-site", 401),
        (Role.POLICY_AUTHOR, "same-origin", 200),
    ):
        headers = signed_in(stand, tokens, role) | {"Sec-Fetch-Site": origin}
        assert stand.client.post("/replay", data={"draft": TEXT}, headers=headers).status_code == status
