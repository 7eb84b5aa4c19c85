"""Do these files have an approval? The answer from a signed summary, the files' digests and the time alone."""

from collections.abc import Iterator, Mapping, Sequence

from gate.domain.attestation import Summary, instant
from gate.domain.checkpoint import FileDigest, Frozen, Sha256, digest_of

SIDECAR = "basin-gate.vsa.json"
"""The file inside a folder that holds the folder's attestation; it is not one of the files that were judged."""
NAMED_AT_MOST = 5


class Demand(Frozen):
    """What an approval must say beyond being one: of which version it speaks, by which text of which policy.

    ``resource`` is a whole identity, or its beginning without the time and source that the version was made of.
    ``policies`` are the digests of the texts that count, by the policy's name.
    """

    resource: str | None = None
    policies: Mapping[str, Sha256] | None = None


ANYTHING = Demand()
"""An approval of any version, by any policy."""


class Verification(Frozen):
    """What came of verifying: verified where there is no reason against it. ``files`` is how many were hashed;
    ``revocations`` says how far revocations could be known."""

    target: str
    reasons: tuple[str, ...]
    summary: Summary | None = None
    files: int = 0
    revocations: str = ""

    @property
    def verified(self) -> bool:
        """Whether a trusted key approved exactly these files, and the approval is in force."""
        return not self.reasons and self.summary is not None


def told(found: Verification) -> str:
    """The result for people: one line, and one more for each reason against."""
    if found.summary is None or not found.verified:
        return "\n  ".join((f"refused: {found.target}", *found.reasons))
    summary = found.summary
    return (
        f"verified: {found.target}: {found.files} files as judged, approved by policy {summary.policy} "
        f"until {instant(summary.expires_at)} as {summary.resource_uri.split('?')[0]}\n  revocations: {found.revocations}"
    )


def decision_refusals(summary: Summary, demand: Demand, now: int) -> tuple[str, ...]:
    """Why the summary is no approval in force of what is demanded; empty where it is one."""
    return tuple(_decision(summary, demand, now))


def file_refusals(summary: Summary, files: Sequence[FileDigest]) -> tuple[str, ...]:
    """How the files differ from those that were judged; empty where every byte of every file is the same."""
    return tuple(_differences(summary, files))


def _decision(summary: Summary, demand: Demand, now: int) -> Iterator[str]:
    if demand.resource not in (None, summary.resource_uri, summary.resource_uri.split("?")[0]):
        yield f"expected an attestation of {demand.resource}, found one of {summary.resource_uri}"
    if demand.policies is not None and summary.policy not in demand.policies:
        yield f"expected a verdict by policy {', '.join(sorted(demand.policies))}, found one by {summary.policy}"
    elif demand.policies is not None and demand.policies[summary.policy] != summary.policy_digest:
        yield f"its verdict is by another text of policy {summary.policy}; have it evaluated again"
    if refused := summary.refusal(summary.resource_uri, now):
        yield refused


def _differences(summary: Summary, files: Sequence[FileDigest]) -> Iterator[str]:
    found = {file.path: file.sha256 for file in files}
    whole = digest_of(files)
    judged = dict(summary.subjects)
    if summary.candidate_digest is None:
        yield "the attestation speaks of no files; have the version evaluated again"
    elif _speaks_of_each(summary):
        yield from _of_each(judged, found)
    elif whole != summary.candidate_digest:
        yield (
            f"expected {', '.join(judged)} with sha256 {summary.candidate_digest} over all, found {len(files)} "
            f"with {whole}; fetch the version again"
        )


def _speaks_of_each(summary: Summary) -> bool:
    """Whether the subjects are the files; those of a checkpoint with too many of them are one digest over all."""
    each = [FileDigest(path=path, sha256=sha256, size=0) for path, sha256 in summary.subjects.items()]
    return digest_of(each) == summary.candidate_digest


def _of_each(judged: dict[str, str], found: dict[str, str]) -> Iterator[str]:
    changed = sorted(path for path in judged.keys() & found.keys() if judged[path] != found[path])
    for what, paths in (
        ("was changed since it was judged", changed),
        ("was judged and is missing", sorted(judged.keys() - found.keys())),
        ("was never judged", sorted(found.keys() - judged.keys())),
    ):
        yield from (f"{path} {what}" for path in paths[:NAMED_AT_MOST])
        if len(paths) > NAMED_AT_MOST:
            yield f"and {len(paths) - NAMED_AT_MOST} more files: each {what}"
