"""How requests that should be refused were answered, in the judge's three ways: what a report shows where a suite has them judged."""

from dataclasses import dataclass

from gate.domain.evidence import Evidence, Name
from gate.pages.numbers import percent

WAYS = {
    Name.SCORE: "refused",
    Name.COMPLIED: "complied",
    Name.INCOHERENT: "made no sense",
    Name.KEYWORD_REFUSED: "refused, by keywords",
}
WAYS_NOTE = "Text that makes no sense is no harm done and no refusal kept. The last column is what published figures count; no rule reads it."


@dataclass(frozen=True, slots=True)
class Answered:
    """One capability's requests: how many were compared, and each way's share with its interval, in `WAYS`' order."""

    capability: str
    requests: int
    shares: tuple[str, ...]


def answered(evidence: Evidence) -> list[Answered]:
    """A row for each capability whose answers were judged; none where no suite has that."""
    found = [(c, [evidence.find(name, c) for name in WAYS]) for c in evidence.capabilities]
    rows = [(c, [share for share in shares if share is not None]) for c, shares in found]
    return [
        Answered(
            capability,
            shares[-1].n,
            tuple(
                f"{percent(s.value)} ({percent(s.lower or 0.0)} to {percent(1.0 if s.upper is None else s.upper)})"
                for s in shares
            ),
        )
        for capability, shares in rows
        if len(shares) == len(WAYS)
    ]
