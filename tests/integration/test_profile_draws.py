"""A base's profile, its draws of noise scored by whatever workers there are: the profile that one worker makes alone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from profile_stand import SCALES, ProfileStand
from small_checks import STAGED, part_of_suite

from tasks.bases import take_in
from tasks.drawing import ITSELF
from tasks.running import run_job


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[ProfileStand]:
    made = ProfileStand.in_folder(tmp_path)
    made.ledger.enqueue([made.wanted], time.time())
    yield made
    made.ledger.close()


def work(stand: ProfileStand, most: int = 1_000) -> list[tuple[str, str]]:
    """Answer so many doorbells, each as another worker; the job that rang, and how the one begun ended."""
    ended: list[tuple[str, str]] = []
    while len(ended) < most and (rung := [i for i in stand.ledger.outbox(time.time()) if i.kind == "doorbell"]):
        for item in rung[: most - len(ended)]:
            stand.ledger.outbox_done(item.seq, time.time())
            key = item.payload["key"]
            ended.append((key, run_job(key, f"worker {item.seq}", stand.ledger, stand.settings)))
    return ended


def test_draws_are_jobs_of_their_own_and_come_to_the_profile_of_one_worker_alone(stand: ProfileStand) -> None:
    ended = work(stand)

    assert stand.made() == stand.alone()
    # Once for the base itself, once for two scales together, once for each of two further ones; then the rest.
    assert [outcome for key, outcome in ended if key == stand.wanted.key] == [*["waits"] * 4, "done"]
    # Everything is lost at two scales before the last one, which nobody scores then.
    assert stand.draws_done() == {stand.key(*ITSELF), *(stand.key(s, d) for s in SCALES[:-1] for d in range(4))}
    runs = stand.ledger.statistics(time.time()).runs
    assert runs == {("noise", "done"): 17, ("profile", "waits"): 4, ("profile", "done"): 1}
    profile = stand.ledger.profile(stand.wanted.key)
    seconds = [
        result["seconds"] for _, result, _ in stand.ledger.job_results(tuple(stand.draws_done())).values() if result
    ]
    assert profile is not None
    assert profile.seconds > sum(seconds) > 0


def test_a_draw_that_failed_elsewhere_is_scored_by_whoever_makes_the_profile(stand: ProfileStand) -> None:
    work(stand, most=3)
    key = stand.key(SCALES[1], 1)
    claim = stand.ledger.claim(key, "an old worker", 60, time.time())
    assert claim is not None
    stand.ledger.fail(claim, time.time(), error="expected a job of another kind; is this worker older than the gate?")

    work(stand)

    assert stand.made() == stand.alone()
    assert key not in stand.draws_done()


def test_a_profile_of_a_base_that_was_changed_meanwhile_is_not_made(stand: ProfileStand) -> None:
    work(stand, most=2)
    suite = part_of_suite(stand.settings.state_dir / "another")
    (suite / "math.jsonl").write_text("\n".join((suite / "math.jsonl").read_text().splitlines()[:40]))
    take_in(stand.settings, stand.ledger, str(STAGED), suite=str(suite), name="base")

    assert dict(work(stand))[stand.wanted.key] == "failed"
    state, _, error = stand.ledger.job_result(stand.wanted.key) or ("", None, None)
    assert state == "failed"
    assert "found it changed since" in str(error)
