"""A verdict as a section for the model's own card: what was decided, what was measured, and how to check it."""

from collections.abc import Iterator

from gate.domain.attestation import instant
from gate.domain.checkpoint import ModelVersion
from gate.domain.evidence import Evidence, Name
from gate.domain.permission import against
from gate.domain.verdict import Outcome, Verdict
from gate.pages.bom import LIMITS
from gate.pages.numbers import ABSENT, interval, percent
from gate.pages.report import text
from gate.pages.wording import TITLES

MEDIA_TYPE = "text/markdown; charset=utf-8"


def model_card(found: ModelVersion, verdict: Verdict, evidence: Evidence, run_url: str | None) -> bytes:
    """The section as Markdown, its headings one level below a card's own."""
    parts = (
        *_decision(found, verdict, run_url),
        *_kept(evidence),
        *_moved(evidence),
        *_limits(),
        *_check(found, verdict),
    )
    return ("\n".join(parts) + "\n").encode()


def _decision(found: ModelVersion, verdict: Verdict, run_url: str | None) -> Iterator[str]:
    yield "## Promotion gate"
    yield ""
    yield f"**{TITLES[verdict.outcome]}**: {text(verdict.reason, 2000)}"
    yield ""
    until = instant(verdict.expires_at) if verdict.outcome is Outcome.APPROVED else ABSENT
    rows = {
        "version": text(found.uri, 300),
        "judged": instant(verdict.judged_at),
        "approved until": until,
        "policy": f"{text(verdict.policy)}, sha256 `{verdict.policy_digest}`",
        "candidate": f"sha256 `{verdict.candidate_digest}`" if verdict.candidate_digest else ABSENT,
        "evaluation": f"<{run_url}>" if run_url else ABSENT,
    }
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {name} | {value} |" for name, value in rows.items())
    yield ""
    reasons = tuple(against(verdict))
    if reasons:
        yield from (f"- {text(reason, 600)}" for reason in reasons)
        yield ""


def _kept(evidence: Evidence) -> Iterator[str]:
    if not evidence.capabilities:
        return
    yield f"### Capabilities, by suite {text(evidence.suite or ABSENT)}"
    yield ""
    yield "| capability | score | change from the base | basin position |"
    yield "|---|---|---|---|"
    for capability in evidence.capabilities:
        cells = (
            interval(evidence.find(Name.SCORE, capability)),
            interval(evidence.find(Name.RETENTION, capability), sign=True),
            interval(evidence.find(Name.BASIN_POSITION, capability)),
        )
        yield f"| {text(capability, 60)} | {' | '.join(cells)} |"
    yield ""
    yield "Numbers with their intervals; a change is paired by item. A basin position of 1 is the edge for a random direction."
    yield ""


def _moved(evidence: Evidence) -> Iterator[str]:
    relative = evidence.find(Name.DISPLACEMENT_RELATIVE)
    base = f"{text(evidence.base_name)}, sha256 `{evidence.base_digest}`" if evidence.base_name else "not known"
    moved = f"; its weights moved by {percent(relative.value)} of the base's norm" if relative else ""
    yield f"Base: {base}{moved}."
    yield ""


def _limits() -> Iterator[str]:
    yield "### What this does not say"
    yield ""
    yield LIMITS
    yield ""


def _check(found: ModelVersion, verdict: Verdict) -> Iterator[str]:
    yield "### Check it yourself"
    yield ""
    yield "With the gate's public key, offline; the files must be the judged ones, byte for byte:"
    yield ""
    yield "```console"
    yield f"$ basin-gate verify FOLDER --attestation summary.dsse.json --keys trusted-keys.pem --expect {_shell(found)}"
    yield "```"
    yield ""
    yield f"Verdict sha256 `{verdict.digest}`."


def _shell(found: ModelVersion) -> str:
    """The version's address as one word of a shell, and harmless in a code block."""
    plain = "".join(c for c in found.uri if c.isprintable() and c not in "`'")
    return f"'{plain}'"
