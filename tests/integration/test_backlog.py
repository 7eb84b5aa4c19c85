"""What the workers are scaled by: the jobs of each queue that wait or run."""

from pathlib import Path

from api_stand import a_stand

from gate.domain.records import JobRequest


def test_an_empty_ledger_shows_no_load_on_any_queue(tmp_path: Path) -> None:
    nothing = {"queued": 0, "running": 0, "load": 0}

    assert a_stand(tmp_path).client.get("/v1/backlog").json() == {"cpu": nothing, "gpu": nothing}


def test_a_running_job_counts_as_load_and_one_that_waits_for_another_does_not(tmp_path: Path) -> None:
    stand = a_stand(tmp_path)
    jobs = [JobRequest(key, "measure", "gpu", {}) for key in ("running", "queued")]
    stand.ledger.enqueue([*jobs, JobRequest("waits", "measure", "gpu", {}, waits_for="queued")], stand.clock())
    stand.ledger.claim("running", "worker", 60, stand.clock())

    assert stand.client.get("/v1/backlog").json()["gpu"] == {"queued": 1, "running": 1, "load": 2}
