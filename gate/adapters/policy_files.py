"""Policies from YAML files: loaded strictly, each message with file and line, and chosen by their CEL ``match``."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gate.adapters import policy_checks as checks
from gate.adapters.conditions import matches
from gate.adapters.marked_yaml import MarkedYaml, marked, read_marked
from gate.adapters.policy_layers import layered, own_part, parent_file, parent_in_force, refuse_loosened
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.policy import Policy, PolicySet

SHIPPED = Path(__file__).resolve().parents[2] / "policies"
DEFAULT = SHIPPED / "default.yaml"
DRAFT = Path("draft.yaml")
"""What messages call a text that is in no file."""
SCHEMA_ID = "https://basin-gate.dev/schemas/policy/v1"


def load_policies(path: Path | None = None) -> PolicySet:
    """The policies of a file or of a folder's ``*.yaml``; without a path the shipped ``default.yaml``.

    A policy of a lower layer is asked before those it tightens; else they are asked in the order of their file names,
    but one that matches each version is asked last, and only one such may be there. ``InvalidInput`` says file, line,
    what was expected and found, and what to do.
    """
    files = policy_files(DEFAULT if path is None else path)
    loaded = [(file, load_policy(file)) for file in files]
    _refuse_shadowed(loaded)
    return _in_order(policy for _, policy in loaded)


def load_policy(file: Path) -> Policy:
    """The policy of one file, with what it inherits from the policies in the same folder that it names as its parents."""
    return _loaded(file, ())


def load_draft(text: str, policies: PolicySet) -> Policy:
    """The policy of a text that is in no file, as it would be loaded beside the policies in force."""
    own = marked(DRAFT, text)
    _refuse_unreadable(own)
    return _assembled(own, parent_in_force(own, policies))


def policy_text(policy: Policy, policies: PolicySet) -> str:
    """A policy in force as a document from which it would be loaded again, without the comments that its file may have.

    One without a parent says what differs from the defaults, one with a parent what differs from that one.
    """
    parent = next((each for each in policies.policies if each.name == policy.parent), None)
    document = policy.model_dump(mode="json", exclude={"origins"}, exclude_defaults=parent is None)
    document["enforcement"] = policy.enforcement
    if parent is not None:
        document = own_part(policy, document, parent)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def with_draft(draft: Policy, policies: PolicySet) -> PolicySet:
    """The policies as they would be with a draft among them. It takes the place of the one of its name, or of its ``match``."""
    replaced = [each.name == draft.name or _match(each) == _match(draft) for each in policies.policies]
    kept = [each for each, gone in zip(policies.policies, replaced, strict=True) if not gone]
    place = replaced.index(True) if any(replaced) else 0
    return _in_order([*kept[:place], draft, *kept[place:]])


def select_policy(policies: PolicySet, version: ModelVersion) -> Policy | None:
    """The first policy whose ``match`` holds for a version, or ``None`` where none speaks of it.

    A ``match`` that cannot be computed for this version holds: an error must not take a version out of the gate.
    """
    return next((p for p in policies.policies if matches(p, version)), None)


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **Policy.model_json_schema(),
        "title": "Basin Gate policy",
        "required": ["name"],
        "anyOf": [{"required": ["rules"]}, {"required": ["parent"]}],
    }


def policy_files(path: Path) -> list[Path]:
    """The policy files that a path stands for: itself, or those of a folder by name."""
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix in (".yaml", ".yml") and f.is_file())
        if not files:
            raise InvalidInput(f"{path}: expected *.yaml policies, found none; put one there or unset GATE_POLICIES")
        return files
    if not path.is_file():
        raise InvalidInput(f"{path}: expected a policy file or folder, found nothing; check GATE_POLICIES")
    return [path]


def policy_sources(path: Path) -> list[Path]:
    """Every file that the policies of a path may be read from: parents stand in the same folder."""
    folder = path if path.is_dir() else path.parent
    return [path, *sorted(folder.glob("*.y*ml"))]


def _loaded(file: Path, above: tuple[Path, ...]) -> Policy:
    """The policy of a file; ``above`` are the files that led here by naming their parents."""
    own = read_marked(file)
    _refuse_unreadable(own)
    found = parent_file(own, above)
    return _assembled(own, _loaded(found, (*above, file)) if found is not None else None)


def _refuse_unreadable(own: MarkedYaml) -> None:
    checks.refuse_unknown(own)
    checks.refuse_booleans(own, own.value, ())


def _assembled(own: MarkedYaml, parent: Policy | None) -> Policy:
    """The policy of a document and of the one above it."""
    document = own if parent is None else replace(own, value=layered(own, parent))
    policy = _read(document)
    checks.refuse_impossible(document, policy)
    checks.refuse_bad_expressions(document, policy)
    checks.refuse_beyond_plan(document, policy)
    if parent is not None:
        refuse_loosened(document, parent, policy)
    return policy


def _read(document: MarkedYaml) -> Policy:
    try:
        return Policy.model_validate({"enforcement": "dry_run", **document.value})
    except ValidationError as error:
        raise InvalidInput("\n".join(checks.explanations(document, error))) from error


def _depth(policy: Policy) -> int:
    return ("organisation", "team", "model").index(policy.layer) if policy.layer else 0


def _in_order(policies: Iterable[Policy]) -> PolicySet:
    return PolicySet(policies=tuple(sorted(policies, key=lambda p: (_catches_all(p), -_depth(p)))))


def _match(policy: Policy) -> str:
    return " ".join(policy.match.split())


def _catches_all(policy: Policy) -> bool:
    return policy.match.strip() == "true"


def _refuse_shadowed(loaded: Iterable[tuple[Path, Policy]]) -> None:
    names: dict[str, Path] = {}
    asked: dict[str, Path] = {}
    for file, policy in loaded:
        if policy.name in names:
            raise InvalidInput(
                f"{file}: expected names that differ, found '{policy.name}' in {names[policy.name]} too; rename one"
            )
        names[policy.name] = file
        expression = _match(policy)
        if expression in asked:
            raise InvalidInput(
                f'{file}: expected one policy with match: "{expression}", found another in {asked[expression]}; '
                "narrow one of them"
            )
        asked[expression] = file
