"""What a real MariaDB takes for the same name, the guard takes for the same name: no spelling reaches a protected one.

MySQL and MariaDB compare without case, accents and trailing spaces. The collations tried are those that are of no
language; Lithuanian's takes ``y`` for ``i``, and the guard does not follow it there.
"""

import json
import string
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest
import sqlalchemy as sa
from approvals import a_key, an_attestation
from databases import MariaDb
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from gate.adapters.policy_files import DEFAULT
from gate.adapters.signing import DsseSigner
from gate.domain.checkpoint import version_identity
from gate.domain.enforcement import TAG_REVOKED
from gate.domain.promotion import same_name
from gate.domain.revocation import REVOCATIONS_TYPE, Revocation, revocation_list
from gate.registry_guard import GuardMixin, guarded_store

COLLATIONS = ("utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci", "utf8mb4_uca1400_ai_ci")
SPELLINGS = ("Champion", "CHÄMPION", "ĉhampion", "chámpiôñ")
"""What each of the collations takes for ``champion``, and MLflow for an alias."""


@pytest.fixture(scope="module", params=["utf8mb4_general_ci", "utf8mb4_uca1400_ai_ci"])
def database(request: pytest.FixtureRequest, mariadb: MariaDb) -> str:
    return mariadb.empty_database(request.param)


@pytest.fixture
def guarded(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuardMixin]:
    """A guarded store with a model whose version 1 is approved and champion, and a protected model."""
    private, public = a_key(tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        DEFAULT.read_text().replace("stages: [Production]", "stages: [Production]\n  registered_models: [prod.llm]")
    )
    monkeypatch.setenv("GATE_TRUSTED_KEYS_FILE", str(public))
    monkeypatch.setenv("GATE_POLICIES", str(policy))
    made = guarded_store(f"gate+{database}")
    made.create_registered_model("held")
    good = made.create_model_version("held", "s3://bucket/good")
    made.create_model_version("held", "s3://bucket/bad")
    identity = version_identity("held", "1", good.creation_timestamp, good.source)
    made.set_model_version_tag("held", "1", ModelVersionTag("gate.vsa", an_attestation(private, identity)))
    made.set_registered_model_alias("held", "champion", "1")
    yield made
    made.delete_registered_model("held")


def leads_to(store: SqlAlchemyStore) -> str:
    return str(store.get_model_version_by_alias("held", "champion").version)


@pytest.mark.parametrize("alias", SPELLINGS)
def test_without_the_guard_a_spelling_moves_the_champion_and_with_it_none_does(
    guarded: GuardMixin, database: str, alias: str
) -> None:
    plain = SqlAlchemyStore(database)
    plain.set_registered_model_alias("held", alias, "2")
    assert leads_to(plain) == "2"
    plain.delete_registered_model_alias("held", alias)
    guarded.set_registered_model_alias("held", "champion", "1")

    with pytest.raises(MlflowException, match=r"^\[basin-gate\] .* is refused: ") as refused:
        guarded.set_registered_model_alias("held", alias, "2")

    assert refused.value.get_http_status_code() == 403
    assert leads_to(guarded) == "1"


@pytest.mark.parametrize("name", ["Prod.LLM", "prod.llm ", "prôd.llm"])
def test_a_version_reaches_a_protected_model_under_no_spelling_of_its_name(guarded: GuardMixin, name: str) -> None:
    with pytest.raises(MlflowException, match="is refused"):
        guarded.create_model_version(name, "models:/held/2")
    with pytest.raises(MlflowException, match="is refused"):
        guarded.rename_registered_model("held", name)


@pytest.mark.parametrize("name", ["HELD", "hèld", "held "])
def test_a_model_spelt_otherwise_is_judged_as_the_one_it_is(guarded: GuardMixin, name: str) -> None:
    with pytest.raises(MlflowException, match="is refused"):
        guarded.set_registered_model_alias(name, "champion", "2")
    with pytest.raises(MlflowException, match="is refused"):
        guarded.transition_model_version_stage(name, "2", "Production", False)

    assert leads_to(guarded) == "1"


@pytest.fixture(scope="module")
def words(mariadb: MariaDb) -> Iterator[sa.Connection]:
    """Every character that an alias may have, and every text of up to three letters that one could stand for."""
    letters = string.ascii_lowercase
    short = [
        *letters,
        *string.digits,
        *map("".join, product(letters, repeat=2)),
        *map("".join, product(letters, repeat=3)),
    ]
    characters = [chr(n) for n in range(128, 0x110000) if not 0xD800 <= n < 0xE000 and chr(n).isalnum()]
    engine = sa.create_engine(mariadb.empty_database())
    with engine.begin() as connection:
        fill(connection, "plain", ["", *short])
        fill(connection, "other", characters)
        yield connection
    engine.dispose()


def fill(connection: sa.Connection, table: str, texts: Sequence[str]) -> None:
    connection.exec_driver_sql(f"create table {table} (text varchar(8) character set utf8mb4 collate utf8mb4_bin)")
    for start in range(0, len(texts), 5000):
        some = texts[start : start + 5000]
        connection.exec_driver_sql(f"insert into {table} values {','.join(['(%s)'] * len(some))}", tuple(some))


@pytest.mark.parametrize("collation", COLLATIONS)
def test_whatever_character_a_collation_takes_for_plain_letters_the_guard_does(
    words: sa.Connection, collation: str
) -> None:
    weight = f"hex(weight_string(text collate {collation}))"
    plain: dict[str, list[str]] = defaultdict(list)
    for text, key in words.exec_driver_sql(f"select text, {weight} from plain"):
        plain[key].append(text)
    found = words.exec_driver_sql(f"select text, {weight} from other").all()
    taken = [(character, text) for character, key in found for text in plain.get(key, ())]

    assert len(taken) > 300
    assert [(c, text) for c, text in taken if not same_name(f"q{c}z", f"q{text}z")] == []


def test_a_revocation_is_taken_back_under_no_spelling_of_its_mark(guarded: GuardMixin, tmp_path: Path) -> None:
    version = guarded.get_model_version("held", "1")
    identity = version_identity("held", "1", version.creation_timestamp, version.source)
    entry = Revocation(subject=identity, candidate_digest=None, reason="a broken suite", revoked_at=int(time.time()))
    document = revocation_list((entry,), entry.revoked_at)
    mark = json.dumps(DsseSigner(tmp_path / "gate.pem").sign(document, REVOCATIONS_TYPE))
    guarded.set_model_version_tag("held", "1", ModelVersionTag(TAG_REVOKED, mark))

    for key in ("GATE.revoked", "gâte.revoked", "gate.revokeđ"):
        with pytest.raises(MlflowException, match="never taken back"):
            guarded.set_model_version_tag("held", "1", ModelVersionTag(key, "no"))

    assert guarded.get_model_version("held", "1").tags[TAG_REVOKED] == mark
    with pytest.raises(MlflowException, match="revoked"):
        guarded.set_registered_model_alias("held", "production", "1")
