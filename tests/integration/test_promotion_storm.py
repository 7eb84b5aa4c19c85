"""Two hundred promotions at once on a server of four processes: the approved ones pass, and nothing else."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from guarded_stand import GuardedStand

PROMOTIONS = 200
APPROVED_EACH = 4
"""One promotion in so many is of an approved version."""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStand]:
    made = GuardedStand(tmp_path_factory.mktemp("storm"), workers=4)
    yield made
    made.close()


def test_of_two_hundred_promotions_at_once_on_four_workers_not_one_unapproved_passes(stand: GuardedStand) -> None:
    targets = [stand.target() for _ in range(2)]
    with httpx.Client(timeout=120, limits=httpx.Limits(max_connections=16)) as client:

        def promote(number: int) -> tuple[bool, int]:
            target, approved = targets[number % 2], number % APPROVED_EACH == 0
            version = "1" if approved else "2"
            if number % 3 == 0:
                body = {
                    "name": target.name,
                    "version": version,
                    "stage": "Production",
                    "archive_existing_versions": False,
                }
                path = "model-versions/transition-stage"
            else:
                body = {"name": target.name, "alias": ("champion", "Production")[number % 2], "version": version}
                path = "registered-models/alias"
            reply = client.post(f"{stand.uri}/{('api', 'ajax-api')[number % 2]}/2.0/mlflow/{path}", json=body)
            return approved, reply.status_code

        with ThreadPoolExecutor(16) as pool:
            answers = Counter(pool.map(promote, range(PROMOTIONS)))

    assert answers[False, 403] == PROMOTIONS - PROMOTIONS // APPROVED_EACH
    assert {status for approved, status in answers if not approved} == {403}
    assert {number for target in targets for number in stand.leads(target.name).values()} == {"1"}
