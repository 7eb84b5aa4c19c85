"""The jobs that check the gate on a base: asked for on schedule by the dispatcher, and by hand from the command line."""

from gate.domain.checkpoint import Base
from gate.domain.jobs import GPU_QUEUE, SELFCHECK, selfcheck_key
from gate.domain.policy import Policy
from gate.domain.selfcheck import Control
from gate.ports import JobRequest


def selfcheck_jobs(base: Base, policy: Policy, occasion: str) -> list[JobRequest]:
    """One job for each control of a base under a policy."""
    payload = {"base": base.name, "policy": policy.digest}
    return [
        JobRequest(selfcheck_key(base, policy.digest, c, occasion), SELFCHECK, GPU_QUEUE, payload | {"control": c})
        for c in Control
    ]
