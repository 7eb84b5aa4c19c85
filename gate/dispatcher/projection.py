"""A verdict as MLflow users see it: a run with everything, short tags, a block in the description, the alias."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from gate.adapters.standing import Standing
from gate.dispatcher.notices import of_glass, of_verdict, tell
from gate.domain.checkpoint import Checkpoint, Layout, Lineage, ModelVersion
from gate.domain.enforcement import RunRecord, plan, plan_failure, plan_revocation, run_metrics, run_params, unmarked
from gate.domain.errors import NotFound
from gate.domain.evidence import Evidence, canonical_json
from gate.domain.overview import EvaluationRow
from gate.domain.policy import Policy
from gate.domain.prompts import ChangedPrompts, fitting
from gate.domain.verdict import Verdict
from gate.pages.bom import base_of, bill_of_materials
from gate.pages.html_report import failure, html
from gate.pages.inert import inert
from gate.pages.plots import pictures
from gate.pages.prompts import table
from gate.pages.report import markdown, text
from gate.ports import Registry

PROMPTS = "prompts.json"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Projector:
    """Writes ended evaluations to the registry. Idempotent: repeated at any point, the end state is the same."""

    standing: Standing
    registry: Registry
    clock: Callable[[], float]

    def project(self, key: str) -> str:
        """Write one; ``written``, or ``moot`` where the version is gone or a newer evaluation speaks for it."""
        row = self.standing.ledger.evaluation(key)
        version = self._subject(row) if row else None
        if row is None or version is None or self._overruled(row, version):
            log.info("projection moot", evaluation=key)
            return "moot"
        kept = self.standing.ledger.verdict(key)
        if kept is None:
            self._write_failure(row, version)
        else:
            self._write(row, version, *kept)
        return "written"

    def _subject(self, row: EvaluationRow) -> ModelVersion | None:
        """The version the evaluation is about, unless it was deleted (and perhaps another made in its place), or was
        onboarded as a base since: a base is what fine-tunes are judged by."""
        asked = row.request.version
        try:
            now = self.registry.version(asked.name, asked.version)
        except NotFound:
            return None
        became_base = any(base.answers_to(now.uri) for base in self.standing.ledger.bases())
        return now if now.identity == asked.identity and not became_base else None

    def _overruled(self, row: EvaluationRow, version: ModelVersion) -> bool:
        policy = self.standing.policy(version)
        if policy is None:
            return False
        newer = self.standing.ledger.evaluation_of(version.identity, policy.digest)
        return newer is not None and newer.request.key != row.request.key and newer.outcome is not None

    def _write(self, row: EvaluationRow, version: ModelVersion, verdict: Verdict, envelopes: Mapping[str, Any]) -> None:
        evidence = self._evidence(row, verdict)
        run_id = self._run(row, verdict, evidence, envelopes)
        policy = self.standing.policy_of(row.request.policy_digest)
        url = self.registry.run_url(run_id)
        revoked = self.standing.ledger.revocation(version.identity, None)
        if revoked is not None:
            actions = plan_revocation(verdict, revoked[1], version, policy, run_id=run_id, run_url=url)
            self.registry.apply(version, actions)
            log.info("revocation written", evaluation=row.request.key, version=version.uri)
            return
        actions = plan(
            verdict,
            envelopes["summary"],
            version,
            policy,
            run_id=run_id,
            run_url=url,
            newer_approved=self._newer_approved(version, policy),
            expired=verdict.expires_at <= self.clock(),
        )
        self.registry.apply(version, actions)
        if policy is not None:
            glass = verdict.break_glass
            notice = of_glass(version, glass, url) if glass else of_verdict(row.request.key, version, verdict, url)
            tell(self.standing.ledger, policy, notice, self.clock())
        log.info("verdict written", evaluation=row.request.key, version=version.uri, outcome=verdict.outcome.value)

    def _evidence(self, row: EvaluationRow, verdict: Verdict) -> Evidence:
        """The evidence as it was judged: with the errors met on the way, or nothing but them."""
        kept = self.standing.ledger.evidence(row.evidence_key) if row.evidence_key else None
        nothing = Checkpoint(layout=Layout.UNKNOWN, files=())
        evidence = kept or Evidence(key=row.request.key, candidate=nothing, lineage=Lineage())
        return evidence.model_copy(update={"errors": verdict.errors})

    def _run(self, row: EvaluationRow, verdict: Verdict, evidence: Evidence, envelopes: Mapping[str, Any]) -> str:
        shown, prompts = pictures(evidence), fitting(evidence, self.standing.ledger.prompts(evidence.key))
        subject = f"{row.request.version.name} version {row.request.version.version}"
        artifacts = {
            "report.html": html(verdict, evidence, subject, prompts).encode(),
            "report.md": markdown(verdict, evidence, subject, tuple(shown), prompts).encode(),
            "evidence.json": evidence.model_dump_json(indent=2).encode(),
            "verdict.json": verdict.model_dump_json(indent=2).encode(),
            "bom.cdx.json": self._bom(row, verdict, evidence),
            **{_attestation(name): canonical_json(each) for name, each in envelopes.items()},
            **_prompts_table(prompts),
            **shown,
        }
        return self._record(
            row,
            RunRecord(
                key=row.request.key,
                name=_run_name(row),
                outcome=verdict.outcome.value,
                at_ms=1000 * verdict.judged_at,
                params=run_params(verdict, evidence),
                metrics=run_metrics(evidence),
                tags=_run_tags(row, verdict.outcome.value, verdict.reason)
                | _table_tag(prompts)
                | {"gate.evidence": verdict.evidence_key},
                artifacts=artifacts,
                mark=verdict.digest,
            ),
        )

    def _bom(self, row: EvaluationRow, verdict: Verdict, evidence: Evidence) -> bytes:
        base = base_of(evidence, self.standing.ledger.bases())
        return bill_of_materials(row.request.version, verdict, evidence, base, None)

    def _write_failure(self, row: EvaluationRow, version: ModelVersion) -> None:
        reason = row.reason or "the evaluation failed without saying why"
        page = f"# No verdict on {text(version.uri)}\n\n{text(reason, 2000)}\n"
        run_id = self._record(
            row,
            RunRecord(
                key=row.request.key,
                name=_run_name(row),
                outcome="error",
                at_ms=int(1000 * row.updated_at),
                params={"policy": row.request.policy, "policy_digest": row.request.policy_digest},
                tags=_run_tags(row, "error", reason),
                artifacts={"report.html": failure(version.uri, reason).encode(), "report.md": page.encode()},
            ),
        )
        policy = f"{row.request.policy}@{row.request.policy_digest[:12]}"
        url = self.registry.run_url(run_id)
        self.registry.apply(version, plan_failure(reason, policy, run_id=run_id, run_url=url))

    def _record(self, row: EvaluationRow, record: RunRecord) -> str:
        run_id = self.registry.write_run(record)
        self.standing.ledger.note(row.request.key, self.clock(), run_id=run_id)
        return run_id

    def _newer_approved(self, version: ModelVersion, policy: Policy | None) -> bool:
        """Whether a newer version with an approval in force holds the policy's alias already."""
        if policy is None or policy.on_approved.alias is None:
            return False
        holder = self.registry.alias_of(version.name, policy.on_approved.alias)
        if holder is None or int(holder) <= int(version.version):
            return False
        return self.standing.answer(self.registry.version(version.name, holder), self.clock()).allowed


