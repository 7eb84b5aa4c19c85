"""When the gate is to be checked by planted candidates: on each base, under each policy, once in each period."""

from gate.adapters.ledger_metrics import SELFCHECK_DUE
from gate.adapters.selfcheck_jobs import selfcheck_jobs
from gate.domain.checkpoint import Base
from gate.domain.gpu_sizes import ANY_SIZE, GpuSizes
from gate.domain.jobs import selfcheck_prefix
from gate.domain.policy import Policy, PolicySet
from gate.ports import Ledger

LOOK_EVERY_S = 60.0
GRACE = 2.0
"""Periods after the last answer from which on a check is overdue."""


class Selfchecks:
    """Asks for the checks that are due, and tells when one will be overdue. Workers do them."""

    def __init__(self, ledger: Ledger, policies: PolicySet, every_s: float, sizes: GpuSizes = ANY_SIZE) -> None:
        self._ledger, self._policies, self._every_s, self._sizes = ledger, policies, every_s, sizes
        self._asked: set[str] = set()
        self._next = 0.0

    def look(self, now: float) -> None:
        """Ask once in each period; at once for a base or a policy that was never checked."""
        if now < self._next:
            return
        self._next = now + min(LOOK_EVERY_S, self._every_s or LOOK_EVERY_S)
        pairs = [(b, p) for b in self._ledger.bases() for p in self._policies.policies] if self._every_s else []
        since = [self._ask(base, policy, now) for base, policy in pairs]
        due = min(since) + GRACE * self._every_s if since else None
        self._ledger.keep_figures({SELFCHECK_DUE: due}, now)

    def _ask(self, base: Base, policy: Policy, now: float) -> float:
        """Since when this base has been checked under this policy, now that all that is due was asked for."""
        prefix = selfcheck_prefix(base, policy.digest)
        # Each base has its own hour, so that a hundred of them are not measured at the same time.
        shift = int(prefix.split(":")[1][:8], 16) % self._every_s
        occasion = str(int((now + shift) // self._every_s))
        if prefix + occasion not in self._asked:
            self._ledger.enqueue(selfcheck_jobs(base, policy, occasion, self._sizes), now)
            self._asked.add(prefix + occasion)
        since = self._ledger.checked_since(prefix)
        return now if since is None else since
