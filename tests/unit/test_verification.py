"""Verifying folders offline: what is proven by a signature over every byte, and what is refused."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from approvals import a_key, an_attestation
from builders import a_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gate.adapters.folder_digests import DigestCache, folder_digests
from gate.adapters.policy_files import DEFAULT, load_policies
from gate.adapters.signing import DsseSigner
from gate.cli import app
from gate.domain.attestation import PAYLOAD_TYPE
from gate.domain.checkpoint import FileDigest, ModelVersion, digest_of
from gate.domain.errors import InvalidInput, Unverified
from gate.domain.reference import parse_reference
from gate.domain.verdict import Outcome
from gate.domain.verification import SIDECAR
from gate.verify import verified_folder

FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000, "tokenizer/vöcab.txt": b"a\nb\n"}
VERSION = ModelVersion(name="help desk", version="7", created_ms=1, source="models:/m-1")


class Signed:
    """A folder of files, the gate's keys, and attestations of what lies in the folder now."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "files"
        self.private, self.keys = a_key(root)
        for path, content in FILES.items():
            self.write(path, content)

    def write(self, path: str, content: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)

    def attestation(self, **changes: object) -> str:
        candidate = a_checkpoint(files=folder_digests(self.folder))
        return an_attestation(self.private, VERSION.identity, candidate, **changes)

    def refusal(self, attestation: str, **kwargs: str) -> str:
        with pytest.raises(Unverified) as refused:
            verified_folder(self.folder, attestation, self.keys, **kwargs)
        return str(refused.value)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def test_exactly_the_judged_files_are_verified(signed: Signed) -> None:
    summary = verified_folder(signed.folder, signed.attestation(), signed.keys)

    assert summary.passed
    assert summary.resource_uri == VERSION.identity
    assert set(summary.subjects) == set(FILES)


def test_a_folder_can_carry_its_own_attestation(signed: Signed) -> None:
    signed.write(SIDECAR, signed.attestation().encode())

    assert verified_folder(signed.folder, None, signed.keys).policy == "default"


def test_a_folder_without_an_attestation_cannot_be_verified(signed: Signed) -> None:
    with pytest.raises(InvalidInput, match="name its file with --attestation"):
        verified_folder(signed.folder, None, signed.keys)


@pytest.mark.parametrize("path", FILES)
def test_any_changed_byte_voids_the_approval(signed: Signed, path: str) -> None:
    attestation = signed.attestation()
    content = bytearray(FILES[path])
    content[-1] ^= 1
    signed.write(path, bytes(content))

    assert signed.refusal(attestation).endswith(f"{path} was changed since it was judged")


def test_missing_and_added_files_are_each_named(signed: Signed) -> None:
    attestation = signed.attestation()
    (signed.folder / "config.json").rename(signed.folder / "adapter_config.json")

    refused = signed.refusal(attestation)
    assert "config.json was judged and is missing" in refused
    assert "adapter_config.json was never judged" in refused


def test_the_names_in_a_long_refusal_are_few(signed: Signed) -> None:
    attestation = signed.attestation()
    for number in range(40):
        signed.write(f"extra/{number:02}", b"x")

    refused = signed.refusal(attestation)
    assert "and 35 more files: each was never judged" in refused
    assert refused.count("was never judged") == 6


def test_a_link_is_refused_wherever_it_leads(signed: Signed) -> None:
    attestation = signed.attestation()
    (signed.folder / "config.json").unlink()
    (signed.folder / "config.json").symlink_to(signed.folder / "model.safetensors")
    assert "expected a plain file, found a link" in signed.refusal(attestation)

    (signed.folder / "config.json").unlink()
    signed.write("config.json", FILES["config.json"])
    (signed.folder / "elsewhere").symlink_to(signed.folder.parent, target_is_directory=True)
    assert "expected a plain file, found a link" in signed.refusal(attestation)


def test_only_an_approval_in_force_by_a_trusted_key_counts(signed: Signed, tmp_path: Path) -> None:
    past = int(time.time()) - 1
    stranger, _ = a_key(tmp_path, "stranger")
    theirs = DsseSigner(stranger).sign(b"{}", PAYLOAD_TYPE)

    assert "blocked by policy default" in signed.refusal(signed.attestation(outcome=Outcome.BLOCKED))
    assert "needs review by policy" in signed.refusal(signed.attestation(outcome=Outcome.NEEDS_REVIEW))
    assert "its approval expired" in signed.refusal(signed.attestation(expires_at=past))
    assert "expected a signature by a trusted key" in signed.refusal(json.dumps(theirs))
    assert "expected a DSSE envelope" in signed.refusal("approved")


def test_an_approval_of_another_version_does_not_count_where_one_is_expected(signed: Signed) -> None:
    attestation = signed.attestation()

    assert verified_folder(signed.folder, attestation, signed.keys, expect="models:/help desk/7").passed
    assert "expected an attestation of models:/help%20desk/8" in signed.refusal(
        attestation, expect="models:/help desk/8"
    )


def test_files_too_many_to_list_are_verified_by_the_digest_over_all(signed: Signed) -> None:
    for number in range(400):
        signed.write(f"shards/{'long-name-' * 5}{number:04}", str(number).encode())
    attestation = signed.attestation()

    summary = verified_folder(signed.folder, attestation, signed.keys)
    assert list(summary.subjects) == ["403 files"]
    signed.write("config.json", b"[]")
    assert "expected 403 files with sha256" in signed.refusal(attestation)


def test_a_verdict_on_no_files_approves_no_files(signed: Signed) -> None:
    assert "speaks of no files" in signed.refusal(signed.attestation(candidate_digest=None))


