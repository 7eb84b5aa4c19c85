"""How a job ends follows from what it returns or raises."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import a_version
from databases import sqlite_file

from gate.adapters.sql_ledger import SqlLedger, migrate
from gate.domain.errors import LostLease, NotFound, NotMeasurable, Unavailable
from gate.domain.evaluation import EvaluationRequest
from gate.domain.jobs import inspect_key
from gate.domain.overview import Narrowing
from gate.domain.records import Claim, JobRequest
from gate.settings import Settings
from tasks import running
from tasks.running import JobContext, JobDone, JobFunction, JobWaits, run_job

SETTINGS = Settings(lease_s=1.5, max_attempts=2)
WAIT_S = 60


class Forgetful(SqlLedger):
    """A ledger whose database is away the first few times that an ending is written."""

    def __init__(self, url: str, away: int) -> None:
        super().__init__(url)
        self.away = away

    def finish(self, claim: Claim, now: float, **rest: Any) -> None:
        self.away -= 1
        if self.away >= 0:
            raise Unavailable("restarting")
        super().finish(claim, now, **rest)


@pytest.fixture
def url(tmp_path: Path) -> str:
    migrate(sqlite_file(tmp_path))
    return sqlite_file(tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[SqlLedger]:
    ledger = SqlLedger(url)
    ledger.enqueue([JobRequest("a", "measure", "gpu", {"x": 1})], 0.0)
    yield ledger
    ledger.close()


@pytest.fixture
def does(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what a job of a kind does."""

    def set_function(function: JobFunction, kind: str = "measure") -> None:
        monkeypatch.setitem(running.FUNCTIONS, kind, function)

    return set_function


def raises(error: BaseException) -> JobFunction:
    def run(job: JobContext) -> JobDone:
        raise error

    return run


def run(ledger: SqlLedger, key: str = "a", owner: str = "worker") -> str:
    return run_job(key, owner, ledger, SETTINGS)


def again(ledger: SqlLedger) -> Claim | None:
    return ledger.claim("a", "another", 60, 1e12)


def test_a_job_that_returns_is_done_and_what_follows_is_asked_for(ledger: SqlLedger, does: Any) -> None:
    does(lambda job: JobDone({"got": job.claim.payload["x"]}, then=(JobRequest("b", "judge", "cpu"),)))
    assert run(ledger) == "done"
    assert ledger.job_result("a") == ("done", {"got": 1}, None)
    assert (ledger.job_result("b") or ("",))[0] == "queued"


def test_a_doorbell_for_a_job_that_is_done_does_nothing(ledger: SqlLedger, does: Any) -> None:
    does(lambda job: JobDone())
    assert [run(ledger), run(ledger)] == ["done", "nothing"]


def test_a_job_that_needs_another_waits_for_it(ledger: SqlLedger, does: Any) -> None:
    does(lambda job: JobWaits((JobRequest("b", "profile", "gpu"),)))
    assert run(ledger) == "waits"
    assert (ledger.job_result("a") or ("",))[0] == "waiting"
    assert (ledger.job_result("b") or ("",))[0] == "queued"


def test_a_job_that_keeps_waiting_for_what_has_ended_fails(ledger: SqlLedger, does: Any) -> None:
    does(lambda job: JobDone(), "profile")
    ledger.enqueue([JobRequest("b", "profile", "cpu")], 0.0)
    assert run(ledger, "b") == "done"
    does(lambda job: JobWaits((JobRequest("b", "profile", "gpu"),)))
    assert [run(ledger) for _ in range(4)] == ["waits", "waits", "failed", "nothing"]


def test_an_outage_puts_a_job_off_without_spending_an_attempt(ledger: SqlLedger, does: Any) -> None:
    does(raises(Unavailable("MLflow does not answer")))
    assert run(ledger) == "retried"
    assert ledger.job_result("a") == ("queued", None, "Unavailable: MLflow does not answer")
    claim = again(ledger)
    assert claim is not None
    assert (claim.attempts, claim.outages) == (1, 1)


def test_an_outage_without_end_fails_the_job(ledger: SqlLedger, does: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "backoff_s", lambda failures: 0.0)
    does(raises(Unavailable("MLflow does not answer")))
    outcomes = [run(ledger) for _ in range(running.MAX_OUTAGES + 1)]
    assert outcomes == ["retried"] * running.MAX_OUTAGES + ["failed"]


def test_an_unforeseen_error_is_tried_again_until_the_attempts_are_spent(
    ledger: SqlLedger, does: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "backoff_s", lambda failures: 0.0)
    does(raises(NotFound("gone")))
    assert [run(ledger) for _ in range(3)] == ["retried", "failed", "nothing"]
    assert ledger.job_result("a") == ("failed", None, "NotFound: gone")


