"""A verdict that was tampered with is refused by everybody who reads it: the guard, verify, admission, CI, reconciler.

Guard, reconciler and a registered version's verification read the version's tags; admission and CI read the ledger, so
there a tampered tag must change nothing; whoever holds a folder reads the attestation beside it.
"""

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from approvals import a_key
from builders import a_checkpoint
from deliveries import CAPTURE_SECRET
from fastapi.testclient import TestClient
from guarded_stand import GuardedStand, Target
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException

from gate.adapters.folder_digests import folder_digests
from gate.adapters.metrics import Metrics
from gate.adapters.revocations import KnownRevocations, opened
from gate.adapters.revoking import Revoker
from gate.adapters.signing import Verifier
from gate.api.access import Access
from gate.api.app import create_app
from gate.api.door import Door
from gate.domain.checkpoint import Checkpoint
from gate.domain.enforcement import TAG_ATTESTATION, TAG_REVOKED
from gate.domain.errors import Unverified
from gate.domain.reference import parse_reference
from gate.domain.verdict import Outcome
from gate.verify import FolderCheck, verified_folder


class Subject:
    """A registered, unapproved version with files that can be fetched, and a good version beside it."""

    def __init__(self, stand: GuardedStand, folder: Path) -> None:
        self.stand, self.folder = stand, folder / "files"
        self.folder.mkdir()
        (self.folder / "config.json").write_bytes(b"{}")
        # Bytes of its own: a revocation speaks of all versions with the same.
        (self.folder / "model.safetensors").write_bytes(uuid.uuid4().bytes)
        self.target: Target = stand.target()
        self.version = self.target.bad
        self.checkpoint: Checkpoint = a_checkpoint(files=folder_digests(self.folder))

    def attestation(self, **changes: object) -> str:
        given = {"candidate_digest": self.checkpoint.digest} | changes
        return self.stand.attestation(self.version.identity, candidate=self.checkpoint, **given)

    def carry(self, value: str) -> None:
        """Puts an attestation onto the version, past every restriction."""
        self.stand.unguarded.set_model_version_tag(
            self.version.name, self.version.version, ModelVersionTag(TAG_ATTESTATION, value)
        )


Tamper = Callable[[Subject, Path], str]
TAMPERED: dict[str, Tamper] = {}


def tampered(name: str) -> Callable[[Tamper], Tamper]:
    def enter(make: Tamper) -> Tamper:
        TAMPERED[name] = make
        return make

    return enter


def edited(envelope: str, old: str, new: str) -> str:
    document = json.loads(envelope)
    payload = base64.b64decode(document["payload"]).decode()
    assert old in payload
    document["payload"] = base64.b64encode(payload.replace(old, new).encode()).decode()
    return json.dumps(document)


@tampered("signed by another key")
def _(subject: Subject, folder: Path) -> str:
    private, _ = a_key(folder, "another")
    return subject.stand.attestation(
        subject.version.identity, private, candidate=subject.checkpoint, candidate_digest=subject.checkpoint.digest
    )


@tampered("of other bytes")
def _(subject: Subject, folder: Path) -> str:
    files = tuple(f.model_copy(update={"sha256": "0" * 64}) for f in subject.checkpoint.files)
    other = a_checkpoint(files=files)
    return subject.stand.attestation(subject.version.identity, candidate=other, candidate_digest=other.digest)


@tampered("expired")
def _(subject: Subject, folder: Path) -> str:
    return subject.attestation(expires_at=int(time.time()) - 60)


@tampered("replayed from another version")
def _(subject: Subject, folder: Path) -> str:
    return subject.stand.attestation(
        subject.target.good.identity, candidate=subject.checkpoint, candidate_digest=subject.checkpoint.digest
    )


@tampered("with one measurement edited")
def _(subject: Subject, folder: Path) -> str:
    # The summary names the sha256 of the measurement: a changed number changes that, and the signature is not over it.
    envelope = subject.attestation()
    payload = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    digest = payload["predicate"]["inputAttestations"][0]["digest"]["sha256"]
    return edited(envelope, digest, "f" * 64)


@tampered("restored after its revocation")
def _(subject: Subject, folder: Path) -> str:
    stand, value = subject.stand, subject.attestation()
    stand.judge(subject.version, Outcome.APPROVED, json.loads(value), candidate_digest=subject.checkpoint.digest)
    stand.sweep()
    Revoker(stand.ledger, stand.signer, stand.clock).revoke(subject.version, "measured with a broken suite", "operator")
    stand.sweep()
    return value


OF_BYTES = "of other bytes"
TOLD_BY_TAGS = [name for name in TAMPERED if name != OF_BYTES]
"""All but the one that only shows where the bytes are read again: the guard reads none, by design."""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedStand]:
    made = GuardedStand(tmp_path_factory.mktemp("tampered"))
    yield made
    made.close()


@pytest.fixture
def subject(stand: GuardedStand, tmp_path: Path) -> Iterator[Subject]:
    stand.clear()
    yield Subject(stand, tmp_path)
    stand.clear()


@pytest.fixture
def api(stand: GuardedStand) -> TestClient:
    """The HTTP application over the same ledger and the same registry."""
    door = Door(
        ledger=stand.ledger,
        registry=stand.registry,
        policies=stand.policies,
        secrets=(CAPTURE_SECRET,),
        clock=stand.clock,
        metrics=Metrics(),
        broker=lambda: None,
    )
    return TestClient(create_app(door, Access(None)))


def listed(stand: GuardedStand, folder: Path) -> Path:
    """The signed list of revocations as the command prints it."""
    file = folder / "revocations.json"
    file.write_text(json.dumps(Revoker(stand.ledger, stand.signer, stand.clock).listed(30)))
    return file


