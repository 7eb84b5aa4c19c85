"""The evidence that limits are learned from: read where it was stored, measured where there is a folder."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from gate.domain.checkpoint import Layout
from gate.domain.errors import InvalidInput
from gate.domain.evidence import Evidence
from gate.domain.policy import Policy, Rule
from tasks.bench import Tell
from tasks.checkpoints import locate
from tasks.examining import Ready, named_by


def members(paths: Iterable[Path]) -> list[Path]:
    """The fine-tunes that paths stand for: a checkpoint's folder or an evidence file itself, else a folder's entries."""
    found = [each for path in paths for each in (_entries(path) if _is_collection(path) else [path])]
    if absent := [str(path) for path in found if not path.exists()]:
        raise InvalidInput(f"expected folders or evidence files, found nothing at {', '.join(absent[:3])}")
    return found


def evidence_of(path: Path, policy: Policy, rules: Sequence[Rule], ready: Callable[[], Ready], tell: Tell) -> Evidence:
    """What is known of a fine-tune. A folder is measured as far as these rules ask, whatever the verdict would be."""
    if path.is_file():
        return read_evidence(path)
    base = ready()
    lineage = named_by("the command line", base.bench.base)
    enough = partial(_measured, rules)
    return base.examine(path, policy, lineage, enough=enough, tell=tell, prompts_kept=0).evidence


def read_evidence(path: Path) -> Evidence:
    """The evidence of a JSON file: as ``assess --json`` writes it, or alone as an evaluation's run holds it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        inner = found.get("evidence", found) if isinstance(found, dict) else found
        return Evidence.model_validate_json(json.dumps(inner))
    except (OSError, ValueError, ValidationError) as error:
        raise InvalidInput(f"{path}: expected what `basin-gate assess --json` writes, found: {error}") from error


def _measured(rules: Sequence[Rule], evidence: Evidence) -> bool:
    """Whether all that the rules speak of is there."""
    return all(
        evidence.find(rule.measurement, capability) is not None
        for rule in rules
        for capability in (evidence.capabilities if rule.capability == "*" else (rule.capability,))
    )


def _is_collection(path: Path) -> bool:
    return path.is_dir() and locate(path).layout is Layout.UNKNOWN


def _entries(folder: Path) -> Iterator[Path]:
    entries = sorted(each for each in folder.iterdir() if each.is_dir() or each.suffix == ".json")
    if not entries:
        raise InvalidInput(f"{folder}: expected checkpoints or evidence files in it, found none")
    yield from entries
