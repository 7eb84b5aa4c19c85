"""The waivers that a judging may rest on: those the ledger holds as granted whose signed document is their own."""

from collections.abc import Sequence

import structlog

from gate.adapters.signing import DsseSigner, Verifier
from gate.bootstrap import build_signer
from gate.domain.errors import GateError
from gate.domain.records import KeptWaiver, WaiverState
from gate.domain.waiver import WAIVER_TYPE, Waiver, read_waiver, waiver_document
from gate.settings import Settings
from tasks.running import JobContext

MOST = 500
log = structlog.get_logger(__name__)


def granted(job: JobContext, candidate_digest: str) -> Sequence[Waiver]:
    """The granted waivers for these bytes. One that is not signed yet is signed; one whose signature is not that of a
    trusted key, or is over another document, is left out, so that its rule stays failed."""
    kept = [w for w in job.ledger.waivers(candidate_digest, MOST) if w.state is WaiverState.GRANTED]
    if not kept:
        return ()
    signer = build_signer(job.settings)
    verifier = _verifier(signer, job.settings)
    return [each.waiver for each in kept if _signed(job, signer, verifier, each)]


def _signed(job: JobContext, signer: DsseSigner, verifier: Verifier, kept: KeptWaiver) -> bool:
    if kept.envelope is None:
        job.ledger.sign_waiver(job.claim, kept.waiver.id, signer.sign(waiver_document(kept.waiver), WAIVER_TYPE))
        return True
    try:
        return read_waiver(verifier.open(kept.envelope, WAIVER_TYPE)) == kept.waiver
    except GateError as error:
        log.warning("waiver not trusted", waiver=kept.waiver.id, error=str(error))
        return False


def _verifier(signer: DsseSigner, settings: Settings) -> Verifier:
    """What this worker's own key signed counts, and what the trusted keys did: keys are replaced."""
    if settings.trusted_keys_file is not None:
        return Verifier.from_file(settings.trusted_keys_file)
    return Verifier([signer.public_key])
