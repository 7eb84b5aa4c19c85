"""The jobs: those that an evaluation walks through, those that look again later; queues and unique keys."""

from gate.domain.checkpoint import Base
from gate.domain.evidence import digest_json

INSPECT = "inspect"
PROFILE = "profile"
NOISE = "noise"
MEASURE = "measure"
JUDGE = "judge"
REHASH = "rehash"
SELFCHECK = "selfcheck"
REVIEW = "review"
REJUDGE = "rejudge"
GLASS = "glass"
EXTEND = "extend"
KINDS = (INSPECT, PROFILE, NOISE, MEASURE, JUDGE, REHASH, SELFCHECK, REVIEW, REJUDGE, GLASS, EXTEND)

CPU_QUEUE = "cpu"
GPU_QUEUE = "gpu"
QUEUES = (CPU_QUEUE, GPU_QUEUE)


def inspect_key(evaluation_key: str) -> str:
    """The job that fetches and hashes a candidate and compares it with its base, without running it."""
    return f"{INSPECT}:{evaluation_key}"


def profile_key(base_digest: str, suite_digest: str, plan_digest: str) -> str:
    """The job that profiles a base; also the key its profile is kept under, shared by all its fine-tunes.

    >>> profile_key("b", "s", "p")
    'profile:b:s:p'
    """
    return f"{PROFILE}:{base_digest}:{suite_digest}:{plan_digest}"


def noise_prefix(profile: str) -> str:
    """What the keys begin with of all draws of noise that a profile with that key is made of."""
    return f"{NOISE}:{profile}:"


def noise_key(profile: str, sigma: float, draw: int) -> str:
    """The job that scores a base under one draw of noise at one scale; at scale 0 it is the base itself.

    >>> noise_key(profile_key("b", "s", "p"), 0.005, 3)
    'noise:profile:b:s:p:0.005:3'
    """
    return f"{noise_prefix(profile)}{sigma}:{draw}"


def measure_key(evidence_key: str) -> str:
    """The job that measures a candidate; shared by all evaluations of the same content."""
    return f"{MEASURE}:{evidence_key}"


def judge_key(evaluation_key: str) -> str:
    """The job that judges one evaluation's evidence and signs the verdict."""
    return f"{JUDGE}:{evaluation_key}"


def review_key(evaluation_key: str, verdict_digest: str) -> str:
    """The job that signs what a person decided about an evaluation's verdict with that digest."""
    return f"{REVIEW}:{evaluation_key}:{verdict_digest}"


def extend_key(evaluation_key: str, verdict_digest: str) -> str:
    """The job that compares more samples because a reviewer of an evaluation's verdict with that digest asked for them."""
    return f"{EXTEND}:{evaluation_key}:{verdict_digest}"


def extended_judge_key(evaluation_key: str, verdict_digest: str) -> str:
    """The job that judges an evaluation again once those samples were compared, or could not be."""
    return f"{REJUDGE}:{evaluation_key}:{verdict_digest}:{EXTEND}"


def rejudge_key(evaluation_key: str, waiver_id: str, cause: str) -> str:
    """The job that judges an evaluation's evidence again because of what became of a waiver."""
    return f"{REJUDGE}:{evaluation_key}:{waiver_id}:{cause}"


def glass_key(evaluation_key: str, number: int, cause: str) -> str:
    """The job that signs what breaking the glass makes of a verdict, or takes it back."""
    return f"{GLASS}:{evaluation_key}:{number}:{cause}"


def rehash_key(evaluation_key: str, occasion: str) -> str:
    """The job that hashes an approved version's files again, once for each occasion."""
    return f"{REHASH}:{evaluation_key}:{occasion}"


def selfcheck_prefix(base: Base, policy_digest: str) -> str:
    """What the keys begin with of all jobs that check the gate on a base, as it is onboarded now, under a policy."""
    return f"{SELFCHECK}:{digest_json([base.name, base.digest, base.suite])}:{policy_digest}:"


def selfcheck_key(base: Base, policy_digest: str, control: str, occasion: str) -> str:
    """The job that plants one control on a base and has it judged, once for each occasion."""
    return f"{selfcheck_prefix(base, policy_digest)}{control}:{occasion}"


def evaluation_of_judge(job_key: str) -> str:
    """The evaluation a judge's job is about.

    >>> evaluation_of_judge(judge_key("ab"))
    'ab'
    """
    return job_key.removeprefix(f"{JUDGE}:")
