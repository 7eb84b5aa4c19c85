"""One of several processes that fight over the same jobs: ``python rival_worker.py URL NAME sluggish|hasty``.

A hasty worker drops each tenth job as if it had crashed. A sluggish one outlives its lease with its first job and with
each third: it goes on only after somebody else has done the job. It says so in a line once it holds the first. At its end
each writes one JSON object: the claims it got, and how its writes fared.
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
    accepted, late, overtaken = 0, 0, 0
    keys = sys.stdin.read().split()
    while open_keys := [key for key in keys if not ended(ledger, key)]:
        key = dice.choice(open_keys)
        claim = ledger.claim(key, name, LEASE_S, time.time())
        if claim is None:
            time.sleep(0.002)
            continue
        claims.append((claim.key, claim.epoch))
        outlives = sluggish and len(claims) % 3 == 1
        if outlives:
            overtaken += 1
            if overtaken == 1:
                sys.stdout.write("held\n")
                sys.stdout.flush()
            while not ended(ledger, key):
                time.sleep(0.01)
        elif not sluggish and len(claims) % 10 == 0:
            continue
        try:
            ledger.finish(claim, time.time(), result={"by": name})
            accepted += 1
        except LostLease:
            # Any worker may be held up by the machine for longer than its lease.
            late += outlives
    ledger.close()
    return {"claims": claims, "accepted": accepted, "late": late, "overtaken": overtaken}


def ended(ledger: SqlLedger, key: str) -> bool:
    """Whether the job is over."""
    result = ledger.job_result(key)
    return result is not None and result[0] in ("done", "failed")


if __name__ == "__main__":
    json.dump(fight(sys.argv[1], sys.argv[2], sys.argv[3] == "sluggish"), sys.stdout)
