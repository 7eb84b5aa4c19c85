"""What a verdict makes of the registry: actions as data, so that they can be read, tested and repeated."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Evidence, Measurement
from gate.domain.policy import Policy
from gate.domain.verdict import Outcome, Verdict

TAG_VERDICT = "gate.verdict"
TAG_REASON = "gate.reason"
TAG_POLICY = "gate.policy"
TAG_RUN = "gate.run_id"
TAG_EVIDENCE = "gate.evidence"
TAG_ATTESTATION = "gate.vsa"
TAG_REVOKED = "gate.revoked"
NO_ATTESTATION = "none"
"""The value of ``gate.vsa`` where nothing stands for an approval."""

REASON_CHARACTERS = 240
ATTESTATION_BYTES = 60_000
"""MLflow on MySQL keeps tag values in a TEXT column: 65 535 bytes."""
DESCRIPTION_CHARACTERS = 5000
"""MLflow's description column on PostgreSQL."""

BEGIN = "<!-- basin-gate:begin -->"
END = "<!-- basin-gate:end -->"
HEADING = "Basin Gate: "
_BLOCK = re.compile(
    rf"(?:\n\n)?{re.escape(HEADING)}[^\n]*{re.escape(BEGIN)}(?:(?!{re.escape(BEGIN)}).)*?{re.escape(END)}", re.DOTALL
)

