"""One of several processes that fight over the same jobs: ``python rival_worker.py URL NAME sluggish|hasty``.

A hasty worker sometimes drops a job as if it had crashed. A sluggish one sometimes outlives its lease: it goes on
only after somebody else has done the job. Writes one JSON object: the claims it got, and how its writes fared.
"""

import json
import random
import sys
import time

from gate.adapters.sql_ledger import SqlLedger
from gate.domain.errors import LostLease

LEASE_S = 0.3


def fight(url: str, name: str, sluggish: bool) -> dict[str, object]:
    """Claims whatever is to be had until every job has ended."""
    ledger, dice = SqlLedger(url), random.Random(name)
    claims: list[tuple[str, int]] = []
    accepted, refused, overtaken = 0, 0, 0
    keys = sys.stdin.read().split()
    while open_keys := [key for key in keys if not ended(ledger, key)]:
        key = dice.choice(open_keys)
        claim = ledger.claim(key, name, LEASE_S, time.time())
        if claim is None:
            time.sleep(0.002)
            continue
        claims.append((claim.key, claim.epoch))
        if sluggish and dice.random() < 0.3:
            overtaken += 1
            while not ended(ledger, key):
                time.sleep(0.01)
        elif not sluggish and dice.random() < 0.1:
            continue
        try:
            ledger.finish(claim, time.time(), result={"by": name})
            accepted += 1
        except LostLease:
            refused += 1
    ledger.close()
    return {"claims": claims, "accepted": accepted, "refused": refused, "overtaken": overtaken}


def ended(ledger: SqlLedger, key: str) -> bool:
    """Whether the job is over."""
    result = ledger.job_result(key)
    return result is not None and result[0] in ("done", "failed")


if __name__ == "__main__":
    json.dump(fight(sys.argv[1], sys.argv[2], sys.argv[3] == "sluggish"), sys.stdout)
