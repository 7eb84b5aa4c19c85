"""Whose job a free worker begins, on both databases: teams in turn, what somebody waits for first, nothing twice."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from api_stand import a_stand
from builders import a_version
from fakes import FakeQueue

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key, judge_key, noise_key
from gate.domain.records import Claim, JobRequest
from gate.domain.scheduling import AWAITED_S, Sharing
from gate.settings import Settings
from tasks import running
from tasks.running import JobContext, JobDone, run_job

ALONE = Sharing()
BY_PREFIX = Sharing("([^.]+)[.]")


class Desk:
    """A ledger, requests for evaluations, and one worker after another, in a time of the test's own."""

    def __init__(self, url: str) -> None:
        migrate(url)
        self.ledger, self.now = SqlLedger(url), 10_000.0
        self.asked: dict[str, str] = {}

    def ask(self, *models: str) -> list[str]:
        """An evaluation of a new version of each model, a second apart; the keys of the evaluations."""
        return [self._ask(model) for model in models]

    def _ask(self, model: str) -> str:
        self.now += 1
        version = a_version(name=model, version=str(1 + len(self.asked)))
        request = EvaluationRequest.of(version, "default", "d" * 64)
        assert self.ledger.request_evaluation(request, self.now)
        self.asked[inspect_key(request.key)] = f"{model} {version.version}"
        return request.key

    def begin(self, sharing: Sharing = ALONE, rung: str | None = None) -> Claim | None:
        rung = rung or next(iter(self.asked))
        return self.ledger.claim_next(rung, f"worker {self.now}", 1e6, self.now, sharing)

    def served(self, starts: int, sharing: Sharing = ALONE, seconds: float = 10.0) -> list[str]:
        """Who is served when one worker does so many inspections, each so long; they lead to nothing further."""
        found = []
        for _ in range(starts):
            claim = self.begin(sharing)
            assert claim is not None
            found.append(self.asked[claim.key])
            self.now += seconds
            self.ledger.retry(claim, self.now, error="later", delay_s=1e9)
        return found


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    desk = Desk(database_url)
    yield desk
    desk.ledger.close()


def models(served: Sequence[str]) -> str:
    return "".join(each[0] for each in served)


def test_a_team_that_piles_up_work_does_not_keep_the_others_waiting(desk: Desk) -> None:
    desk.ask(*"aaaaaa", *"bb", "c")
    assert models(desk.served(9)) == "abcabaaaa"


def test_without_others_a_team_has_all_workers_and_its_own_order(desk: Desk) -> None:
    desk.ask(*"aaa")
    assert desk.served(3) == ["a 1", "a 2", "a 3"]
    assert desk.begin() is None


def test_models_of_one_team_have_one_share_together(desk: Desk) -> None:
    desk.ask("a.1", "a.2", "a.3", "a.4", "b.1", "b.2")
    assert models(desk.served(6, BY_PREFIX)) == "ababaa"


def test_a_team_with_a_job_running_lets_one_without_go_first(desk: Desk) -> None:
    desk.ask(*"aaa", "b")
    assert [desk.asked[claim.key] for claim in (desk.begin(), desk.begin(), desk.begin()) if claim] == [
        "a 1",
        "b 4",
        "a 2",
    ]


def test_what_was_used_before_the_window_does_not_count(desk: Desk) -> None:
    desk.ask(*"aa", *"b")
    assert models(desk.served(1, seconds=1000.0)) == "a"
    desk.now += 10_000
    assert models(desk.served(2)) == "ab"


def test_what_somebody_waits_for_goes_first_at_every_other_start(desk: Desk) -> None:
    desk.ask(*"aaaa", "b")
    for key in desk.ask(*"aa"):
        desk.ledger.await_verdict(key, desk.now)
    assert desk.served(5) == ["a 6", "b 5", "a 7", "a 1", "a 2"]


def test_waiting_is_forgotten_when_nobody_asks_any_more(desk: Desk) -> None:
    desk.ask(*"aa")
    [key] = desk.ask("a")
    desk.ledger.await_verdict(key, desk.now)
    desk.now += AWAITED_S + 1
    assert desk.served(1) == ["a 1"]


def test_jobs_that_follow_are_for_the_same_team_and_somebody_still_waits_for_them(desk: Desk) -> None:
    first, _, last = desk.ask(*"aab")
    desk.ledger.await_verdict(last, desk.now)
    for key in (first, last):
        claim = desk.ledger.claim(inspect_key(key), "w", 60, desk.now)
        assert claim is not None
        desk.ledger.finish(claim, desk.now, then=[JobRequest(f"measure:{key}", "measure", "gpu", {})])
    claim = desk.begin(rung=f"measure:{first}")
    assert claim is not None
    assert claim.key == f"measure:{last}"
    other = desk.begin(rung=f"measure:{first}")
    assert other is not None
    assert other.key == f"measure:{first}"


def test_somebody_who_waits_for_a_version_waits_for_its_bases_profile_too(desk: Desk) -> None:
    desk.ledger.enqueue([JobRequest("profile:other", "profile", "gpu", {})], desk.now)
    [key] = desk.ask("a")
    claim = desk.ledger.claim(inspect_key(key), "w", 60, desk.now)
    assert claim is not None
    desk.ledger.wait(claim, desk.now, JobRequest("profile:mine", "profile", "gpu", {}))
    desk.ledger.await_verdict(key, desk.now)
    begun = desk.begin(rung="profile:other")
    assert begun is not None
    assert begun.key == "profile:mine"


