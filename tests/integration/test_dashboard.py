"""The dashboard over a real ledger: what each page tells, to whom it listens, and that nothing foreign is believed."""

import json
import re
from pathlib import Path

import pytest
from api_stand import Stand, a_stand, judged
from builders import an_evidence

from gate.domain.checkpoint import Base
from gate.domain.evaluation import EvaluationRequest, Occasion
from gate.domain.evidence import BasinProfile, CapabilityProfile, CurvePoint, Estimate
from gate.domain.jobs import GPU_QUEUE, PROFILE, inspect_key, judge_key, profile_key
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome
from gate.pages.assets import ASSETS

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e'\" onload=x"


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return a_stand(tmp_path)


def asked(stand: Stand, **changes: object) -> str:
    policy = stand.door.policies.policies[0]
    request = EvaluationRequest.of(stand.register(**changes), policy.name, policy.digest)
    stand.ledger.request_evaluation(request, stand.clock())
    return request.key


def test_the_fleet_shows_each_version_with_its_verdict_and_reason(stand: Stand) -> None:
    judged(stand, stand.register(name="chat"), outcome=Outcome.BLOCKED, reason="Safety fell.")
    page = stand.client.get("/").text
    assert 'class="badge blocked"' in page
    assert "Safety fell." in page
    assert "1 evaluation<" in page


def test_an_empty_fleet_says_how_it_fills(stand: Stand) -> None:
    assert "Nothing was evaluated yet. Register a model" in stand.client.get("/").text


def test_the_fleet_is_filtered_by_outcome_and_by_name(stand: Stand) -> None:
    judged(stand, stand.register(name="chat"), outcome=Outcome.BLOCKED)
    judged(stand, stand.register(name="search"), outcome=Outcome.APPROVED)
    assert re.findall(r'<a href="/evaluations/\w+">(\w+)', stand.client.get("/?outcome=blocked").text) == ["chat"]
    assert re.findall(r'<a href="/evaluations/\w+">(\w+)', stand.client.get("/?text=SEAR").text) == ["search"]
    assert "Nothing here yet that fits" in stand.client.get("/?outcome=error").text
    assert "Nothing was evaluated yet" not in stand.client.get("/?outcome=error").text


def test_a_long_fleet_is_walked_by_its_links(stand: Stand) -> None:
    for number in range(60):
        asked(stand, version=str(number), created_ms=number)
    seen, address = [], "/"
    while address:
        page = stand.client.get(address).text
        seen += re.findall(r'href="/evaluations/(\w+)"', page)
        found = re.search(r'href="([^"]+)" rel="next"', page)
        address = found[1].replace("&amp;", "&") if found else ""
    assert len(seen) == len(set(seen)) == 60


def test_a_place_that_no_page_ended_at_is_refused_in_words(stand: Stand) -> None:
    for word in ("xyz", "W10", "eyJhIjoxfQ", "WyJhIiwiYiJd"):
        answer = stand.client.get(f"/?after={word}")
        assert (answer.status_code, "begin with the first page" in answer.text) == (400, True)


@pytest.mark.parametrize("address", ["/", "/bases", "/queue", "/evaluations/nope", "/bases/nope"])
def test_a_page_runs_and_loads_only_what_the_gate_serves(stand: Stand, address: str) -> None:
    answer = stand.client.get(address)
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in str(policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?! src=\"/static/)|\son\w+=|\sstyle=|https?://", answer.text)
    for source in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        assert stand.client.get(source).status_code == 200


def test_what_is_not_there_is_a_page_that_says_so(stand: Stand) -> None:
    answer = stand.client.get("/evaluations/nope")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "expected an evaluation with key nope, found none" in answer.text


def test_assets_are_kept_for_ever_and_change_their_address_with_their_bytes(stand: Stand) -> None:
    for name, asset in ASSETS.items():
        answer = stand.client.get(f"/static/{name}")
        assert answer.content == asset.body
        assert "immutable" in answer.headers["cache-control"]
    assert f"style.css?v={ASSETS['style.css'].digest[:12]}" in stand.client.get("/").text
    assert stand.client.get("/static/../app.py").status_code == 404


def test_an_evaluation_that_was_opened_again_says_why(stand: Stand) -> None:
    first = stand.ledger.evaluation(asked(stand))
    assert first is not None
    occasion = Occasion(number=1, base="tiny", base_digest=None, suite_digest=None, reason="its base <tiny> is gone")
    again = first.request.again(occasion)
    stand.ledger.request_evaluation(again, stand.clock())

    assert (
        "Evaluated again because its base &lt;tiny&gt; is gone." in stand.client.get(f"/evaluations/{again.key}").text
    )
    assert "Evaluated again" not in stand.client.get(f"/evaluations/{first.request.key}").text


def test_an_evaluation_at_work_tells_its_step_and_reloads_without_script(stand: Stand) -> None:
    key = asked(stand)
    claim = stand.ledger.claim(inspect_key(key), "w", 60, stand.clock())
    stand.ledger.renew(claim, 60, stand.clock(), {"stage": "hashing files", "fraction": 0.25})
    page = stand.client.get(f"/evaluations/{key}").text
    assert "hashing files" in page
    assert 'value="25"' in page
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page
    assert f'data-events="/evaluations/{key}/events"' in page
    assert "Read the report" not in page


