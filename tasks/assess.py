"""Measure and judge two folders on this machine: no MLflow, no Redis, no Celery, the same evidence and verdict."""

from pathlib import Path
from tempfile import TemporaryDirectory

from gate.adapters.policy_files import load_policies
from gate.domain.errors import InvalidInput
from gate.domain.policy import Policy
from gate.domain.prompts import MOST_KEPT
from tasks.bench import Tell
from tasks.examining import Assessed as Assessed
from tasks.examining import made_ready, named_by, quiet


def assess(
    base_folder: Path,
    candidate_folder: Path,
    *,
    policy: Policy,
    suite: str,
    device: str = "auto",
    threads: int = 0,
    cache: Path | None = None,
    tell: Tell = quiet,
    prompts_kept: int = MOST_KEPT,
) -> Assessed:
    """Evidence, verdict and changed prompts of a candidate folder against a base folder.

    ``cache`` keeps the base's profile and gradients for the next candidate of the same base, suite and plan.
    """
    with TemporaryDirectory() as room:
        ready = made_ready(
            base_folder,
            policy=policy,
            suite=suite,
            device=device,
            threads=threads,
            cache=cache or Path(room),
            tell=tell,
        )
        lineage = named_by("the command line", ready.bench.base)
        return ready.examine(candidate_folder, policy, lineage, tell=tell, prompts_kept=prompts_kept)


def one_policy(path: Path | None, name: str | None) -> Policy:
    """The policy to judge by: the only one of a file, or the one named."""
    policies = load_policies(path).policies
    if name is None and len(policies) == 1:
        return policies[0]
    for policy in policies:
        if policy.name == name:
            return policy
    raise InvalidInput(f"expected --policy-name to be one of {[p.name for p in policies]}, found {name!r}")