def _prompts_table(prompts: ChangedPrompts) -> Mapping[str, bytes]:
    return {PROMPTS: canonical_json(table(prompts))} if prompts.capabilities else {}


def _table_tag(prompts: ChangedPrompts) -> dict[str, str]:
    """What makes MLflow's pages show the file as a table, as its `log_table` would; that one needs pandas."""
    return {"mlflow.loggedArtifacts": json.dumps([{"path": PROMPTS, "type": "table"}])} if prompts.capabilities else {}


def _attestation(name: str) -> str:
    """Where a signed document lies in a run; a bundle is more than an envelope."""
    return f"attestations/{name}.json" if name == "sigstore" else f"attestations/{name}.dsse.json"


def _run_name(row: EvaluationRow) -> str:
    return inert(f"{row.request.version.name} v{row.request.version.version}", 250)


def _run_tags(row: EvaluationRow, outcome: str, reason: str) -> dict[str, str]:
    version = row.request.version
    return {
        "gate.verdict": outcome,
        "gate.subject": version.identity,
        "gate.model": version.name,
        "gate.version": version.version,
        "mlflow.note.content": f"{outcome.replace('_', ' ')}: {unmarked(reason, 2000)}"[:5000],
        **({"gate.trace": row.trace_id} if row.trace_id else {}),
    }
