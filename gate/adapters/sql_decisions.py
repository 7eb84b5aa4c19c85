"""What people decide, on the ledger's database: reviews, waivers, broken glasses, revocations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from gate.adapters import (
    ledger_glass,
    ledger_jobs,
    ledger_records,
    ledger_reviews,
    ledger_revocations,
    ledger_waivers,
)
from gate.adapters.database import Database
from gate.domain.checkpoint import ModelVersion
from gate.domain.glass import BrokenGlass
from gate.domain.overview import WaiverPage, WaiverQuery
from gate.domain.records import Claim, KeptGlass, KeptWaiver, SignedRevocation
from gate.domain.revocation import Revocation
from gate.domain.verdict import Review, Verdict
from gate.domain.waiver import Approval, Waiver


class SqlDecisions:
    """A part of ``gate.ports.Ledger``; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask_review(self, key: str, review: Review, now: float) -> None:
        self._database.write(lambda c: ledger_reviews.ask(c, key, review, now))

    def review(self, key: str, verdict_digest: str) -> Review | None:
        return self._database.read(lambda c: ledger_reviews.asked(c, key, verdict_digest))

    def reviews(self, key: str) -> Sequence[Review]:
        return self._database.read(lambda c: ledger_reviews.all_of(c, key))

    def save_review(self, claim: Claim, key: str, verdict: Verdict, envelope: Mapping[str, Any], now: float) -> None:
        self._held(claim, lambda c: ledger_reviews.save(c, key, verdict, envelope, now))

    def ask_waiver(self, waiver: Waiver, critical: bool, now: float) -> KeptWaiver:
        return self._database.write(lambda c: ledger_waivers.ask(c, waiver, critical, now))

    def approve_waiver(self, id_: str, approval: Approval, now: float) -> KeptWaiver:
        return self._database.write(lambda c: ledger_waivers.approve(c, id_, approval, now))

    def revoke_waiver(self, id_: str, actor: str, reason: str, now: float) -> KeptWaiver:
        return self._database.write(lambda c: ledger_waivers.revoke(c, id_, actor, reason, now))

    def sign_waiver(self, claim: Claim, id_: str, envelope: Mapping[str, Any]) -> None:
        self._held(claim, lambda c: ledger_waivers.sign(c, id_, envelope))

    def waiver(self, id_: str) -> KeptWaiver:
        return self._database.read(lambda c: ledger_waivers.one(c, id_))

    def waivers(self, candidate_digest: str | None = None, limit: int = 100) -> Sequence[KeptWaiver]:
        return self._database.read(lambda c: ledger_waivers.listing(c, candidate_digest, limit))

    def waiver_page(self, query: WaiverQuery) -> WaiverPage:
        return self._database.read(lambda c: ledger_waivers.page(c, query))

    def replace_verdict(
        self, claim: Claim, key: str, verdict: Verdict, envelope: Mapping[str, Any], now: float
    ) -> None:
        self._held(claim, lambda c: ledger_waivers.replace_verdict(c, key, verdict, envelope, now))

    def first_judged_at(self, key: str) -> int | None:
        return self._database.read(lambda c: ledger_waivers.first_judged_at(c, key))

    def judged(self, key: str) -> tuple[Verdict, Mapping[str, Any]] | None:
        return self._database.read(lambda c: ledger_records.judged_of(c, key))

    def break_glass(self, key: str, candidate_digest: str, glass: BrokenGlass, now: float) -> KeptGlass:
        return self._database.write(lambda c: ledger_glass.ask(c, key, candidate_digest, glass, now))

    def save_glass(self, claim: Claim, id_: int, verdict: Verdict, envelope: Mapping[str, Any], now: float) -> None:
        self._held(claim, lambda c: ledger_glass.save(c, id_, verdict, envelope, now))

    def end_glass(self, claim: Claim, id_: int, reason: str, now: float) -> None:
        self._held(claim, lambda c: ledger_glass.end(c, id_, reason, now))

    def review_glass(self, id_: int, review: Review, now: float) -> KeptGlass:
        return self._database.write(lambda c: ledger_glass.review(c, id_, review, now))

    def glass(self, id_: int) -> KeptGlass:
        return self._database.read(lambda c: ledger_glass.one(c, id_))

    def glasses(self, key: str | None = None, limit: int = 100) -> Sequence[KeptGlass]:
        return self._database.read(lambda c: ledger_glass.listing(c, key, limit))

    def revoke(self, given: Sequence[SignedRevocation], actor: str, now: float) -> int:
        return self._database.write(lambda c: ledger_revocations.revoke(c, given, actor, now))

    def revocation(self, subject: str, candidate_digest: str | None) -> tuple[Revocation, Mapping[str, Any]] | None:
        return self._database.read(lambda c: ledger_revocations.revocation_of(c, subject, candidate_digest))

    def revocations(self) -> Sequence[Revocation]:
        return self._database.read(ledger_revocations.revocations)

    def versions_of(self, candidate_digest: str) -> Sequence[ModelVersion]:
        return self._database.read(lambda c: ledger_revocations.versions_of(c, candidate_digest))

    def _held(self, claim: Claim, work: Callable[[sa.Connection], None]) -> None:
        """Does it while the claim's job is held, or not at all."""

        def held(c: sa.Connection) -> None:
            ledger_jobs.hold(c, claim)
            work(c)

        self._database.write(held)