def test_the_digests_are_those_of_a_plain_reading(signed: Signed) -> None:
    expected = [FileDigest(path=p, sha256=hashlib.sha256(c).hexdigest(), size=len(c)) for p, c in sorted(FILES.items())]
    assert list(folder_digests(signed.folder)) == expected
    assert digest_of(expected) == digest_of(reversed(expected))


def test_a_folder_that_cannot_be_read_is_an_error_and_no_verdict(signed: Signed) -> None:
    for place in (signed.folder / "absent", signed.folder / "config.json"):
        with pytest.raises(InvalidInput, match="expected a folder"):
            folder_digests(place)


def test_a_cache_is_asked_for_files_left_alone_only(signed: Signed, tmp_path: Path) -> None:
    file = tmp_path / "cache"
    first = folder_digests(signed.folder, cache=DigestCache(file))
    # An interrupted run leaves half a line behind.
    file.write_text(file.read_text().replace(first[0].sha256, "0" * 64).rstrip() + '\n{"path": "/x", "sta')
    believed = folder_digests(signed.folder, cache=DigestCache(file))
    (signed.folder / first[0].path).write_bytes(b"[]")
    again = folder_digests(signed.folder, cache=DigestCache(file))

    assert [f.sha256 for f in believed] == ["0" * 64, *(f.sha256 for f in first[1:])]
    assert again == folder_digests(signed.folder)
    assert again == folder_digests(signed.folder, cache=DigestCache(file))


def test_a_cache_inside_the_folder_is_refused(signed: Signed) -> None:
    with pytest.raises(InvalidInput, match="expected the cache outside"):
        folder_digests(signed.folder, cache=DigestCache(signed.folder / "cache"))


@pytest.mark.parametrize(
    ("text", "name", "version", "alias"),
    [
        ("models:/a/3", "a", "3", None),
        ("models:/help desk – 模型 ✓@champion", "help desk – 模型 ✓", None, "champion"),
        ("models:/a@b/3", "a@b", "3", None),
        ("models:/a@b@c", "a@b", None, "c"),
    ],
)
def test_a_reference_names_a_version_or_an_alias(text: str, name: str, version: str | None, alias: str | None) -> None:
    found = parse_reference(text)
    assert (found.name, found.version, found.alias) == (name, version, alias)


@pytest.mark.parametrize(
    "text",
    [
        *("models:/a", "models:/a/latest", "models:/a/Production", "models:/m-0123456789abcdef", "models:/a/03"),
        *("models:/a/3?x", "models:/a?/b/3", "models:/a\t/3", "models:/a/٣", "models:/a/3/", "models://p@b/a/3"),
        *("Models:/a/3", "models:///a/3", "models:/a/3\n", "runs:/1/model", "models:/a/0", "models:/@x", ""),
    ],
)
def test_what_could_mean_another_version_to_mlflow_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected models:/NAME/VERSION"):
        parse_reference(text)


@given(st.text(max_size=30))
def test_no_text_makes_the_reading_of_references_crash(text: str) -> None:
    try:
        found = parse_reference(f"models:/{text}")
    except InvalidInput:
        return
    assert (found.version is None) != (found.alias is None)


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_the_command_answers_by_its_status(signed: Signed, tmp_path: Path) -> None:
    file = tmp_path / "attestation.json"
    file.write_text(signed.attestation(policy_digest=load_policies().policies[0].digest))
    given_ = (signed.folder, "--attestation", file, "--keys", signed.keys)

    assert run(*given_)[0] == 0
    assert run(*given_, "--policy", DEFAULT, "--expect", "models:/help desk/7", "--cache", tmp_path / "c")[0] == 0
    other = tmp_path / "other.yaml"
    other.write_text(DEFAULT.read_text().replace("validity_days: 90", "validity_days: 91"))
    status, shown = run(*given_, "--policy", other)
    assert (status, "another text of policy default" in shown) == (1, True)
    signed.write("config.json", b"[]")
    assert run(*given_) == (1, f"refused: {signed.folder}\n  config.json was changed since it was judged\n")


def test_the_command_tells_everything_as_json(signed: Signed) -> None:
    signed.write(SIDECAR, signed.attestation().encode())
    status, shown = run(signed.folder, "--keys", signed.keys, "--json")
    told = json.loads(shown)

    assert (status, told["verified"], told["files"], told["reasons"]) == (0, True, 3, [])
    assert told["summary"]["resource_uri"] == VERSION.identity


def test_the_command_ends_with_2_where_nothing_could_be_decided(signed: Signed, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "gate", "verify", str(signed.folder), "--keys")
    for keys, told in ((tmp_path / "absent.pem", "readable key file"), (signed.keys, "--attestation")):
        ended = subprocess.run((*command, str(keys)), capture_output=True, text=True, check=False)
        assert (ended.returncode, told in " ".join(ended.stderr.split())) == (2, True)


def test_a_loader_needs_neither_mlflow_nor_a_service_nor_torch(signed: Signed) -> None:
    signed.write(SIDECAR, signed.attestation().encode())
    absent = ("alembic", "celery", "fastapi", "mlflow", "redis", "sqlalchemy", "torch", "transformers", "uvicorn")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r})); from pathlib import Path\n"
        "from gate.verify import verified_folder\n"
        f"print(verified_folder(Path({str(signed.folder)!r}), None, Path({str(signed.keys)!r})).outcome)\n"
        "import gate.cli; gate.cli.main()\n"
    )
    command = (sys.executable, "-c", code, "verify", str(signed.folder), "--keys", str(signed.keys))
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "300"})

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("approved\nverified: ")
