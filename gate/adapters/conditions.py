"""CEL in policies: ``match`` over what a version says of itself, ``when`` over facts that no measurement can move.

Expressions are compiled once. Only texts and finite numbers reach them, and never an estimate: a rule that a worse
number could switch off would let a worse candidate through.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cel
import structlog

from gate.domain.checkpoint import ModelVersion
from gate.domain.evidence import Evidence
from gate.domain.lineage import BASE_TAG
from gate.domain.policy import Policy

ADAPTER_KIND_TAG = "adapter_kind"
"""The tag by which whoever registers a version says which kind of adapter it is; what it is, ``when`` can ask."""
SUBMITTER_TAG = "mlflow.user"
"""The tag that names who registered a version; MLflow itself keeps nobody's name on a version."""
ROOTS = {"match": ("version",), "when": ("version", "base", "adapter", "evidence")}
_FACT = re.compile(r"\b(version|base|adapter|evidence)\.(\w+)")
_TEXT = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
log = structlog.get_logger(__name__)


def facts_of(version: ModelVersion) -> dict[str, Any]:
    """What a version says of itself; ``base``, ``adapter_kind`` and ``submitter`` are empty where it does not."""
    return {
        "name": version.name,
        "version": version.version,
        "source": version.source,
        "base": version.tags.get(BASE_TAG, ""),
        "adapter_kind": version.tags.get(ADAPTER_KIND_TAG, ""),
        "submitter": version.tags.get(SUBMITTER_TAG, ""),
        "tags": dict(version.tags),
    }


def facts(evidence: Evidence, version: ModelVersion | None = None) -> dict[str, Any]:
    """What a ``when`` is asked over; without a version (a folder) nothing is known of one."""
    candidate = evidence.candidate
    numbers = {
        "parameters": candidate.parameters,
        "files": len(candidate.files),
        "bytes": sum(file.size for file in candidate.files),
        "capabilities": len(evidence.capabilities),
    }
    return {
        "version": facts_of(version) if version is not None else {},
        "base": {"name": evidence.base_name or "", "digest": evidence.base_digest or "", "suite": evidence.suite},
        "adapter": {"kind": str(candidate.layout), "dtype": candidate.dtype},
        "evidence": {name: float(number) for name, number in numbers.items() if math.isfinite(number)},
    }


def idle_rules(policy: Policy, evidence: Evidence, version: ModelVersion | None = None) -> frozenset[str]:
    """The rules whose ``when`` is false for a candidate. One that cannot be computed holds, and the rule applies."""
    conditional = [rule for rule in policy.rules if rule.when is not None]
    if not conditional:
        return frozenset()
    known = facts(evidence, version)
    return frozenset(rule.name for rule in conditional if not _holds(rule.when or "", known, policy.name, rule.name))


def matches(policy: Policy, version: ModelVersion) -> bool:
    """Whether a policy speaks of a version. Where that cannot be computed it does: an error must not open the gate."""
    return _holds(policy.match, {"version": facts_of(version)}, policy.name, "match")


def problem(expression: str, kind: str, probe: Mapping[str, Any]) -> str | None:
    """What is wrong with an expression, asked over a probe; ``None`` where nothing is."""
    try:
        answer = program(expression).execute(dict(probe))
    except LookupError:
        return None  # a tag that the probe lacks: a version may have it
    except Exception as error:
        first = re.split(r" expecting |\. ", str(error).splitlines()[0])[0]
        return f"expected a CEL expression over {', '.join(ROOTS[kind])}, found: {first}"
    return None if isinstance(answer, bool) else f"expected true or false, found {answer!r:.60}"


def facts_named(expression: str) -> list[tuple[str, str]]:
    """Each fact that an expression names, as ``("version", "name")``; what stands in a text is none."""
    return [(found[1], found[2]) for found in _FACT.finditer(_TEXT.sub("''", expression))]


@lru_cache(maxsize=1024)
def program(expression: str) -> Any:
    """An expression, compiled once."""
    return cel.compile(expression)


def _holds(expression: str, known: Mapping[str, Any], policy: str, what: str) -> bool:
    try:
        answer = program(expression).execute(dict(known))
    except Exception as error:  # whatever the expression does wrong, it holds
        log.warning("expression failed, so it holds", policy=policy, expression=what, error=str(error)[:200])
        return True
    return answer is not False