_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`[]"})


@dataclass(frozen=True, slots=True)
class SetTag:
    """Give the version a tag."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class DescriptionBlock:
    """Put the gate's marked block into the version's description, beside the owner's text."""

    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class SetAlias:
    """Point an alias of the registered model at the version."""

    alias: str


@dataclass(frozen=True, slots=True)
class RemoveAlias:
    """Take an alias that the gate itself had set off the version."""

    alias: str


@dataclass(frozen=True, slots=True)
class RemoveTag:
    """Take a tag that the gate itself had set off the version; one with another value stays."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class SetStage:
    """Move the version to a stage, and no other version out of it."""

    stage: str


Action = SetTag | DescriptionBlock | SetAlias | RemoveAlias | RemoveTag | SetStage


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The MLflow run that shows one evaluation. ``key`` makes it one run however often it is written.

    ``mark`` tells what it was written of: with another one (or, where there is none, another outcome) it is written again.
    """

    key: str
    name: str
    outcome: str
    at_ms: int
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    mark: str = ""


def plan(
    verdict: Verdict,
    envelope: Mapping[str, Any],
    version: ModelVersion,
    policy: Policy | None,
    *,
    run_id: str,
    run_url: str,
    newer_approved: bool = False,
    expired: bool = False,
) -> tuple[Action, ...]:
    """What the registry must look like after this verdict, in the order to write it.

    ``envelope`` is the signed summary the guard reads; it comes before any alias, since the guard asks for it.
    ``policy`` is ``None`` where the one that judged is no longer in force: it moves no alias then.
    ``newer_approved`` says that a newer approved version holds the policy's alias: it stays there. ``expired`` says
    that the approval's time is over: it gives no alias any more.
    """
    return (
        *_tags(verdict, envelope, run_id),
        _block(verdict, policy, run_url),
        *_aliases(verdict, version, policy, newer_approved or expired),
    )


def _tags(verdict: Verdict, envelope: Mapping[str, Any], run_id: str) -> tuple[SetTag, ...]:
    attestation = attestation_text(envelope)
    if len(attestation.encode()) > ATTESTATION_BYTES:
        raise InvalidInput(
            f"expected an attestation of at most {ATTESTATION_BYTES} bytes (it travels as a tag), found "
            f"{len(attestation.encode())}; register the checkpoint with fewer files"
        )
    return (
        SetTag(TAG_ATTESTATION, attestation),
        SetTag(TAG_VERDICT, verdict.outcome.value),
        SetTag(TAG_REASON, shortened(verdict.reason, REASON_CHARACTERS)),
        SetTag(TAG_POLICY, f"{verdict.policy}@{verdict.policy_digest[:12]}"),
        SetTag(TAG_EVIDENCE, verdict.evidence_digest),
        SetTag(TAG_RUN, run_id),
    )


def attestation_text(envelope: Mapping[str, Any]) -> str:
    """An envelope as the value of a tag."""
    return json.dumps(envelope, separators=(",", ":"), sort_keys=True)


def plan_failure(reason: str, policy: str, *, run_id: str, run_url: str) -> tuple[Action, ...]:
    """What the registry must look like when an evaluation ended without a verdict: nothing stands for an approval."""
    return (
        SetTag(TAG_ATTESTATION, NO_ATTESTATION),
        SetTag(TAG_VERDICT, Outcome.ERROR.value),
        SetTag(TAG_REASON, shortened(reason, REASON_CHARACTERS)),
        SetTag(TAG_POLICY, policy),
        SetTag(TAG_RUN, run_id),
        DescriptionBlock(f"{HEADING}error. {unmarked(reason)}", f"Policy {policy} · [run]({run_url})"),
    )


def plan_revocation(
    verdict: Verdict,
    envelope: Mapping[str, Any],
    version: ModelVersion,
    policy: Policy | None,
    *,
    run_id: str,
    run_url: str,
) -> tuple[Action, ...]:
    """What the registry must look like after an approval was taken back: the signed mark first, then no attestation.

    ``verdict`` is the overruled one; ``envelope`` the revocation that names this version.
    """
    return (
        SetTag(TAG_REVOKED, attestation_text(envelope)),
        SetTag(TAG_ATTESTATION, NO_ATTESTATION),
        SetTag(TAG_VERDICT, verdict.outcome.value),
        SetTag(TAG_REASON, shortened(verdict.reason, REASON_CHARACTERS)),
        SetTag(TAG_POLICY, f"{verdict.policy}@{verdict.policy_digest[:12]}"),
        SetTag(TAG_RUN, run_id),
        _block(verdict, policy, run_url),
        *_aliases(verdict, version, policy, True),
    )


def _block(verdict: Verdict, policy: Policy | None, run_url: str) -> DescriptionBlock:
    word = verdict.outcome.replace("_", " ")
    note = " (dry run: nothing is held back)" if policy and policy.enforcement == "dry_run" else ""
    return DescriptionBlock(
        heading=f"{HEADING}{word}{note}. {unmarked(verdict.reason)}",
        text=f"Policy {verdict.policy} · [report and evidence]({run_url})",
    )


def _aliases(verdict: Verdict, version: ModelVersion, policy: Policy | None, withheld: bool) -> tuple[Action, ...]:
    if policy is None or policy.enforcement == "dry_run":
        return ()
    alias, tags = policy.on_approved.alias, policy.on_approved.tags
    if verdict.outcome is Outcome.APPROVED:
        given = () if withheld or alias is None else (SetAlias(alias),)
        return (*(SetTag(key, value) for key, value in tags.items()), *given)
    held = (RemoveAlias(alias),) if alias is not None and alias in version.aliases else ()
    return (*held, *(RemoveTag(key, value) for key, value in tags.items() if version.tags.get(key) == value))


def shortened(text: str, limit: int) -> str:
    """One line of at most ``limit`` characters, without terminal escapes or changes of writing direction.

    >>> shortened("one two\\nthree", 9), shortened("a\\x1b[31m\\u202eb", 9)
    ('one two …', 'a [31m b')
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def unmarked(text: str, limit: int = 400) -> str:
    """The same as Markdown that says so and no more: no picture, no link, no HTML, since the registry's pages draw them.

    >>> unmarked("[x](y) <img src=z> `c`")
    '\\\\[x\\\\](y) &lt;img src=z&gt; \\\\`c\\\\`'
    """
    return escape(shortened(text, limit), quote=False).translate(_MARKS)


def with_block(description: str, block: DescriptionBlock) -> str:
    """The description with the gate's block at its end; every character of the owner's text stays as it is.

    The old block is replaced. Where the owner's text leaves no room, the heading alone is tried, then nothing.
    """
    owners = without_block(description)
    # A marker inside the text would end the block early and leave a part of it behind for ever.
    heading, text = (_without_ends(part) for part in (" ".join(block.heading.split()), block.text))
    for body in (f"{heading} {BEGIN}\n{text}\n{END}", f"{heading} {BEGIN}{END}"):
        whole = f"{owners}\n\n{body}" if owners else body
        if len(whole) <= DESCRIPTION_CHARACTERS:
            return whole
    return owners


def without_block(description: str) -> str:
    """The owner's text alone."""
    return _BLOCK.sub("", description)


def _without_ends(text: str) -> str:
    return text.replace("<!--", "‹!--").replace("-->", "--›")


def run_metrics(evidence: Evidence) -> Mapping[str, float]:
    """Every measured number with its bounds under names MLflow accepts: ``retention/safety.lower``."""
    numbers: dict[str, float] = {}
    for measurement in evidence.measurements:
        name, estimate = metric_name(measurement), measurement.estimate
        numbers[name] = estimate.value
        if estimate.alpha > 0:
            bounds = {"lower": estimate.lower, "upper": estimate.upper}
            numbers |= {f"{name}.{side}": bound for side, bound in bounds.items() if bound is not None}
    return numbers


def metric_name(measurement: Measurement) -> str:
    """The measurement's name in MLflow, which allows letters, digits and ``_-./: `` in one."""
    if measurement.capability is None:
        return measurement.name.value
    return f"{measurement.name}/{re.sub(r'[^0-9A-Za-z_. -]', '_', measurement.capability)}"


def run_params(verdict: Verdict, evidence: Evidence | None) -> Mapping[str, str]:
    """What the evaluation was asked with: digests, base, suite, seed, plan."""
    known = {
        "policy": verdict.policy,
        "policy_digest": verdict.policy_digest,
        "candidate_digest": verdict.candidate_digest,
        "base_digest": verdict.base_digest,
        "evidence_key": verdict.evidence_key,
    }
    if evidence is not None:
        known |= {
            "base": evidence.base_name,
            "base_found_by": evidence.lineage.found_by,
            "suite": evidence.suite,
            "suite_digest": evidence.suite_digest,
            "plan_digest": evidence.plan.digest,
            "seed": str(evidence.seed),
        }
    return {name: value[:6000] for name, value in known.items() if value}