@pytest.mark.parametrize("name", TOLD_BY_TAGS)
def test_the_guard_refuses(subject: Subject, tmp_path: Path, name: str) -> None:
    subject.carry(TAMPERED[name](subject, tmp_path))

    with pytest.raises(MlflowException, match=r"^PERMISSION_DENIED: \[basin-gate\]"):
        subject.stand.client.set_registered_model_alias(subject.version.name, "champion", "2")


@pytest.mark.parametrize("name", TOLD_BY_TAGS)
def test_the_reconciler_undoes_a_promotion_on_it(subject: Subject, tmp_path: Path, name: str) -> None:
    stand = subject.stand
    value = TAMPERED[name](subject, tmp_path)
    stand.sweep()
    subject.carry(value)
    stand.unguarded.set_registered_model_alias(subject.version.name, "champion", "2")

    stand.sweep(times=2)

    assert stand.leads(subject.version.name)["champion"] == "1"
    assert {"promoted without approval", "promoted on an approval that was revoked"} & set(
        stand.audited(subject.version.identity)
    )


@pytest.mark.parametrize("name", TAMPERED)
def test_admission_and_promotions_refuse(subject: Subject, api: TestClient, tmp_path: Path, name: str) -> None:
    subject.carry(TAMPERED[name](subject, tmp_path))
    reference = subject.version.uri
    container = {"name": "server", "args": ["--model", reference]}
    resource = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    request = {"uid": "u", "operation": "CREATE", "object": resource}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}

    assert api.post("/admission", json=review).json()["response"]["allowed"] is False
    asked = {"name": subject.version.name, "version": subject.version.version, "alias": "champion"}
    assert api.post("/v1/promotions", json=asked).json()["allowed"] is False


@pytest.mark.parametrize("name", TAMPERED)
def test_verifying_a_folder_refuses(subject: Subject, tmp_path: Path, name: str) -> None:
    value = TAMPERED[name](subject, tmp_path)
    stand = subject.stand

    with pytest.raises(Unverified):
        verified_folder(
            subject.folder,
            value,
            stand.public,
            expect=subject.version.uri,
            revocations=listed(stand, tmp_path),
        )


@pytest.mark.parametrize("name", TOLD_BY_TAGS)
def test_verifying_the_registered_version_refuses_before_it_fetches(
    subject: Subject, tmp_path: Path, name: str
) -> None:
    subject.carry(TAMPERED[name](subject, tmp_path))
    check = FolderCheck(Verifier.from_file(subject.stand.public))

    found = check.version(subject.stand.registry, parse_reference(subject.version.uri), tmp_path / "into")

    assert (found.verified, found.files, (tmp_path / "into").exists()) == (False, 0, False)


def test_an_untampered_approval_is_accepted_by_guard_and_folder_check(subject: Subject, tmp_path: Path) -> None:
    value = subject.attestation()
    subject.carry(value)
    subject.stand.client.set_registered_model_alias(subject.version.name, "champion", "2")

    assert verified_folder(subject.folder, value, subject.stand.public, revocations=listed(subject.stand, tmp_path))


def test_without_a_list_a_folder_check_says_what_it_cannot_know(subject: Subject, tmp_path: Path) -> None:
    value = TAMPERED["restored after its revocation"](subject, tmp_path)
    verifier = Verifier.from_file(subject.stand.public)

    blind = FolderCheck(verifier).folder(subject.folder, value)
    known = KnownRevocations(opened(verifier, listed(subject.stand, tmp_path).read_bytes()))
    told = FolderCheck(verifier, revocations=known).folder(subject.folder, value)

    assert (blind.verified, blind.revocations) == (
        True,
        "no list of revocations was given, so one made since cannot be known here",
    )
    assert [reason.split(": ", 1)[1] for reason in told.reasons] == ["measured with a broken suite"]


def test_the_mark_of_a_revocation_stays_whoever_asks(subject: Subject, tmp_path: Path) -> None:
    TAMPERED["restored after its revocation"](subject, tmp_path)
    stand, version = subject.stand, subject.version
    mark = stand.client.get_model_version(version.name, "2").tags[TAG_REVOKED]
    other = stand.target()
    stand.client.set_model_version_tag(other.name, "1", TAG_REVOKED, mark)

    for act in (
        lambda: stand.client.delete_model_version_tag(version.name, "2", TAG_REVOKED),
        lambda: stand.client.set_model_version_tag(version.name, "2", TAG_REVOKED, "none"),
    ):
        with pytest.raises(MlflowException, match="a revocation is never taken back"):
            act()
    stand.client.delete_model_version_tag(other.name, "1", TAG_REVOKED)
    assert stand.client.get_model_version(version.name, "2").tags[TAG_REVOKED] == mark


def test_a_revocation_removed_from_the_database_is_written_again_and_the_promotion_undone(
    subject: Subject, tmp_path: Path
) -> None:
    stand = subject.stand
    old = TAMPERED["restored after its revocation"](subject, tmp_path)
    stand.unguarded.delete_model_version_tag(subject.version.name, "2", TAG_REVOKED)
    subject.carry(old)
    # Nothing on the version tells the guard any more, and it has no list: this is what the reconciler is for.
    stand.client.set_registered_model_alias(subject.version.name, "champion", "2")

    stand.sweep(times=2)

    assert stand.leads(subject.version.name)["champion"] == "1"
    tags = stand.client.get_model_version(subject.version.name, "2").tags
    assert (TAG_REVOKED in tags, tags[TAG_ATTESTATION]) == (True, "none")
