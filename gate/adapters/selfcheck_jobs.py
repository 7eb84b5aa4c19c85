"""The jobs that check the gate on a base: asked for on schedule by the dispatcher, and by hand from the command line."""

from gate.domain.checkpoint import Base
from gate.domain.errors import NotMeasurable
from gate.domain.gpu_sizes import ANY_SIZE, GpuSizes
from gate.domain.jobs import SELFCHECK, selfcheck_key
from gate.domain.policy import Policy
from gate.domain.records import JobRequest
from gate.domain.selfcheck import Control


def selfcheck_jobs(base: Base, policy: Policy, occasion: str, sizes: GpuSizes = ANY_SIZE) -> list[JobRequest]:
    """One job for each control of a base under a policy; where no GPU worker holds the base, the largest says so."""
    try:
        queue = sizes.queue_for(base, policy.plan.compute_dtype)
    except NotMeasurable:
        queue = sizes.largest
    payload = {"base": base.name, "policy": policy.digest}
    return [
        JobRequest(selfcheck_key(base, policy.digest, c, occasion), SELFCHECK, queue, payload | {"control": c})
        for c in Control
    ]