def test_an_evaluation_that_is_compared_shows_how_sure_it_is_by_now(stand: Stand) -> None:
    key = asked(stand)
    claim = stand.ledger.claim(inspect_key(key), "w", 60, stand.clock())
    sure = {"capability": "<b>safety", "value": -0.1, "lower": -0.6, "upper": 0.2, "margin": 0.1, "used": 32, "of": 128}
    told = {"stage": "comparing", "fraction": 0.25, "narrowing": [sure]}
    stand.ledger.renew(claim, 60, stand.clock(), told)
    page = stand.client.get(f"/evaluations/{key}").text
    assert 'data-capability="&lt;b&gt;safety"' in page
    assert "−0.10 (−0.60 to +0.20) after 32 of 128 items" in page
    listed = stand.client.get(f"/v1/evaluations/{key}").json()
    assert listed["narrowing"] == [sure]


def test_events_end_with_the_verdict(stand: Stand) -> None:
    key = judged(stand, stand.register(), outcome=Outcome.BLOCKED, reason="Safety fell.")
    answer = stand.client.get(f"/evaluations/{key}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    kind, data = answer.text.strip().split("\n")
    assert kind == "event: done"
    assert json.loads(data.removeprefix("data: ")) == {
        "word": "blocked",
        "told": "Safety fell.",
        "percent": 100,
        "state": "done",
        "left": "",
        "narrowing": [],
    }
    assert stand.client.get("/evaluations/nope/events").status_code == 404


def test_a_report_is_served_once_there_is_a_verdict(stand: Stand) -> None:
    waiting = asked(stand, name="other")
    answer = stand.client.get(f"/evaluations/{waiting}/report")
    assert (answer.status_code, "wait for it" in answer.text) == (404, True)

    key = judged(stand, stand.register(), outcome=Outcome.BLOCKED)
    answer = stand.client.get(f"/evaluations/{key}/report")
    assert "<title>Blocked: my-llm version 3</title>" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_an_evaluation_that_failed_says_why_on_its_page_and_in_its_report(stand: Stand) -> None:
    key = asked(stand)
    stand.ledger.finish(stand.ledger.claim(inspect_key(key), "w", 60, stand.clock()), stand.clock())
    claim = stand.ledger.claim(judge_key(key), "w", 60, stand.clock())
    stand.ledger.fail(claim, stand.clock(), error="no signing key")
    assert "no signing key" in stand.client.get(f"/evaluations/{key}").text
    assert "no signing key" in stand.client.get(f"/evaluations/{key}/report").text


def test_hostile_names_and_reasons_are_inert_on_every_page(stand: Stand) -> None:
    version = stand.register(name=HOSTILE)
    key = judged(stand, version, outcome=Outcome.BLOCKED, reason=HOSTILE, base_digest="b" * 64)
    base = Base(name=HOSTILE, digest="b" * 64, source=HOSTILE, suite=HOSTILE, checkpoint=an_evidence().candidate)
    stand.ledger.save_base(base, stand.clock())
    asked(stand, version="4", name=HOSTILE)
    addresses = ["/", "/bases", f"/bases/{'b' * 64}", "/queue", f"/evaluations/{key}", f"/evaluations/{key}/report"]
    for address in addresses:
        page = stand.client.get(address).text
        assert "<script>" not in page, address
        assert not set(page) & {"\x1b", "\u202e"}, address
        assert "&lt;script&gt;" in page or address == "/queue"
    searched = stand.client.get("/", params={"text": HOSTILE}).text
    assert "<script>" not in searched


def test_a_base_shows_its_basin_and_each_of_its_fine_tunes_in_it(stand: Stand) -> None:
    digest = "b" * 64
    stand.ledger.save_base(
        Base(name="base", digest=digest, source="s", suite="staged", checkpoint=an_evidence().candidate), stand.clock()
    )
    assert "None has been measured yet" in stand.client.get(f"/bases/{digest}").text
    curve = tuple(CurvePoint(at=at, estimate=Estimate.exact(0.9 - at)) for at in (0.0, 0.1, 0.2))
    found = CapabilityProfile(
        capability="safety", margin=0.1, score=curve[0].estimate, outcomes=(1.0,), noise=curve, basin_sigma=Estimate.exact(0.1)
    )  # fmt: skip
    profile = BasinProfile(
        base_digest=digest, suite_digest="c" * 64, plan_digest="d" * 64, parameters=9, weight_norm=1.0,
        capabilities=(found,), gradients_sha256=None, seed=7, provenance={}, seconds=1.0,
    )  # fmt: skip
    key = profile_key(digest, "c" * 64, "d" * 64)
    stand.ledger.enqueue([JobRequest(key, PROFILE, GPU_QUEUE)], stand.clock())
    stand.ledger.save_profile(stand.ledger.claim(key, "w", 60, stand.clock()), profile, stand.clock())
    judged(stand, stand.register(), outcome=Outcome.BLOCKED, base_digest=digest)

    page = stand.client.get(f"/bases/{digest}").text

    assert 'aria-label="safety: ' in page
    assert "my-llm" in page
    assert "1 fine-tune " in page


def test_the_queue_tells_what_is_held_and_what_waits(stand: Stand) -> None:
    first, second = asked(stand), asked(stand, version="4", created_ms=5)
    stand.ledger.claim(inspect_key(first), "cpu-9@host", 60, stand.clock())
    page = stand.client.get("/queue").text
    assert "cpu-9@host" in page
    assert f'href="/evaluations/{second}"' in page
    assert "60 s left" in page
