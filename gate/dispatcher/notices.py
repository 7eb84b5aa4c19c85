"""What people are told by their channels, in plain words that name nobody and command nothing."""

from dataclasses import dataclass

from gate.domain.attestation import instant
from gate.domain.checkpoint import ModelVersion
from gate.domain.enforcement import shortened
from gate.domain.glass import BrokenGlass
from gate.domain.policy import Policy
from gate.domain.promotion import Holding
from gate.domain.verdict import Outcome, Verdict
from gate.domain.waiver import Waiver
from gate.ports import Ledger

BODY_CHARACTERS = 1000
_INERT = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "'", "[": "(", "]": ")"})
"""Names and reasons may be anybody's words: they must not call people, nor become links, in a chat."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A message; ``subject`` is what it is about, of which each channel is told once."""

    subject: str
    title: str
    body: str


def of_verdict(key: str, version: ModelVersion, verdict: Verdict, url: str) -> Notice | None:
    """That a version was not approved; ``None`` where it was."""
    if verdict.outcome is Outcome.APPROVED:
        return None
    word = {Outcome.NEEDS_REVIEW: "waits for a review", Outcome.ERROR: "could not be judged"}.get(
        verdict.outcome, "is blocked"
    )
    body = f"{_plain(verdict.reason)}\nPolicy {verdict.policy} · {url}"
    return Notice(f"verdict:{verdict.outcome}:{key}", f"{_plain(version.uri)} {word}", body)


def of_glass(version: ModelVersion, glass: BrokenGlass, url: str) -> Notice:
    """That somebody broke the glass over a version's verdict."""
    title = f"The glass was broken over {_plain(version.uri)}"
    body = f"{_plain(glass.by)}: {_plain(glass.reason)} ({_plain(glass.ticket)}). It can be promoted until {instant(glass.expires_at)}; somebody else has to review it by {instant(glass.review_by)}. {url}"
    return Notice(f"glass:{glass.digest}", title, body)


def of_overdue_glass(version: ModelVersion, glass: BrokenGlass) -> Notice:
    """That nobody reviewed a broken glass in time."""
    title = f"Nobody reviewed the breaking of the glass over {_plain(version.uri)}"
    body = f"{_plain(glass.by)} broke it ({_plain(glass.ticket)}); a review was due by {instant(glass.review_by)}. basin-gate review ls"
    return Notice(f"glass overdue:{glass.digest}", title, body)


def of_drift(held: Holding, version: ModelVersion, drift: str, reason: str) -> Notice:
    """That a version holds a place without an approval in force."""
    title = f"{_plain(version.uri)} was {drift}"
    where = f"It holds the {held.kind} {_plain(held.place)} of {_plain(held.name)}."
    return Notice(f"drift:{drift}:{held.kind}:{held.place}:{version.identity}", title, f"{where} {_plain(reason)}")


def of_waiver(id_: str, waiver: Waiver, days: int) -> Notice:
    """That a waiver ends soon."""
    title = f"A waiver of rule {waiver.rule} ends in {days} day{'' if days == 1 else 's'}"
    body = f"Owner {_plain(waiver.owner)}, ticket {_plain(waiver.ticket)}, policy {waiver.policy}. What rests on it is then judged without it."
    return Notice(f"waiver:{id_}", title, body)


def tell(ledger: Ledger, policy: Policy, notice: Notice | None, now: float) -> None:
    """Has the channels of a policy told; nobody is told of what a policy in dry run only watches."""
    if notice is None or policy.enforcement != "enforce":
        return
    for channel in policy.on_blocked.notify:
        message = {"channel": channel, "title": notice.title, "body": notice.body}
        ledger.notify(f"{channel}\0{notice.subject}", message, now)


def _plain(text: str) -> str:
    return shortened(text, BODY_CHARACTERS).translate(_INERT)
