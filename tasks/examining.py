"""What becomes of a candidate's folder beside a base that is ready: the one way from files to a verdict without a registry.

``assess``, ``calibrate`` and ``selfcheck`` all go this way. It is that of a registered version from the static stage to
``judge``, without the fetching before it and the signing after it.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gate.adapters.conditions import idle_rules
from gate.domain.checkpoint import Base, Lineage
from gate.domain.errors import NotMeasurable
from gate.domain.evaluation import seed_of
from gate.domain.evidence import BasinProfile, Defect, DefectCode, Evidence, digest_json
from gate.domain.jobs import profile_key
from gate.domain.judging import decided, judge
from gate.domain.overview import Narrowing
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


def quiet(_stage: str, _fraction: float, _narrowing: Sequence[Narrowing] | None = None, /) -> None:
    """Progress that nobody asked for."""


class Assessed(NamedTuple):
    """What was measured, what it was judged to be, and the texts of prompts that changed."""

    evidence: Evidence
    verdict: Verdict
    prompts: ChangedPrompts


@dataclass(frozen=True, slots=True)
class Ready:
    """A base ready to be measured against: on the bench, profiled, its gradients in a file where they are here."""

    bench: Bench
    folder: Path
    profile: BasinProfile
    gradients: Path | None

    def examine(
        self,
        candidate: Path,
        policy: Policy,
        lineage: Lineage,
        *,
        kind: str = "folder",
        enough: Callable[[Evidence], bool] | None = None,
        tell: Tell = quiet,
        prompts_kept: int = MOST_KEPT,
    ) -> Assessed:
        """Evidence, verdict and changed prompts of a candidate's folder.

        Measuring stops once ``enough`` says so, by default once the policy's verdict is decided. ``kind`` and the
        candidate's digest are what the verdict is bound to.
        """
        base = self.bench.base
        static = inspect_folder(candidate, (locate(self.folder), base.checkpoint), self.gradients)
        evidence = static_evidence(static, lineage, base, policy, suite_digest=self.bench.suite.digest)
        prompts = ChangedPrompts()
        if not settled(policy, evidence):
            stop = enough or partial(decided, policy)
            evidence, prompts = self._measured(evidence, candidate, stop, tell, prompts_kept)
        subject = f"{kind}:{evidence.candidate.digest}"
        idle = idle_rules(policy, evidence)
        return Assessed(evidence, judge(policy, evidence, subject=subject, now=int(time.time()), idle=idle), prompts)

    def _measured(
        self, evidence: Evidence, folder: Path, stop: Callable[[Evidence], bool], tell: Tell, kept: int
    ) -> Measured:
        try:
            return measure_candidate(evidence, locate(folder), self.bench, self.profile, stop, tell, kept)
        except NotMeasurable as error:
            found = Defect(code=DefectCode.NOT_MEASURABLE, message=str(error))
            return Measured(evidence.model_copy(update={"defects": (*evidence.defects, found)}), ChangedPrompts())


def made_ready(
    folder: Path, *, policy: Policy, suite: str, device: str, threads: int, cache: Path, tell: Tell = quiet
) -> Ready:
    """The base in a folder, ready; its profile and gradients from ``cache`` where both are whole there, else made."""
    attested = inspect_folder(folder).checkpoint
    base = Base(name=folder.name, digest=attested.digest, source=str(folder), suite=suite, checkpoint=attested)
    bench = warm_bench(base, folder, device, threads, policy.plan.compute_dtype)
    key = profile_key(base.digest, bench.suite.digest, policy.plan.digest)
    stem = hashlib.sha256(key.encode()).hexdigest()
    document, gradients = cache / f"{stem}.json", cache / f"{stem}.safetensors"
    if document.is_file() and gradients.is_file():
        return Ready(bench, folder, BasinProfile.model_validate_json(document.read_bytes()), gradients)
    profile = profile_base(bench, policy.plan, seed_of(digest_json(key)), gradients, tell)
    document.write_text(profile.model_dump_json())
    return Ready(bench, folder, profile, gradients)


def named_by(place: str, base: Base) -> Lineage:
    """The lineage of a candidate whose base is known from where it was asked about."""
    return Lineage(reference=f"sha256:{base.digest}", found_by=place)
