"""Policies from YAML files: loaded strictly, each message with file and line, and chosen by their CEL ``match``."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import cel
import structlog
from pydantic import BaseModel, ValidationError

from gate.adapters.marked_yaml import MarkedYaml, Place, read_marked
from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.evidence import DefectCode, Name, Plan
from gate.domain.policy import OnApproved, Policy, PolicySet, Protected, Rule
from gate.domain.verdict import Enforcement
from gate.domain.vocabulary import SHOWN_ONLY

SHIPPED = Path(__file__).resolve().parents[2] / "policies"
DEFAULT = SHIPPED / "default.yaml"
SCHEMA_ID = "https://basin-gate.dev/schemas/policy/v1"
KEYS: Mapping[str, type[BaseModel]] = {
    "": Policy,
    "rules": Rule,
    "protected": Protected,
    "on_approved": OnApproved,
    "plan": Plan,
}
RANGES: Mapping[Name, tuple[float | None, float | None]] = {
    Name.CHANGED_FRACTION: (0, 1),
    Name.WORST_CASE_ALIGNMENT: (-1, 1),
    Name.SCORE: (0, 1),
    Name.RETENTION: (-1, 1),
    Name.RETENTION_RANDOM: (-1, 1),
    Name.DISPLACEMENT_NORM: (0, None),
    Name.DISPLACEMENT_RMS: (0, None),
    Name.DISPLACEMENT_RELATIVE: (0, None),
    Name.BASIN_SIGMA: (0, None),
    Name.BASIN_POSITION: (0, None),
    Name.HEADROOM: (0, None),
    Name.FORWARD_KL_FIRST_TOKEN: (0, None),
    Name.FORWARD_KL_FIRST_FIVE: (0, None),
    Name.FORWARD_KL: (0, None),
    Name.GREEDY_AGREEMENT: (0, 1),
    Name.OVERLAP_BOUND: (0, 1),
    Name.LOSS_INCREASE_OF_WORST: (None, 1),
}
SHAPES = {
    "missing": "expected it, found nothing; add it",
    "too_short": "expected at least one rule, found none; an empty policy would approve everything",
    "tuple_type": "expected a list, found a single value; write each item on a line of its own after a dash",
    "model_type": "expected keys and values, found a text or a list; see policies/default.yaml",
}
log = structlog.get_logger(__name__)


def load_policies(path: Path | None = None) -> PolicySet:
    """The policies of a file or of a folder's ``*.yaml``; without a path the shipped ``default.yaml``.

    They are asked in the order of their file names, but one that matches each version is asked last, and
    only one such may be there. ``InvalidInput`` says file, line, what was expected and found, and what to do.
    """
    files = policy_files(DEFAULT if path is None else path)
    loaded = [(file, load_policy(file)) for file in files]
    _refuse_shadowed(loaded)
    in_order = sorted((policy for _, policy in loaded), key=_catches_all)
    return PolicySet(policies=tuple(in_order))


def load_policy(file: Path) -> Policy:
    """The policy of one file."""
    document = read_marked(file)
    _refuse_unknown(document)
    _refuse_booleans(document, document.value, ())
    try:
        policy = Policy.model_validate(document.value)
    except ValidationError as error:
        raise InvalidInput("\n".join(_explanations(document, error))) from error
    _refuse_impossible(document, policy)
    _refuse_bad_match(document, policy)
    return policy


def select_policy(policies: PolicySet, version: ModelVersion) -> Policy | None:
    """The first policy whose ``match`` holds for a version, or ``None`` where none speaks of it.

    A ``match`` that cannot be computed for this version holds: an error must not take a version out of the gate.
    """
    return next((p for p in policies.policies if _matches(p, version)), None)


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **Policy.model_json_schema(),
        "title": "Basin Gate policy",
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


def _catches_all(policy: Policy) -> bool:
    return policy.match.strip() == "true"


def _refuse_shadowed(loaded: Iterable[tuple[Path, Policy]]) -> None:
    names: dict[str, Path] = {}
    catching: Path | None = None
    for file, policy in loaded:
        if policy.name in names:
            raise InvalidInput(
                f"{file}: expected names that differ, found '{policy.name}' in {names[policy.name]} too; rename one"
            )
        names[policy.name] = file
        if _catches_all(policy) and catching:
            raise InvalidInput(
                f'{file}: expected one policy with match: "true", found another in {catching}; narrow one of them'
            )
        catching = file if _catches_all(policy) else catching


def _refuse_unknown(document: MarkedYaml) -> None:
    """Misspelt words, found here rather than by the schema so that the message can say which was meant."""
    if not isinstance(document.value, dict):
        raise InvalidInput(
            f"{document.file}:1: expected keys and values, found {_shown(document.value)}; see default.yaml"
        )
    _check_words(document, (), document.value, KEYS[""].model_fields, "key")
    for part in ("protected", "on_approved", "plan"):
        _check_words(document, (part,), document.value.get(part), KEYS[part].model_fields, "key")
    _check_words(document, ("defects",), document.value.get("defects"), list(DefectCode), "defect")
    for code, enforcement in _items(document.value.get("defects")):
        _check_word(document, ("defects", code), enforcement, list(Enforcement), "enforcement")
    rules = document.value.get("rules")
    for i, rule in enumerate(rules if isinstance(rules, list) else []):
        _check_words(document, ("rules", i), rule, KEYS["rules"].model_fields, "key")
        if not isinstance(rule, dict):
            continue
        # What is shown only is refused later, by the rule itself and with the reason.
        if rule.get("measurement") not in (None, *SHOWN_ONLY):
            ruled = [name for name in Name if name not in SHOWN_ONLY]
            _check_word(document, ("rules", i, "measurement"), rule["measurement"], ruled, "measurement")
        if "enforcement" in rule:
            _check_word(document, ("rules", i, "enforcement"), rule["enforcement"], list(Enforcement), "enforcement")


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _check_words(document: MarkedYaml, place: Place, value: Any, known: Iterable[str], what: str) -> None:
    for key, _ in _items(value):
        _check_word(document, (*place, key), key, known, what)


def _check_word(document: MarkedYaml, place: Place, word: Any, known: Iterable[str], what: str) -> None:
    words = [str(k) for k in known]
    if word in words:
        return
    close = get_close_matches(str(word), words, n=1)
    advice = f"did you mean '{close[0]}'?" if close else "remove or correct it"
    raise InvalidInput(
        f"{document.file}:{document.line(place)}: expected a known {what} ({', '.join(words)}), "
        f"found {_shown(word)}; {advice}"
    )


def _refuse_booleans(document: MarkedYaml, value: Any, place: Place) -> None:
    """YAML reads ``true``, ``yes`` and ``on`` as booleans, and a boolean would pass for the number 1."""
    if isinstance(value, bool) and place != ("plan", "stop_when_decided"):
        raise InvalidInput(
            f"{document.file}:{document.line(place)}: {_named(place)}: expected a text or a number, "
            f"found the boolean {str(value).lower()}; write the number, or put the text in quotes"
        )
    parts = enumerate(value) if isinstance(value, list) else _items(value)
    for key, part in parts:
        _refuse_booleans(document, part, (*place, key))


def _refuse_impossible(document: MarkedYaml, policy: Policy) -> None:
    for i, rule in enumerate(policy.rules):
        key = "at_least" if rule.at_most is None else "at_most"
        limit = rule.at_least if rule.at_most is None else rule.at_most
        if isinstance(limit, str) or limit is None:
            continue
        low, high = RANGES.get(rule.measurement, (None, None))
        outside = (low is not None and limit < low) or (high is not None and limit > high)
        idle = limit == (low if key == "at_least" else high)
        if outside or idle:
            found = f"{limit:g}, which it always meets" if idle else f"{limit:g}"
            raise InvalidInput(
                f"{document.file}:{document.line(('rules', i, key))}: rule {rule.name}: {rule.measurement} lies in "
                f"{_range(low, high)}; expected a limit that can be met and missed, found {key}: {found}"
            )


def _range(low: float | None, high: float | None) -> str:
    return f"{'−∞' if low is None else f'{low:g}'} … {'∞' if high is None else f'{high:g}'}"


def _explanations(document: MarkedYaml, error: ValidationError) -> Iterable[str]:
    """One line for each wrong place: pydantic also reports each branch of a union, and a list whose items failed."""
    first_at: dict[Place, str] = {}
    for each in error.errors():
        place: Place = tuple(each["loc"])
        while place and place not in document.lines and each["type"] != "missing":
            place = place[:-1]
        if each["type"] != "too_short" or not each["input"]:
            first_at.setdefault(place, _explain(document, place, each["type"], each["msg"], each["input"]))
    return first_at.values()


def _explain(document: MarkedYaml, place: Place, kind: str, message: str, found: Any) -> str:
    where = f"{document.file}:{document.line(place)}"
    if kind == "value_error":
        return f"{where}: {message.removeprefix('Value error, ')}"
    expected = SHAPES.get(kind)
    if expected:
        return f"{where}: {_named(place)}: {expected}"
    return f"{where}: {_named(place)}: {message[:1].lower()}{message[1:]}, found {_shown(found)}"


def _named(place: Place) -> str:
    return ".".join(str(part) for part in place) or "the policy"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_bad_match(document: MarkedYaml, policy: Policy) -> None:
    where = f"{document.file}:{document.line(('match',))}"
    example = "write for example: version.name.startsWith('prod-')"
    probe = _context(ModelVersion(name="m", version="1", created_ms=0, source="s"))
    for fact in re.findall(r"\bversion\.(\w+)", policy.match):
        _check_word(document, ("match",), fact, probe["version"], "fact of version")
    try:
        answer = _program(policy.match).execute(probe)
    except LookupError:
        return  # a tag that this version lacks: other versions may have it
    except Exception as error:
        problem = re.split(r" expecting |\. ", str(error).splitlines()[0])[0]
        raise InvalidInput(f"{where}: match: expected a CEL expression, found: {problem}; {example}") from error
    if not isinstance(answer, bool):
        raise InvalidInput(f"{where}: match: expected true or false, found {_shown(answer)}; {example}")


def _matches(policy: Policy, version: ModelVersion) -> bool:
    try:
        answer = _program(policy.match).execute(_context(version))
    except Exception as error:  # whatever the expression does wrong, the policy holds
        log.warning(
            "policy match failed, the policy applies", policy=policy.name, version=version.uri, error=str(error)
        )
        return True
    return answer is not False


def _context(version: ModelVersion) -> dict[str, Any]:
    facts = {"name": version.name, "version": version.version, "source": version.source, "tags": dict(version.tags)}
    return {"version": facts}


@lru_cache(maxsize=256)
def _program(expression: str) -> Any:
    return cel.compile(expression)
