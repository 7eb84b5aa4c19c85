"""Whether the files of a promoted version still look like those that were judged: by name and size, nothing is read.

An overwritten file of the same size passes here; only hashing the bytes finds it, as ``basin-gate verify`` does.
"""

from collections.abc import Mapping

import structlog

from gate.domain.checkpoint import ModelVersion
from gate.domain.errors import GateError, NotFound
from gate.domain.overview import EvaluationRow
from gate.ports import Ledger, Registry

NAMED_AT_MOST = 5
log = structlog.get_logger(__name__)


class Fingerprints:
    """Compares listings with the files that verdicts speak of."""

    def __init__(self, ledger: Ledger, registry: Registry) -> None:
        self._ledger, self._registry = ledger, registry
        self._judged: dict[str, Mapping[str, int]] = {}

    def differences(self, version: ModelVersion, row: EvaluationRow | None) -> tuple[str, ...]:
        """Names of files that are new, gone, or of another size than in the version's evaluation; empty where none is,
        or where nobody can tell now."""
        judged = self._files_of(row)
        try:
            found = self._registry.listing(version) if judged else None
        except NotFound:
            found = {}
        except GateError as error:
            log.warning("artifacts could not be listed", version=version.uri, error=str(error))
            return ()
        if found is None:
            return ()
        different = sorted(path for path, _ in found.items() ^ judged.items())
        return tuple(dict.fromkeys(different))[:NAMED_AT_MOST]

    def _files_of(self, row: EvaluationRow | None) -> Mapping[str, int]:
        """Sizes of the judged files; what a verdict speaks of never changes, so they are read once."""
        if row is None or row.evidence_key is None:
            return {}
        if row.request.key not in self._judged:
            evidence = self._ledger.evidence(row.evidence_key)
            files = evidence.candidate.files if evidence else ()
            self._judged[row.request.key] = {file.path: file.size for file in files}
        return self._judged[row.request.key]