def test_somebody_who_waits_for_a_version_waits_for_its_bases_draws_of_noise_too(desk: Desk) -> None:
    [key] = desk.ask("a")
    claim = desk.ledger.claim(inspect_key(key), "w", 60, desk.now)
    assert claim is not None
    desk.ledger.wait(claim, desk.now, JobRequest("profile:mine", "profile", "gpu", {}))
    profiles = [JobRequest("profile:other", "profile", "gpu", {}), JobRequest("profile:mine", "profile", "gpu", {})]
    desk.ledger.enqueue(profiles, desk.now)
    for profile in ("profile:other", "profile:mine"):
        profiling = desk.ledger.claim(profile, "w", 60, desk.now)
        assert profiling is not None
        draws = [JobRequest(noise_key(profile, 0.01, draw), "noise", "gpu", {}) for draw in range(2)]
        desk.ledger.wait(profiling, desk.now, *draws)
        desk.now += 1
    desk.ledger.await_verdict(key, desk.now)
    begun = []
    for _ in range(3):
        claim = desk.begin(rung=noise_key("profile:mine", 0.01, 0))
        assert claim is not None
        begun.append(claim.key)
        desk.now += 1
    assert begun == [
        noise_key("profile:mine", 0.01, 0),
        noise_key("profile:other", 0.01, 0),
        noise_key("profile:mine", 0.01, 1),
    ]


def test_judging_comes_before_all_else(desk: Desk) -> None:
    first, second = desk.ask(*"ab")
    claim = desk.ledger.claim(inspect_key(second), "w", 60, desk.now)
    assert claim is not None
    desk.ledger.finish(claim, desk.now)
    desk.ledger.await_verdict(first, desk.now)
    begun = desk.begin()
    assert begun is not None
    assert begun.key == judge_key(second)


def test_a_doorbell_of_an_unknown_job_or_one_not_due_begins_nothing(desk: Desk) -> None:
    desk.ask("a")
    assert desk.begin(rung="never asked for") is None
    claim = desk.begin()
    assert claim is not None
    desk.ledger.retry(claim, desk.now, error="later", delay_s=50.0)
    assert desk.begin() is None
    desk.now += 51
    assert desk.begin() is not None


def test_workers_that_come_at_once_take_a_job_each(desk: Desk) -> None:
    desk.ask(*"aabbcc")
    rung = next(iter(desk.asked))

    def take(number: int) -> Claim | None:
        return desk.ledger.claim_next(rung, f"worker {number}", 60, desk.now, ALONE)

    with ThreadPoolExecutor(8) as threads:
        claims = [claim.key for claim in threads.map(take, range(8)) if claim is not None]
    assert sorted(claims) == sorted(desk.asked)


def test_a_dead_workers_job_is_given_back_whichever_doorbell_brought_it(desk: Desk) -> None:
    desk.ask(*"ab")
    rung = list(desk.asked)[1]
    claim = desk.ledger.claim_next(rung, "doorbell", 60, desk.now, ALONE)
    assert claim is not None
    assert claim.key != rung
    assert desk.ledger.abandon("doorbell", desk.now, error="killed", max_attempts=3)
    assert (desk.ledger.job_result(claim.key) or ("",))[0] == "queued"


def test_as_many_doorbells_as_jobs_bring_every_job_to_its_end_in_fair_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def inspected(job: JobContext) -> JobDone:
        done.append(desk.asked[job.claim.key])
        return JobDone()

    monkeypatch.setitem(running.FUNCTIONS, "inspect", inspected)
    monkeypatch.setitem(running.FUNCTIONS, "judge", lambda job: JobDone())
    # Turns go by the time that workers used: here each look at the clock is a second after the one before.
    seconds = count(20_000)
    monkeypatch.setattr(running, "time", SimpleNamespace(time=lambda: float(next(seconds)), monotonic=time.monotonic))
    desk.ask(*"aaa", *"bb")
    queue = FakeQueue()
    while items := desk.ledger.outbox(2e9):
        for item in items:
            queue.ring(item.payload["queue"], item.payload["kind"], item.payload["key"])
            desk.ledger.outbox_done(item.seq, desk.now)
            run_job(item.payload["key"], f"doorbell {item.seq}", desk.ledger, Settings())
    assert len(done) == len(set(done)) == 5
    assert models(done[:4]).count("b") == 2


def test_asking_whether_a_version_may_be_promoted_brings_its_evaluation_forward(tmp_path: Path) -> None:
    stand = a_stand(tmp_path)
    requests = {}
    for number in ("1", "2", "3"):
        version = stand.register(version=number)
        requests[number] = stand.door.standing.request(version)
        stand.ledger.request_evaluation(requests[number], stand.clock())
    answer: dict[str, Any] = stand.client.post("/v1/promotions", json={"name": "my-llm", "version": "3"}).json()
    assert answer["decision"] == "pending"
    claim = stand.ledger.claim_next(inspect_key(requests["1"].key), "w", 60, stand.clock(), ALONE)
    assert claim is not None
    assert claim.key == inspect_key(requests["3"].key)
    stand.ledger.close()
