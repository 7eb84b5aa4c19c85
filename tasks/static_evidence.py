"""From what the static stage found to evidence: keyed by content, seeded by its key."""

from dataclasses import replace

from gate.domain.checkpoint import Base, Lineage
from gate.domain.evaluation import evidence_key, seed_of
from gate.domain.evidence import Defect, Evidence, Name
from gate.domain.judging import decided
from gate.domain.policy import Policy
from tasks.static_stage import StaticResult
from tasks.suites import load_suite


def static_evidence(
    static: StaticResult,
    lineage: Lineage,
    base: Base | None,
    policy: Policy,
    *more: Defect,
    suite_digest: str | None = None,
) -> Evidence:
    """``suite_digest`` names the suite that the base was profiled with; without it, it is the present one."""
    suite = load_suite(base.suite, like=suite_digest) if base else None
    key = evidence_key(
        static.checkpoint.digest,
        base.digest if base else None,
        suite.digest if suite else None,
        policy.plan.digest,
        policy.digest,
    )
    static = replace(static, defects=(*static.defects, *more))
    return Evidence(
        key=key,
        candidate=static.checkpoint,
        lineage=lineage,
        base_name=base.name if base else None,
        base_digest=base.digest if base else None,
        suite=suite.name if suite else "",
        suite_digest=suite.digest if suite else None,
        plan=policy.plan,
        seed=seed_of(key),
        capabilities=tuple(b.name for b in suite.benchmarks) if suite else (),
        margins={b.name: b.margin for b in suite.benchmarks} if suite else {},
        measurements=static.measurements,
        layers=static.layers,
        defects=static.defects,
    )


def settled(policy: Policy, evidence: Evidence) -> bool:
    """Whether measuring could not change anything, or cannot be done: nothing comparable was found on disk."""
    return decided(policy, evidence) or evidence.find(Name.DISPLACEMENT_NORM) is None
