"""Which registered models a Kubernetes resource would serve, read from the resource alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gate.domain.errors import InvalidInput

ANNOTATION = "basin-gate.dev/model"
REFERENCES_AT_MOST = 20
CHECKED = frozenset({"CREATE", "UPDATE"})

# A value that is a reference, alone or behind a flag, is one to its end: names of registered models may hold spaces.
_WHOLE = re.compile(r"(?:--?[\w.-]+=)?[\"']?(models:/[^\"'\n]*?)[\"']?", re.IGNORECASE)
_WITHIN = re.compile(r"(?<![\w.+-])models:/[^\s\"'`,;|&<>(){}\[\]\\]*", re.IGNORECASE)


def asked_references(operation: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[str, ...]:
    """What must be approved for the request: the references that it brings in. Only creating and updating asks
    anything, and an update nothing that the resource holds already: its labels, scale and finalizers stay free."""
    if operation not in CHECKED:
        return ()
    known = set(references(before)) if operation == "UPDATE" else set()
    asked = tuple(text for text in references(now) if text not in known)
    if len(asked) > REFERENCES_AT_MOST:
        raise InvalidInput(
            f"expected at most {REFERENCES_AT_MOST} model references in one resource, found {len(asked)}"
        )
    return asked


def references(resource: Mapping[str, Any]) -> tuple[str, ...]:
    """Each ``models:/…`` in the resource's specification, whatever its kind: arguments, commands, environment,
    ``storageUri``, ``modelUri``; and what the annotation names, whether that is a reference or not.

    >>> references({"kind": "Pod", "spec": {"containers": [{"args": ["--model=models:/help desk/3"]}]}})
    ('models:/help desk/3',)
    """
    metadata = resource.get("metadata")
    top = {name: value for name, value in resource.items() if name not in ("metadata", "status")}
    own = _annotated(metadata.get("annotations")) if isinstance(metadata, dict) else ()
    return tuple(dict.fromkeys([*own, *_found(top)]))


def _found(document: Any) -> Iterator[str]:
    """The references of a document in its order, without recursion: its depth is the sender's choice."""
    waiting = [document]
    while waiting:
        current = waiting.pop()
        if isinstance(current, str):
            yield from _references(current)
        elif isinstance(current, list):
            waiting.extend(reversed(current))
        elif isinstance(current, dict):
            # Of annotations only ours counts: other people's may quote whole manifests, earlier ones too.
            quoting = current.get("annotations")
            yield from _annotated(quoting)
            waiting.extend(v for v in reversed(current.values()) if v is not quoting or not isinstance(v, dict))


def _annotated(annotations: Any) -> Iterator[str]:
    value = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
    if value is not None:
        yield from _references(str(value)) or (str(value),)


def _references(text: str) -> tuple[str, ...]:
    if whole := _WHOLE.fullmatch(text.strip()):
        return (whole[1],)
    return tuple(_WITHIN.findall(text))
