"""Loading policies: what is refused and in which words, and which policy is asked about which version."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from builders import a_version

from gate.adapters.policy_files import DEFAULT, SHIPPED, load_policies, load_policy, policy_schema, select_policy
from gate.domain.errors import InvalidInput

GOLDEN = Path(__file__).parents[1] / "golden" / "policies"
BAD = {p["case"]: p for p in yaml.safe_load((GOLDEN / "refused.yaml").read_text())}
GOOD = """\
name: {name}
match: {match}
rules:
  - name: kept
    measurement: retention
    capability: "*"
    at_least: margin
    reason: keep it
"""


def write(folder: Path, file: str, name: str, match: str) -> Path:
    path = folder / file
    path.write_text(GOOD.format(name=name, match=json.dumps(match)))
    return path


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_a_policy_that_cannot_mean_what_it_says_is_refused_with_its_line(case: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(case["policy"])

    with pytest.raises(InvalidInput) as refused:
        load_policies(tmp_path / "policy.yaml")

    assert str(refused.value).replace(f"{tmp_path}/", "") == case["message"]


def test_the_shipped_policies_load_and_without_a_path_the_default_holds() -> None:
    assert [p.name for p in load_policies().policies] == ["default"]
    assert load_policies() == load_policies(DEFAULT)
    assert load_policy(SHIPPED / "observe.yaml").enforcement == "dry_run"


def test_only_enforcing_policies_protect_anything() -> None:
    assert load_policies().protected.aliases == ("approved", "champion", "production")
    assert load_policies(SHIPPED / "observe.yaml").protected.aliases == ()


def test_observe_has_the_default_policys_rules() -> None:
    default, observe = load_policy(DEFAULT), load_policy(SHIPPED / "observe.yaml")

    assert observe.rules == default.rules
    assert observe.protected == default.protected
    assert observe.on_approved.alias is None


def test_the_schema_in_the_repository_is_the_codes() -> None:
    current = json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"

    assert (SHIPPED / "schema.json").read_text() == current, (
        "write it again: python -c 'import json; from gate.adapters.policy_files import policy_schema as s; "
        "print(json.dumps(s(), indent=2, ensure_ascii=False))' > policies/schema.json"
    )


@pytest.mark.parametrize("file", ["default.yaml", "observe.yaml"])
def test_the_shipped_policies_follow_the_schema(file: str) -> None:
    jsonschema.validate(yaml.safe_load((SHIPPED / file).read_text()), policy_schema())


def test_the_schema_refuses_a_misspelt_key() -> None:
    document = yaml.safe_load(DEFAULT.read_text()) | {"rulez": []}

    with pytest.raises(jsonschema.ValidationError, match="rulez"):
        jsonschema.validate(document, policy_schema())


def test_the_digest_changes_with_a_limit_and_not_with_a_comment(tmp_path: Path) -> None:
    text = DEFAULT.read_text()
    commented, changed = tmp_path / "a.yaml", tmp_path / "b.yaml"
    commented.write_text(f"# a word\n{text}")
    changed.write_text(text.replace("at_most: 0.03", "at_most: 0.04"))

    assert load_policy(commented).digest == load_policy(DEFAULT).digest != load_policy(changed).digest


def test_in_a_folder_the_file_names_order_policies_and_the_catch_all_is_asked_last(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "rest", "true")
    write(tmp_path, "b.yaml", "llms", "version.name.startsWith('llm-')")
    write(tmp_path, "c.yml", "chat", "version.name.contains('chat')")
    (tmp_path / "notes.txt").write_text("not a policy")
    policies = load_policies(tmp_path)

    assert [p.name for p in policies.policies] == ["llms", "chat", "rest"]
    asked = {n: select_policy(policies, a_version(name=n)) for n in ("llm-chat", "my-chat", "other")}
    assert {n: p and p.name for n, p in asked.items()} == {"llm-chat": "llms", "my-chat": "chat", "other": "rest"}


@pytest.mark.parametrize(
    ("second", "message"),
    [(("same", "version.name == 'b'"), "found 'same' in"), (("other", "true"), "expected one policy with match")],
)
def test_two_policies_that_hide_one_another_are_refused(tmp_path: Path, second: tuple[str, str], message: str) -> None:
    write(tmp_path, "a.yaml", "same", "true")
    write(tmp_path, "b.yaml", *second)

    with pytest.raises(InvalidInput, match=message):
        load_policies(tmp_path)


@pytest.mark.parametrize("name", ["nothing-here", "empty"])
def test_a_path_without_policies_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(InvalidInput, match=r"(check|unset) GATE_POLICIES"):
        load_policies(tmp_path / name)


def test_a_version_that_no_policy_speaks_of_has_none(tmp_path: Path) -> None:
    policies = load_policies(write(tmp_path, "a.yaml", "llms", "version.name.startsWith('llm-')"))

    assert select_policy(policies, a_version(name="sklearn")) is None


@pytest.mark.parametrize(
    ("match", "tags", "applies"),
    [
        ("has(version.tags.team) && version.tags.team == 'nlp'", {"team": "nlp"}, True),
        ("has(version.tags.team) && version.tags.team == 'nlp'", {"team": "vision"}, False),
        ("'team' in version.tags", {}, False),
        ("version.source.startsWith('models:/m-')", {}, True),
        ("version.version == '3'", {}, True),
    ],
)
def test_match_reads_name_version_source_and_tags(
    tmp_path: Path, match: str, tags: dict[str, str], applies: bool
) -> None:
    policies = load_policies(write(tmp_path, "a.yaml", "some", match))

    assert (select_policy(policies, a_version(tags=tags)) is not None) is applies


@pytest.mark.parametrize("match", ["version.tags.team == 'nlp'", "version.tags['n'] == 1", "version.tags.flag"])
def test_a_match_that_cannot_be_computed_for_a_version_applies_to_it(tmp_path: Path, match: str) -> None:
    policies = load_policies(write(tmp_path, "a.yaml", "some", match))

    for tags in ({}, {"flag": "yes"}):
        assert select_policy(policies, a_version(tags=tags)) is not None
