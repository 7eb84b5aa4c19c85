"""Measure and judge two folders on this machine: no MLflow, no Redis, no Celery, the same evidence and verdict."""

import hashlib
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from gate.adapters.policy_files import load_policies
from gate.domain.checkpoint import Base, Lineage
from gate.domain.errors import InvalidInput, NotMeasurable
from gate.domain.evaluation import seed_of
from gate.domain.evidence import BasinProfile, Defect, DefectCode, Evidence, digest_json
from gate.domain.jobs import profile_key
from gate.domain.judging import decided, judge
from gate.domain.policy import Policy
from gate.domain.prompts import MOST_KEPT, ChangedPrompts
from gate.domain.verdict import Verdict
from tasks.bench import Bench, Tell
from tasks.candidate import Measured, measure_candidate
from tasks.checkpoints import locate
from tasks.profiling import profile_base
from tasks.static_evidence import settled, static_evidence
from tasks.static_stage import inspect_folder
from tasks.warm import warm_bench


def quiet(_stage: str, _fraction: float) -> None:
    """Progress that nobody asked for."""


class Assessed(NamedTuple):
    """What was measured, what it was judged to be, and the texts of prompts that changed."""

    evidence: Evidence
    verdict: Verdict
    prompts: ChangedPrompts


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
    attested = inspect_folder(base_folder).checkpoint
    base = Base(
        name=base_folder.name, digest=attested.digest, source=str(base_folder), suite=suite, checkpoint=attested
    )
    lineage = Lineage(reference=f"sha256:{base.digest}", found_by="the command line")
    with TemporaryDirectory() as room:
        bench = warm_bench(base, base_folder, device, threads, policy.plan.compute_dtype)
        profile, gradients = _profile(bench, policy, cache or Path(room), tell)
        static = inspect_folder(candidate_folder, (locate(base_folder), attested), gradients)
        evidence = static_evidence(static, lineage, base, policy)
        prompts = ChangedPrompts()
        if not settled(policy, evidence):
            evidence, prompts = _measured(evidence, candidate_folder, bench, profile, policy, tell, prompts_kept)
    subject = f"folder:{evidence.candidate.digest}"
    return Assessed(evidence, judge(policy, evidence, subject=subject, now=int(time.time())), prompts)


def _measured(
    evidence: Evidence, folder: Path, bench: Bench, profile: BasinProfile, policy: Policy, tell: Tell, kept: int
) -> Measured:
    try:
        return measure_candidate(evidence, locate(folder), bench, profile, partial(decided, policy), tell, kept)
    except NotMeasurable as error:
        found = Defect(code=DefectCode.NOT_MEASURABLE, message=str(error))
        return Measured(evidence.model_copy(update={"defects": (*evidence.defects, found)}), ChangedPrompts())


def _profile(bench: Bench, policy: Policy, cache: Path, tell: Tell) -> tuple[BasinProfile, Path]:
    """The base's profile and its gradients file, from the cache where both are whole."""
    key = profile_key(bench.base.digest, bench.suite.digest, policy.plan.digest)
    stem = hashlib.sha256(key.encode()).hexdigest()
    document, gradients = cache / f"{stem}.json", cache / f"{stem}.safetensors"
    if document.is_file() and gradients.is_file():
        return BasinProfile.model_validate_json(document.read_bytes()), gradients
    profile = profile_base(bench, policy.plan, seed_of(digest_json(key)), gradients, tell)
    document.write_text(profile.model_dump_json())
    return profile, gradients


def one_policy(path: Path | None, name: str | None) -> Policy:
    """The policy to judge by: the only one of a file, or the one named."""
    policies = load_policies(path).policies
    if name is None and len(policies) == 1:
        return policies[0]
    for policy in policies:
        if policy.name == name:
            return policy
    raise InvalidInput(f"expected --policy-name to be one of {[p.name for p in policies]}, found {name!r}")
