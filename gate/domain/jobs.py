"""The four jobs an evaluation walks through: their kinds, their queues, and the keys that make each unique."""

INSPECT = "inspect"
PROFILE = "profile"
MEASURE = "measure"
JUDGE = "judge"
KINDS = (INSPECT, PROFILE, MEASURE, JUDGE)

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


def measure_key(evidence_key: str) -> str:
    """The job that measures a candidate; shared by all evaluations of the same content."""
    return f"{MEASURE}:{evidence_key}"


def judge_key(evaluation_key: str) -> str:
    """The job that judges one evaluation's evidence and signs the verdict."""
    return f"{JUDGE}:{evaluation_key}"


def evaluation_of_judge(job_key: str) -> str:
    """The evaluation a judge's job is about.

    >>> evaluation_of_judge(judge_key("ab"))
    'ab'
    """
    return job_key.removeprefix(f"{JUDGE}:")
