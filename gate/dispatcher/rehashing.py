"""When the files of a promoted version are to be fetched and hashed again: on schedule, and when they look changed."""

import hashlib

from gate.adapters.standing import Position, Standing
from gate.domain.jobs import CPU_QUEUE, REHASH, rehash_key
from gate.domain.records import JobRequest
from gate.domain.verdict import Outcome


class Rehashing:
    """Asks for rehash jobs; a worker does them, for they move as many bytes as the checkpoint has."""

    def __init__(self, standing: Standing, every_s: float) -> None:
        self._standing, self._every_s = standing, every_s
        self._asked: set[str] = set()

    def ask(self, position: Position, now: float, differences: str) -> None:
        """Ask once in each period, and at once for each way that the listing differs from what was judged."""
        row, verdict = position.row, position.verdict
        if row is None or verdict is None or verdict.outcome is not Outcome.APPROVED:
            return
        if differences:
            self._enqueue(row.request.key, f"files-{hashlib.sha256(differences.encode()).hexdigest()[:12]}", now)
        if self._every_s:
            # Each evaluation has its own hour, so that a thousand checkpoints are not fetched at the same time.
            shift = int(row.request.key[:8], 16) % self._every_s
            period = int((now + shift) // self._every_s)
            if period > int((verdict.judged_at + shift) // self._every_s):
                self._enqueue(row.request.key, str(period), now)

    def _enqueue(self, evaluation: str, occasion: str, now: float) -> None:
        key = rehash_key(evaluation, occasion)
        if key not in self._asked:
            self._standing.ledger.enqueue([JobRequest(key, REHASH, CPU_QUEUE, {"evaluation": evaluation})], now)
            self._asked.add(key)
