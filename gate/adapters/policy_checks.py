"""What is refused in a policy's document before and after it is read as one, each with file, line and what to do."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from gate.adapters import conditions
from gate.adapters.marked_yaml import MarkedYaml, Place
from gate.domain.checkpoint import Checkpoint, Layout, Lineage, ModelVersion
from gate.domain.errors import InvalidInput
from gate.domain.evidence import DefectCode, Evidence, Name, Plan
from gate.domain.policy import Budget, OnApproved, OnBlocked, Policy, Protected, Rule
from gate.domain.verdict import Enforcement
from gate.domain.vocabulary import SHOWN_ONLY, extra_of

KEYS: Mapping[str, type[BaseModel]] = {
    "": Policy,
    "rules": Rule,
    "protected": Protected,
    "on_approved": OnApproved,
    "on_blocked": OnBlocked,
    "budget": Budget,
    "plan": Plan,
}
PARTS = [part for part in KEYS if part not in ("", "rules")]
YES_OR_NO = (("plan", "stop_when_decided"), ("on_blocked", "restore"))
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
    Name.COMPLIED: (0, 1),
    Name.INCOHERENT: (0, 1),
    Name.FORWARD_KL_FIRST_TOKEN: (0, None),
    Name.FORWARD_KL_FIRST_FIVE: (0, None),
    Name.FORWARD_KL: (0, None),
    Name.GREEDY_AGREEMENT: (0, 1),
    Name.OVERLAP_BOUND: (0, 1),
    Name.LOSS_INCREASE_OF_WORST: (None, 1),
    Name.CRITICAL_SHARPNESS: (0, None),
    Name.ADAPTIVE_ROBUSTNESS: (0, 1),
    Name.ADAPTIVE_ROBUSTNESS_CHANGE: (-1, 1),
    Name.PRECONDITIONED_ALIGNMENT: (-1, 1),
    Name.STABLE_RANK: (1, None),
    Name.TOP_ENERGY: (0, 1),
    Name.ALIGNMENT_COSINE: (-1, 1),
    Name.ALIGNMENT_SUBSPACE_COSINE: (0, 1),
    Name.ALIGNMENT_SUBSPACE_RATIO: (0, None),
    Name.REFUSAL_DIRECTION_PERCENTILE: (0, 1),
    Name.INPUT_SENSITIVITY: (0, None),
    Name.INPUT_SENSITIVITY_RATIO: (0, None),
    Name.MERGE_RADIUS: (0, None),
    Name.TAMPER_RADIUS: (0, None),
    Name.TAMPER_RADIUS_RATIO: (0, None),
}
SHAPES = {
    "missing": "expected it, found nothing; add it",
    "too_short": "expected at least one rule, found none; an empty policy would approve everything",
    "tuple_type": "expected a list, found a single value; write each item on a line of its own after a dash",
    "model_type": "expected keys and values, found a text or a list; see policies/default.yaml",
}


def refuse_unknown(document: MarkedYaml) -> None:
    """Misspelt words, found here rather than by the schema so that the message can say which was meant."""
    if not isinstance(document.value, dict):
        raise InvalidInput(
            f"{document.file}:1: expected keys and values, found {_shown(document.value)}; see default.yaml"
        )
    _check_words(document, (), document.value, _written(Policy), "key")
    for part in PARTS:
        _check_words(document, (part,), document.value.get(part), KEYS[part].model_fields, "key")
    _check_words(document, ("defects",), document.value.get("defects"), list(DefectCode), "defect")
    for code, enforcement in _items(document.value.get("defects")):
        check_word(document, ("defects", code), enforcement, list(Enforcement), "enforcement")
    rules = document.value.get("rules")
    for i, rule in enumerate(rules if isinstance(rules, list) else []):
        _check_words(document, ("rules", i), rule, KEYS["rules"].model_fields, "key")
        if not isinstance(rule, dict):
            continue
        # What is shown only is refused later, by the rule itself and with the reason.
        if rule.get("measurement") not in (None, *SHOWN_ONLY):
            ruled = [name for name in Name if name not in SHOWN_ONLY]
            check_word(document, ("rules", i, "measurement"), rule["measurement"], ruled, "measurement")
        if "enforcement" in rule:
            check_word(document, ("rules", i, "enforcement"), rule["enforcement"], list(Enforcement), "enforcement")


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _check_words(document: MarkedYaml, place: Place, value: Any, known: Iterable[str], what: str) -> None:
    for key, _ in _items(value):
        check_word(document, (*place, key), key, known, what)


def check_word(document: MarkedYaml, place: Place, word: Any, known: Iterable[str], what: str) -> None:
    words = [str(k) for k in known]
    if word in words:
        return
    close = get_close_matches(str(word), words, n=1)
    advice = f"did you mean '{close[0]}'?" if close else "remove or correct it"
    raise InvalidInput(
        f"{document.file}:{document.line(place)}: expected a known {what} ({', '.join(words)}), "
        f"found {_shown(word)}; {advice}"
    )


def refuse_booleans(document: MarkedYaml, value: Any, place: Place) -> None:
    """YAML reads ``true``, ``yes`` and ``on`` as booleans, and a boolean would pass for the number 1."""
    if (
        isinstance(value, bool)
        and place not in YES_OR_NO
        and not (place[:1] == ("rules",) and place[2:] == ("critical",))
    ):
        raise InvalidInput(
            f"{document.file}:{document.line(place)}: {_named(place)}: expected a text or a number, "
            f"found the boolean {str(value).lower()}; write the number, or put the text in quotes"
        )
    parts = enumerate(value) if isinstance(value, list) else _items(value)
    for key, part in parts:
        refuse_booleans(document, part, (*place, key))


def refuse_impossible(document: MarkedYaml, policy: Policy) -> None:
    for i, rule in enumerate(policy.rules):
        extra = extra_of(rule.measurement)
        if extra is not None and extra not in policy.plan.also:
            raise InvalidInput(
                f"{document.file}:{document.line(('rules', i, 'measurement'))}: rule {rule.name}: {rule.measurement} is "
                f"measured only where the plan asks; expected {extra} in plan.also, "
                f"found {', '.join(policy.plan.also) or 'nothing'}"
            )
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


def explanations(document: MarkedYaml, error: ValidationError) -> Iterable[str]:
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


def refuse_bad_expressions(document: MarkedYaml, policy: Policy) -> None:
    """A ``match`` or ``when`` that is no CEL, names what is not there, or does not say yes or no."""
    version = ModelVersion(name="m", version="1", created_ms=0, source="s")
    about = conditions.facts_of(version)
    _refuse_expression(document, ("match",), policy.match, {"version": about})
    nothing = Evidence(key="0" * 64, candidate=Checkpoint(layout=Layout.UNKNOWN, files=()), lineage=Lineage())
    probe = conditions.facts(nothing, version)
    for i, rule in enumerate(policy.rules):
        if rule.when is not None:
            _refuse_expression(document, ("rules", i, "when"), rule.when, probe)


def refuse_beyond_plan(document: MarkedYaml, policy: Policy) -> None:
    """A ``confidence`` that the policy's own plan does not measure at."""
    for i, rule in enumerate(policy.rules):
        if rule.confidence is not None and policy.plan.alpha > 1 - rule.confidence + 1e-9:
            raise InvalidInput(
                f"{document.file}:{document.line(('rules', i, 'confidence'))}: rule {rule.name}: expected a confidence of "
                f"at most {1 - policy.plan.alpha:g}, which plan.alpha {policy.plan.alpha:g} measures at, found "
                f"{rule.confidence:g}; set plan.alpha to {1 - rule.confidence:.4g} or less"
            )


def _refuse_expression(document: MarkedYaml, place: Place, expression: str, probe: Mapping[str, Any]) -> None:
    key = str(place[-1])
    for root, fact in conditions.facts_named(expression):
        if root in probe:
            check_word(document, place, fact, probe[root], f"fact of {root}")
    if wrong := conditions.problem(expression, key, probe):
        example = "version.name.startsWith('prod-')" if key == "match" else "adapter.kind == 'adapter'"
        raise InvalidInput(
            f"{document.file}:{document.line(place)}: {_named(place)}: {wrong}; write for example: {example}"
        )


def _written(model: type[BaseModel]) -> list[str]:
    """The keys that a document may have: not what only layering fills in."""
    return [key for key in model.model_fields if key != "origins"]