def test_what_cannot_be_measured_is_not_tried_again(ledger: SqlLedger, does: Any) -> None:
    does(raises(NotMeasurable("no weights")))
    assert run(ledger) == "failed"


def test_a_kind_this_worker_does_not_know_fails(ledger: SqlLedger) -> None:
    ledger.enqueue([JobRequest("odd", "dance", "cpu")], 0.0)
    assert run(ledger, "odd") == "failed"
    assert "expected a job of" in str((ledger.job_result("odd") or ("", None, ""))[2])


def test_a_worker_told_to_stop_hands_its_job_over_at_once(ledger: SqlLedger, does: Any) -> None:
    does(raises(SystemExit()))
    with pytest.raises(SystemExit):
        run(ledger)
    claim = again(ledger)
    assert claim is not None
    assert claim.attempts == 1


def test_a_job_that_lost_its_lease_is_told_and_writes_nothing(ledger: SqlLedger, does: Any) -> None:
    seen = []

    def run_long(job: JobContext) -> JobDone:
        ledger.abandon("worker", 0.0, error="thought dead", max_attempts=9)
        assert job.lost.wait(WAIT_S)
        with pytest.raises(LostLease):
            job.progress("late", 1.0)
        seen.append("told")
        return JobDone({"late": True})

    does(run_long)
    assert run(ledger) == "lost"
    assert seen == ["told"]
    assert ledger.job_result("a") == ("queued", None, "thought dead")


def test_progress_reaches_the_evaluation_while_the_job_runs(ledger: SqlLedger, does: Any) -> None:
    request = EvaluationRequest.of(a_version(), "default", "d" * 64)
    ledger.request_evaluation(request, 0.0)
    seen = []

    def tell(job: JobContext) -> JobDone:
        job.progress("hash", 7.0)
        for _ in range(WAIT_S * 10):
            row = ledger.evaluation(request.key)
            if row is not None and row.stage:
                seen.append((row.state, row.stage, row.progress))
                break
            threading.Event().wait(0.1)
        return JobDone()

    does(tell, "inspect")
    assert run(ledger, inspect_key(request.key)) == "done"
    assert seen == [("inspecting", "hash", 1.0)]


def test_how_sure_a_comparison_is_reaches_the_evaluation_and_stays_with_the_next_stage(
    ledger: SqlLedger, does: Any
) -> None:
    request = EvaluationRequest.of(a_version(), "default", "d" * 64)
    ledger.request_evaluation(request, 0.0)
    sure = Narrowing("safety", -0.1, -0.6, 0.2, 0.1, used=32, of=128)
    seen = []

    def tell(job: JobContext) -> JobDone:
        job.progress("comparing", 0.3, (sure,))
        job.progress("further on", 0.5)
        for _ in range(WAIT_S * 10):
            row = ledger.evaluation(request.key)
            if row is not None and row.stage:
                seen.append((row.stage, tuple(row.narrowing)))
                break
            threading.Event().wait(0.1)
        return JobDone()

    does(tell, "inspect")
    assert run(ledger, inspect_key(request.key)) == "done"
    assert seen == [("further on", (sure,))]


def test_a_thousand_tellings_are_written_a_few_times(url: str, ledger: SqlLedger, does: Any) -> None:
    renewals = []

    class Counted(SqlLedger):
        def renew(self, *given: Any, **named: Any) -> None:
            renewals.append(given)
            super().renew(*given, **named)

    def tell(job: JobContext) -> JobDone:
        for n in range(1000):
            job.progress("comparing", n / 1000, (Narrowing("c", 0.0, -1.0, 1.0, 0.1, used=n, of=1000),))
        return JobDone()

    does(tell)
    counting = Counted(url)
    assert run(counting) == "done"
    counting.close()
    assert len(renewals) < 100


def test_an_ending_is_written_once_the_database_is_back(
    url: str, ledger: SqlLedger, does: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "WRITE_PAUSES_S", (0.0, 0.0))
    does(lambda job: JobDone())
    forgetful = Forgetful(url, away=2)
    assert run_job("a", "worker", forgetful, SETTINGS) == "done"
    forgetful.close()


def test_an_ending_that_cannot_be_written_leaves_the_job_to_its_lease(
    url: str, ledger: SqlLedger, does: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "WRITE_PAUSES_S", (0.0,))
    does(lambda job: JobDone())
    forgetful = Forgetful(url, away=9)
    assert run_job("a", "worker", forgetful, SETTINGS) == "unavailable"
    forgetful.close()
    assert again(ledger) is not None


def test_observers_are_told_of_each_run(ledger: SqlLedger, does: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(running, "OBSERVERS", [lambda kind, outcome, seconds: told.append((kind, outcome))])
    does(lambda job: JobDone())
    run(ledger)
    assert told == [("measure", "done")]
